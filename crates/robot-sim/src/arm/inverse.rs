use std::f64::consts::{FRAC_PI_2, PI};

use super::{ArmModel, GRIPPER, JOINT_NAMES, JOINTS, tool_rotation};
use crate::geometry::{Quat, Vec3, vec3};

/// Where the tool point is to be. Five joints leave no choice of yaw: the tool points away from the pan axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolTarget {
    /// In the world, in metres.
    pub position: Vec3,
    /// How far the tool points below the horizon: π/2 is straight down.
    pub pitch_rad: f64,
    /// The wrist's roll.
    pub roll_rad: f64,
}

/// Why no joint positions lead to a target.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// The wrist would have to be outside of the ring that the two arm links can reach.
    #[error("the target is {by_m:.3} m out of reach: bring it closer to the shoulder, or change the pitch")]
    TooFar {
        /// What is missing.
        by_m: f64,
    },
    /// The wrist would be closer to the shoulder than the links can fold.
    #[error("the target is {by_m:.3} m too close to the shoulder: move it away, or change the pitch")]
    TooClose {
        /// What is missing.
        by_m: f64,
    },
    /// The links reach it, a joint does not turn that far.
    #[error("{joint} would have to turn {by_rad:.3} rad past its limit: change the pitch or the place")]
    Limit {
        /// The joint that is furthest past its limit, of the best of all ways there.
        joint: &'static str,
        /// How far.
        by_rad: f64,
    },
    /// NaN or infinity.
    #[error("the target is not finite")]
    NotFinite,
}

impl ArmModel {
    /// Joint positions that put the tool on the target; the gripper stays as in `near`. Of several ways, the one whose
    /// largest joint motion from `near` is smallest.
    ///
    /// # Errors
    /// [`Unreachable`] if there are none within the limits.
    pub fn inverse(&self, target: &ToolTarget, near: &[f64; JOINTS]) -> Result<[f64; JOINTS], Unreachable> {
        if !(target.position.is_finite() && target.pitch_rad.is_finite() && target.roll_rad.is_finite()) {
            return Err(Unreachable::NotFinite);
        }
        let place = self.base.inverse().apply(target.position);
        let (dx, dy) = (place.x - self.pan_offset_m, place.y);
        let radius = dx.hypot(dy);
        let pan = if radius < 1e-9 { near[0] } else { -dy.atan2(dx) };
        let (sin, cos) = target.pitch_rad.sin_cos();
        let up = place.z + self.tool_m * sin - self.shoulder_height_m;
        let mut best: Result<([f64; JOINTS], f64), Unreachable> = Err(Unreachable::NotFinite);
        // Facing the target, or bent backwards over the shoulder.
        for (pan, radius) in [(pan, radius), (wrapped(pan + PI), -radius)] {
            let out = radius - self.tool_m * cos - self.shoulder_reach_m;
            let reach = out.hypot(up);
            let (upper, lower) = (self.upper_arm_m, self.lower_arm_m);
            let bend = (reach * reach - upper * upper - lower * lower) / (2.0 * upper * lower);
            if bend.abs() > 1.0 + 1e-12 {
                let problem = if bend > 0.0 {
                    Unreachable::TooFar { by_m: reach - upper - lower }
                } else {
                    Unreachable::TooClose { by_m: (upper - lower).abs() - reach }
                };
                best = better(best, Err(problem));
                continue;
            }
            for side in [1.0, -1.0] {
                // Angle between the links, then of the upper arm from the vertical, both towards the front.
                let turn = side * bend.clamp(-1.0, 1.0).acos();
                let lean = out.atan2(up) - (lower * turn.sin()).atan2(upper + lower * turn.cos());
                let lift = wrapped(lean - self.upper_arm_lean_rad);
                // The lower arm points `lean + turn` from the vertical, which is `− π/2` below the horizon.
                let elbow = wrapped(lean + turn - FRAC_PI_2 + self.lower_arm_rise_rad - lift);
                let wrist = wrapped(target.pitch_rad - lift - elbow);
                let joints = [pan, lift, elbow, wrist, target.roll_rad, near[GRIPPER]];
                best = better(best, self.within_limits(joints, near));
            }
        }
        best.map(|(joints, _)| joints)
    }

    /// The joints and the largest motion from `near`, or the joint that is furthest out.
    fn within_limits(
        &self,
        mut joints: [f64; JOINTS],
        near: &[f64; JOINTS],
    ) -> Result<([f64; JOINTS], f64), Unreachable> {
        let mut worst = (0, 1e-9);
        for (j, value) in joints.iter_mut().enumerate().take(GRIPPER) {
            let model = &self.joints[j];
            let by_rad = (model.min_rad - *value).max(*value - model.max_rad);
            if by_rad > worst.1 {
                worst = (j, by_rad);
            }
            *value = if by_rad > 1e-9 { *value } else { value.max(model.min_rad).min(model.max_rad) };
        }
        if worst.1 > 1e-9 {
            return Err(Unreachable::Limit { joint: JOINT_NAMES[worst.0], by_rad: worst.1 });
        }
        let motion = (0..GRIPPER).map(|j| (joints[j] - near[j]).abs()).fold(0.0, f64::max);
        Ok((joints, motion))
    }

    /// From straight above, with the fingers closing along a horizontal direction `yaw_rad` from the world's x axis on a
    /// thing at `position` that is `width_m` wide there; of the two rolls that do so, the one nearer to the middle.
    pub fn from_above(&self, position: Vec3, yaw_rad: f64, width_m: f64) -> ToolTarget {
        let place = self.base.inverse().apply(position);
        let across = self.base.rotation.inverse().rotate(vec3(yaw_rad.cos(), yaw_rad.sin(), 0.0));
        // With the tool straight down, roll zero lets the fingers close along the arm.
        let roll = |place: Vec3, across: Vec3| {
            let pan = -place.y.atan2(place.x - self.pan_offset_m);
            let unrolled = tool_rotation(pan, FRAC_PI_2, 0.0).inverse().rotate(across);
            unrolled.y.atan2(unrolled.z)
        };
        let across = if roll(place, across).abs() > FRAC_PI_2 { -across } else { across };
        let place = place - across * self.gripper.grip_centre_m(width_m);
        ToolTarget { position: self.base.apply(place), pitch_rad: FRAC_PI_2, roll_rad: roll(place, across) }
    }

    /// Orientation of the tool in the world at a target.
    pub fn tool_rotation(&self, pan: f64, target: &ToolTarget) -> Quat {
        self.base.rotation * tool_rotation(pan, target.pitch_rad, target.roll_rad)
    }
}

type Found = Result<([f64; JOINTS], f64), Unreachable>;

/// A way beats none, a short one a long one; of failures, the smallest.
fn better(a: Found, b: Found) -> Found {
    let size = |problem: &Unreachable| match problem {
        Unreachable::Limit { by_rad, .. } => *by_rad,
        Unreachable::TooFar { by_m } | Unreachable::TooClose { by_m } => 10.0 + by_m,
        Unreachable::NotFinite => f64::INFINITY,
    };
    let b_is_better = match (&a, &b) {
        (Ok((_, x)), Ok((_, y))) => y < x,
        (Err(x), Err(y)) => size(y) < size(x),
        (a, _) => a.is_err(),
    };
    if b_is_better { b } else { a }
}

/// The same angle in −π … π.
fn wrapped(angle: f64) -> f64 {
    let turns = (angle / (2.0 * PI)).round();
    angle - turns * 2.0 * PI
}
