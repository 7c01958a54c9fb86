//! From actions to joints and from joints to the state: LIBERO's conventions on an arm of five joints.
//!
//! An action is seven numbers in −1 … 1: a shift of the tool point in the world (x forward, y to the right of the front
//! picture, z up) in units of [`POSITION_SCALE_M`], a turn in the world as axis times angle in units of
//! [`ROTATION_SCALE_RAD`], and the gripper from −1 (open by [`OPEN_M`]) to 1 (closed). Both are from where the tool *is*, not
//! from where it was told to be: a policy that sees the state sees all there is. Servos lag, so a shift from rest is made to
//! about five sixths within its step, and one in full motion nearly whole.
//!
//! Five joints make two turns of three: pitch and the turn about the tool's own length. What is left, sideways leaning, is
//! dropped; it follows from the pan. A tool that points straight down can turn about the vertical as it likes, so grasping
//! from above loses nothing. Where the arm cannot hold the pitch, it gives way as little as it has to; where it cannot hold
//! the place, it goes part of the way.

use std::f64::consts::{FRAC_PI_2, TAU};

use skillweld_robot_sim::{ArmModel, GRIPPER, JOINTS, Pose, Quat, ToolTarget, Vec3, World, vec3};

use crate::error::SuiteError;

/// Numbers of an action: shift, turn, gripper.
pub const ACTIONS: usize = 7;
/// Control steps a second.
pub const CONTROL_HZ: u32 = 20;
/// A shift of 1 along an axis, in metres.
pub const POSITION_SCALE_M: f64 = 0.02;
/// A turn of 1 about an axis, in radians.
pub const ROTATION_SCALE_RAD: f64 = 0.2;
/// Between the fingertips at −1, in metres.
pub const OPEN_M: f64 = 0.062;

/// How far and how finely a pitch gives way.
const PITCH_STEP_RAD: f64 = 0.05;
const PITCH_STEPS: usize = 18;
/// A joint that would have to turn further within a step is on its way to another posture.
const JUMP_RAD: f64 = 0.8;

/// Seven finite numbers within −1 … 1.
pub(crate) fn checked(action: &[f64; ACTIONS]) -> Result<[f64; ACTIONS], SuiteError> {
    match action.iter().position(|a| !a.is_finite()) {
        Some(index) => Err(SuiteError::Action { index, value: action[index] }),
        None => Ok(action.map(|a| a.clamp(-1.0, 1.0))),
    }
}

/// Where an action sends the joints.
pub(crate) fn goals(world: &World, action: &[f64; ACTIONS]) -> [f64; JOINTS] {
    let (arm, joints, tool) = (world.arm(), world.joints(), world.tool());
    let shift = vec3(action[0], action[1], action[2]) * POSITION_SCALE_M;
    let turn = from_axis_angle(vec3(action[3], action[4], action[5]) * ROTATION_SCALE_RAD);
    let rotation = turn * tool.rotation;
    let mut goals = *joints;
    for share in [1.0, 0.5, 0.25, 0.1, 0.0] {
        let position = tool.position + shift * share;
        let (pitch_rad, roll_rad) = pitch_and_roll(arm, position, rotation, joints[4]);
        let target = ToolTarget { position, pitch_rad, roll_rad };
        let found = reach(arm, &target, joints);
        if let Some(found) = found.filter(|q| (0..GRIPPER).all(|j| (q[j] - joints[j]).abs() < JUMP_RAD)) {
            goals = found;
            break;
        }
    }
    let opening_m = 0.5 * OPEN_M * (1.0 - action[6]);
    goals[GRIPPER] = arm.gripper.position_for(opening_m, &arm.joints[GRIPPER]);
    goals
}

/// Joints that bring the tool to a place, facing it, with the pitch as near to the wanted one as it can be.
pub(crate) fn reach(arm: &ArmModel, target: &ToolTarget, near: &[f64; JOINTS]) -> Option<[f64; JOINTS]> {
    let pan = pan_to(arm, target.position);
    let roll_rad = target.roll_rad.max(arm.joints[4].min_rad).min(arm.joints[4].max_rad);
    (0..=PITCH_STEPS).flat_map(|k| [k as f64, -(k as f64)]).find_map(|k| {
        let pitch_rad = target.pitch_rad + k * PITCH_STEP_RAD;
        let found = arm.inverse(&ToolTarget { pitch_rad, roll_rad, ..*target }, near).ok()?;
        ((found[0] - pan).abs() < 1e-6).then_some(found)
    })
}

/// The pan at which the arm faces a place.
pub(crate) fn pan_to(arm: &ArmModel, position: Vec3) -> f64 {
    let place = arm.base.inverse().apply(position);
    -place.y.atan2(place.x - arm.pan_offset_m)
}

/// Of an orientation at a place the part that the arm can make; of all equal rolls the one nearest to `near_rad`.
pub(crate) fn pitch_and_roll(arm: &ArmModel, position: Vec3, rotation: Quat, near_rad: f64) -> (f64, f64) {
    let unpanned = Quat::about(Vec3::Z, pan_to(arm, position)) * arm.base.rotation.inverse() * rotation;
    let out = unpanned.rotate(Vec3::X);
    let pitch_rad = (-out.z).atan2(out.x);
    let side = (Quat::about(Vec3::Y, -pitch_rad) * unpanned).rotate(Vec3::Y);
    let roll_rad = (-side.z).atan2(side.y);
    (pitch_rad, roll_rad + TAU * ((near_rad - roll_rad) / TAU).round())
}

/// The orientation of a tool that points straight down, its fingers closing along the world's x axis: zero in the state.
fn down() -> Quat {
    Quat::about(Vec3::Y, FRAC_PI_2)
}

/// Position, turn from straight down as axis times angle, and both fingers.
pub(crate) fn state(world: &World) -> [f32; 8] {
    let Pose { position, rotation } = world.tool();
    let turn = to_axis_angle(rotation * down().inverse());
    let finger_m = 0.5 * world.opening_m();
    [position.x, position.y, position.z, turn.x, turn.y, turn.z, finger_m, -finger_m].map(|x| x as f32)
}

pub(crate) fn from_axis_angle(turn: Vec3) -> Quat {
    turn.unit().map_or(Quat::IDENTITY, |axis| Quat::about(axis, turn.length()))
}

/// Of length 0 … π.
pub(crate) fn to_axis_angle(rotation: Quat) -> Vec3 {
    let axis = rotation.v * 1f64.copysign(rotation.w);
    axis.unit().map_or(Vec3::ZERO, |axis| axis * rotation.angle_rad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn axis_and_angle_are_a_rotation(v in prop::array::uniform3(-1.7..1.7f64)) {
            let turn = vec3(v[0], v[1], v[2]);
            prop_assert!((to_axis_angle(from_axis_angle(turn)) - turn).length() < 1e-9);
        }

        /// What the joints make is what is taken apart.
        #[test]
        fn pitch_and_roll_of_joints(pan in -1.2..1.2f64, pitch in 0.3..2.0f64, roll in -2.5..2.5f64) {
            let arm = ArmModel::so101();
            let target = ToolTarget { position: vec3(0.0388 + 0.2 * pan.cos(), -0.2 * pan.sin(), 0.05), pitch_rad: pitch, roll_rad: roll };
            let rotation = arm.tool_rotation(pan, &target);
            let (p, r) = pitch_and_roll(&arm, target.position, rotation, roll);
            prop_assert!((p - pitch).abs() < 1e-9 && (r - roll).abs() < 1e-9, "{p} {r}");
        }
    }
}
