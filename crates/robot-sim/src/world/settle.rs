//! Bodies fall, lay themselves flat, and slide off edges.

use super::support::{clipped, footprint, hull, nearest_on};
use super::{FLOOR_M, STEP_S, TOLERANCE_M, World};
use crate::body::Motion;
use crate::geometry::{Pose, Quat, Vec3, vec3};
use crate::shape::{Solid, sweep};

const GRAVITY: f64 = 9.81;
/// A surface up to this far above a body's bottom is below it: what overlaps more is beside it.
const BELOW_M: f64 = 0.002;
/// The same while it turns, which may drive an edge down.
const BELOW_TURNING_M: f64 = 0.006;
/// Sideways overlap that does not hold a body up, however little the side slants: what may be left of a push.
const GRAZE_M: f64 = 0.9 * TOLERANCE_M;
/// Surfaces this far below the highest one still carry.
const LEVEL_M: f64 = 3e-4;
/// How fast a body lies down, in radians a second.
const TURN_SPEED: f64 = 8.0;
/// How fast a body slides off an edge, in metres a second.
const SLIDE_SPEED: f64 = 0.25;

/// What is below a body.
struct Ground {
    /// From the body's bottom down to it; negative if the body must rise.
    gap_m: f64,
    /// What carries.
    carriers: Vec<Carrier>,
}

/// A surface under a body.
struct Carrier {
    /// Whose it is; none if it is the arm's.
    body: Option<usize>,
    below: Solid,
    /// Of the body above, the part that it is under.
    above: Solid,
    gap_m: f64,
}

impl World {
    /// Gravity for one step; whether anything moved.
    pub(super) fn settle(&mut self) -> bool {
        let held = self.held();
        let mut order: Vec<usize> = (0..self.bodies.len())
            .filter(|&i| self.bodies[i].motion == Motion::Free && held != Some(i))
            .collect();
        order.sort_by(|&a, &b| self.bodies[a].bottom_m().total_cmp(&self.bodies[b].bottom_m()));
        let mut moved = false;
        for i in order {
            moved |= self.settle_body(i);
        }
        moved
    }

    fn settle_body(&mut self, i: usize) -> bool {
        let ground = self.ground(i, BELOW_M);
        if ground.gap_m > 1e-5 {
            let body = &mut self.bodies[i];
            body.rests_on = None;
            body.fall_speed += GRAVITY * STEP_S;
            let fall_m = (body.fall_speed * STEP_S).min(ground.gap_m);
            if fall_m >= ground.gap_m {
                body.fall_speed = 0.0;
            }
            self.displace(i, vec3(0.0, 0.0, -fall_m), 0.0);
            return true;
        }
        self.bodies[i].fall_speed = 0.0;
        let mut moved = false;
        if ground.gap_m < -1e-6 {
            let overlap_m = self.overlap_of(i);
            self.displace(i, vec3(0.0, 0.0, -ground.gap_m), 0.0);
            moved = self.overlap_of(i) <= TOLERANCE_M.max(overlap_m);
            if !moved {
                self.displace(i, vec3(0.0, 0.0, ground.gap_m), 0.0);
            }
        }
        self.bodies[i].rests_on = ground.carriers.first().and_then(|c| c.body);
        self.lie_down(i) || self.slide_off(i, &ground) || moved
    }

    /// The surfaces that would stop a body's fall. Without any, the floor.
    fn ground(&self, i: usize, below_m: f64) -> Ground {
        let mut carriers: Vec<Carrier> = Vec::new();
        let bodies = self.bodies.iter().enumerate().filter(|(j, _)| *j != i);
        let others = bodies.flat_map(|(j, b)| b.solids.iter().map(move |s| (Some(j), *s)));
        for (body, below) in others.chain(self.arm_against(i).iter().map(|s| (None, *s))) {
            for &above in &self.bodies[i].solids {
                if above.near_xy(&below)
                    && let Some((_, up)) = sweep(&above, &below, Vec3::Z, GRAZE_M)
                    && up <= below_m
                {
                    carriers.push(Carrier { body, below, above, gap_m: -up });
                }
            }
        }
        let floor_m = self.bodies[i].bottom_m() - FLOOR_M;
        let gap_m = carriers.iter().map(|c| c.gap_m).fold(floor_m, f64::min);
        carriers.retain(|c| c.gap_m <= gap_m + LEVEL_M);
        Ground { gap_m, carriers }
    }

    /// Turns a body towards its nearest flat position, unless something is in the way; whether it turned.
    fn lie_down(&mut self, i: usize) -> bool {
        let turn = self.bodies[i].to_flat();
        let angle = turn.angle_rad();
        let Some(axis) = turn.v.unit() else { return false };
        if angle < 1e-6 {
            return false;
        }
        let step = (TURN_SPEED * STEP_S).min(angle);
        // What stands on it is taken along: all of it goes back where it was.
        let poses: Vec<Pose> = self.bodies.iter().map(|body| body.pose).collect();
        let before = poses[i];
        let overlap_m = self.overlap_of(i);
        let rotation = (Quat::about(axis, step) * before.rotation).normalized();
        self.bodies[i].place(Pose { rotation, ..before });
        let gap_m = self.ground(i, BELOW_TURNING_M).gap_m;
        if gap_m < 0.0 {
            self.displace(i, vec3(0.0, 0.0, -gap_m), 0.0);
        }
        if self.overlap_of(i) > TOLERANCE_M.max(overlap_m) {
            self.step_aside(i);
        }
        if self.overlap_of(i) > TOLERANCE_M.max(overlap_m) {
            self.bodies.iter_mut().zip(poses).for_each(|(body, pose)| body.place(pose));
            return false;
        }
        true
    }

    fn step_aside(&mut self, i: usize) {
        let others: Vec<Solid> = (0..self.bodies.len())
            .filter(|&j| j != i)
            .flat_map(|j| self.bodies[j].solids.iter().copied())
            .chain(self.arm_against(i).iter().copied())
            .collect();
        for _ in 0..4 {
            let mut moved = false;
            for other in &others {
                moved |= self.push(i, other);
            }
            if !moved {
                return;
            }
        }
    }

    /// Moves a body away from what carries it if its centre is not above that; whether it moved.
    fn slide_off(&mut self, i: usize, ground: &Ground) -> bool {
        if ground.carriers.is_empty() {
            return false;
        }
        let points = ground
            .carriers
            .iter()
            .flat_map(|c| clipped(&footprint(&c.above, -1.0), &footprint(&c.below, 1.0)));
        let area = hull(points.collect());
        let centre = self.bodies[i].pose.position;
        let Some(nearest) = nearest_on(&area, [centre.x, centre.y]) else { return false };
        let away = vec3(centre.x - nearest[0], centre.y - nearest[1], 0.0);
        let Some(direction) = away.unit().filter(|_| away.length() > 1e-3) else { return false };
        let before = self.bodies[i].pose;
        let overlap_m = self.overlap_of(i);
        self.bodies[i].shift(direction * (SLIDE_SPEED * STEP_S), 0.0, before.position);
        if self.overlap_of(i) > TOLERANCE_M.max(overlap_m) {
            self.bodies[i].place(before);
            return false;
        }
        true
    }
}
