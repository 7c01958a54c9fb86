//! The arm moves, and what is in its way moves, or stops it.

use super::{TOLERANCE_M, World};
use crate::arm::JOINTS;
use crate::body::Motion;
use crate::geometry::{Pose, Vec3};
use crate::shape::{Contact, Solid, contact, push_xy, sweep, touch_point};

/// Overlap that is left alone, so that things which touch do not tremble.
const SLOP_M: f64 = 1e-4;
/// Rounds of pushing within a step.
const ROUNDS: usize = 12;
/// A body pushed further than this in one go is not pushed but run through: the arm stops instead.
const FAR_M: f64 = 0.03;
/// A body under a fingertip, which is rounded, squeezes out sideways up to here; further in, it carries.
const EDGE_M: f64 = 0.003;
/// A drawer slides for pushes within 60° of its slide.
const ALONG: f64 = 0.5;
/// Normals steeper than this are floors and ceilings, not walls.
const STEEP: f64 = 0.7;

impl World {
    /// Moves the arm to joint positions, with all that this pushes. Where that leaves an overlap, nothing happens, and the
    /// answer is no.
    pub(super) fn try_arm(&mut self, positions: [f64; JOINTS]) -> bool {
        let bodies: Vec<(Pose, f64)> = self.bodies.iter().map(|b| (b.pose, b.slide_m)).collect();
        let (joints, frames) = (self.servos.positions, self.frames);
        self.servos.positions = positions;
        self.frames = self.arm.frames(&positions);
        let arm_solids = std::mem::replace(&mut self.arm_solids, self.arm.solids(&self.frames));
        self.move_held(frames.tool());
        let worst_m = self.make_way(&bodies);
        if worst_m <= TOLERANCE_M.max(self.worst_m) {
            self.worst_m = worst_m;
            return true;
        }
        (self.servos.positions, self.frames, self.arm_solids) = (joints, frames, arm_solids);
        for (body, (pose, slide_m)) in self.bodies.iter_mut().zip(bodies) {
            if body.pose != pose {
                body.place(pose);
            }
            body.slide_m = slide_m;
        }
        false
    }

    /// Pushes until nothing overlaps or nothing helps; the overlap of what moved, in metres.
    fn make_way(&mut self, before: &[(Pose, f64)]) -> f64 {
        let held = self.held();
        let carried: Vec<Solid> = held.into_iter().flat_map(|h| self.bodies[h].solids.clone()).collect();
        // How many bodies are between the arm and a body: the nearer one pushes. What nothing pushes stays where it is.
        let mut rank = vec![usize::MAX; self.bodies.len()];
        for _ in 0..ROUNDS {
            let mut clean = true;
            for i in 0..self.bodies.len() {
                if self.bodies[i].motion == Motion::Fixed || held == Some(i) {
                    continue;
                }
                let arm = self.arm_against(i).to_vec();
                for pusher in arm.iter().chain(&carried) {
                    if self.push(i, pusher) {
                        (rank[i], clean) = (1, false);
                    }
                }
                for j in 0..self.bodies.len() {
                    let fixed = self.bodies[j].motion == Motion::Fixed;
                    let pushes = fixed || rank[j] < rank[i] || (rank[j] == rank[i] && j < i);
                    if j == i || held == Some(j) || !pushes {
                        continue;
                    }
                    for part in 0..self.bodies[j].solids.len() {
                        let solid = self.bodies[j].solids[part];
                        if self.push(i, &solid) {
                            clean = false;
                            if !fixed {
                                rank[i] = rank[i].min(rank[j].saturating_add(1));
                            }
                        }
                    }
                }
            }
            if clean {
                break;
            }
        }
        let moved = (0..self.bodies.len()).filter(|&i| self.bodies[i].pose != before[i].0);
        moved.map(|i| self.overlap_of(i)).fold(self.overlap_of_arm(), f64::max)
    }

    /// Moves a body out of a solid; whether it moved.
    pub(super) fn push(&mut self, body: usize, other: &Solid) -> bool {
        let mut moved = false;
        for part in 0..self.bodies[body].solids.len() {
            let mine = self.bodies[body].solids[part];
            if let Some(contact) = contact(&mine, other)
                && contact.depth_m > SLOP_M
            {
                moved |= self.give_way(body, &mine, other, contact);
            }
        }
        moved
    }

