//! The gripper holds a body that stops both of its fingers, until it opens.

use super::{TOLERANCE_M, World};
use crate::arm::{GRIPPER, Link};
use crate::body::Motion;
use crate::geometry::{Pose, Vec3};
use crate::shape::{Solid, separation_m};

/// A finger this close to a body touches it: printed arms and their gears give by as much.
const TOUCH_M: f64 = 2.5e-3;
/// The same for a handle, which the moving finger cannot bring to the other one as it does loose things: the whole arm
/// gives.
const TOUCH_HANDLE_M: f64 = 14e-3;
/// A body may reach so far behind the plane of a finger's face: a jaw that slants touches with its tip, and what it holds
/// goes on below that.
const BEHIND_M: f64 = 5e-3;
/// Opening by this angle lets go.
const RELEASE_RAD: f64 = 0.03;
/// A handle that has moved this far out of the fingers is lost.
const SLIP_M: f64 = 0.01;

/// What the gripper holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grip {
    pub(super) body: usize,
    /// Of the body in the gripper's frame.
    pose: Pose,
    /// Of the gripper's joint.
    pub(super) position_rad: f64,
}

impl World {
    /// Looks for a body between the fingers, and holds it.
    pub(super) fn close_on_body(&mut self) {
        if self.grip.is_some() || self.servos.goals[GRIPPER] >= self.servos.positions[GRIPPER] {
            return;
        }
        let mut best: Option<(usize, f64)> = None;
        for (i, body) in self.bodies.iter().enumerate() {
            if body.motion == Motion::Fixed {
                continue;
            }
            let touch_m = if body.motion == Motion::Free { TOUCH_M } else { TOUCH_HANDLE_M };
            for part in &body.solids {
                if let Some(apart_m) = self.between_fingers(part, touch_m)
                    && best.is_none_or(|(_, least)| apart_m < least)
                {
                    best = Some((i, apart_m));
                }
            }
        }
        if let Some((body, _)) = best {
            let pose = self.frames.tool().inverse() * self.bodies[body].pose;
            self.grip = Some(Grip { body, pose, position_rad: self.servos.positions[GRIPPER] });
            self.bodies[body].fall_speed = 0.0;
            self.bodies[body].rests_on = None;
        }
    }

    /// How far the further finger is from a solid between them; `None` if one is further than `touch_m`.
    fn between_fingers(&self, solid: &Solid, touch_m: f64) -> Option<f64> {
        let mut worst = f64::NEG_INFINITY;
        for (finger, link, side) in [(0, Link::Jaw, -1.0), (1, Link::FixedJaw, 1.0)] {
            let (finger, face) = (&self.arm_solids[finger], self.frames.pose(link));
            // Before the finger's face, all of it: a wall beside both fingers is near, but not between them.
            let inwards = face.rotation.rotate(Vec3::Z) * side;
            let before_m = (solid.centre - face.position).dot(inwards) - solid.reach(inwards);
            if before_m < -BEHIND_M || !finger.near(solid, touch_m) {
                return None;
            }
            worst = worst.max(separation_m(finger, solid));
        }
        (worst < touch_m).then_some(worst)
    }

    /// Opens the hand where the gripper's joint says so, or where a handle slipped away.
    pub(super) fn let_go_if_open(&mut self) {
        let Some(grip) = &self.grip else { return };
        let opened = self.servos.positions[GRIPPER] > grip.position_rad + RELEASE_RAD;
        let slipped =
            (self.frames.tool().inverse() * self.bodies[grip.body].pose).position - grip.pose.position;
        if opened || slipped.length() > SLIP_M {
            self.leaving = Some(grip.body);
            self.grip = None;
            self.worst_m = self.overlap_of_arm();
        }
    }

    /// Fingers give way a little, and an opening jaw swings into what it held: only once they have parted do they touch
    /// the body as everything else does.
    pub(super) fn part_from_leaving(&mut self) {
        if let Some(body) = self.leaving.take()
            && self.overlap_of(body) > TOLERANCE_M
        {
            self.leaving = Some(body);
        }
    }

    /// Moves what is held after the gripper went away from `before`. A drawer follows as far as its slide goes.
    pub(super) fn move_held(&mut self, before: Pose) {
        let Some(grip) = &self.grip else { return };
        let (body, after) = (grip.body, self.frames.tool());
        if let Motion::Slides { axis, .. } = self.bodies[body].motion {
            let by_m = (after.position - before.position).dot(axis);
            self.slide_to(body, self.bodies[body].slide_m + by_m);
            return;
        }
        let (old, new) = (self.bodies[body].pose, after * grip.pose);
        let turn = new.rotation * old.rotation.inverse();
        let yaw_rad = 2.0 * turn.v.z.atan2(turn.w);
        self.take_along(body, new.position - old.position, yaw_rad, new.position);
        self.bodies[body].place(new);
    }
}