    fn give_way(&mut self, body: usize, mine: &Solid, other: &Solid, contact: Contact) -> bool {
        match self.bodies[body].motion {
            Motion::Fixed => false,
            Motion::Slides { axis, .. } => {
                // Across its slide a drawer is as firm as a wall.
                let along = contact.normal.dot(axis);
                along.abs() > ALONG
                    && contact.depth_m < FAR_M
                    && self.slide_to(body, self.bodies[body].slide_m + contact.depth_m / along)
            }
            Motion::Free if contact.normal.z > STEEP => {
                let Some((_, up)) = sweep(mine, other, Vec3::Z, 0.0) else { return false };
                if up < FAR_M {
                    self.displace(body, Vec3::Z * up, 0.0);
                }
                up < FAR_M
            }
            Motion::Free => {
                let Some(flat) = push_xy(mine, other) else { return false };
                let most_m = if contact.normal.z < -STEEP { EDGE_M } else { FAR_M };
                if flat.depth_m > most_m {
                    return false;
                }
                // Friction under a body resists shifting and turning alike, half its size away from the centre.
                let lever = touch_point(mine, other, contact) - self.bodies[body].pose.position;
                let torque = lever.x * flat.normal.y - lever.y * flat.normal.x;
                let size = 0.5 * self.bodies[body].radius_m();
                let shift_m = flat.depth_m / (1.0 + torque * torque / (size * size));
                let yaw_rad = (torque / (size * size) * shift_m).clamp(-0.15, 0.15);
                self.displace(body, flat.normal * shift_m, yaw_rad);
                true
            }
        }
    }

    /// Shifts a body and turns it about its centre; what stands on it goes along.
    pub(super) fn displace(&mut self, body: usize, by: Vec3, yaw_rad: f64) {
        let centre = self.bodies[body].pose.position + by;
        self.take_along(body, by, yaw_rad, centre);
        self.bodies[body].shift(by, yaw_rad, centre);
    }

    /// Shifts and turns everything that stands on a body, directly or not.
    pub(super) fn take_along(&mut self, body: usize, by: Vec3, yaw_rad: f64, centre: Vec3) {
        for rider in 0..self.bodies.len() {
            if rider != body && self.held() != Some(rider) && self.stands_on(rider, body) {
                self.bodies[rider].shift(by, yaw_rad, centre);
            }
        }
    }

    fn stands_on(&self, rider: usize, body: usize) -> bool {
        let mut below = self.bodies[rider].rests_on;
        for _ in 0..self.bodies.len() {
            match below {
                Some(b) if b == body => return true,
                Some(b) => below = self.bodies[b].rests_on,
                None => return false,
            }
        }
        false
    }

    /// Moves a sliding body within its travel; whether it moved.
    pub(super) fn slide_to(&mut self, body: usize, slide_m: f64) -> bool {
        let Motion::Slides { axis, travel_m } = self.bodies[body].motion else { return false };
        let slide_m = slide_m.clamp(0.0, travel_m);
        let by_m = slide_m - self.bodies[body].slide_m;
        if by_m.abs() < 1e-9 {
            return false;
        }
        self.displace(body, axis * by_m, 0.0);
        self.bodies[body].slide_m = slide_m;
        true
    }

    /// The deepest overlap of a body with anything else, in metres.
    pub(super) fn overlap_of(&self, body: usize) -> f64 {
        let others = self.bodies.iter().enumerate().filter(|(i, _)| *i != body).flat_map(|(_, b)| &b.solids);
        others.chain(self.arm_against(body)).map(|other| self.depth_of(body, other)).fold(0.0, f64::max)
    }

    /// The same for the arm and what it holds.
    pub(super) fn overlap_of_arm(&self) -> f64 {
        let held = self.held();
        let of_arm = (0..self.bodies.len())
            .flat_map(|i| self.arm_against(i).iter().map(move |solid| self.depth_of(i, solid)));
        of_arm.fold(held.map_or(0.0, |h| self.overlap_of(h)), f64::max)
    }

    fn depth_of(&self, body: usize, other: &Solid) -> f64 {
        let depths = self.bodies[body].solids.iter().filter_map(|mine| contact(mine, other));
        depths.map(|c| c.depth_m).fold(0.0, f64::max)
    }
}
