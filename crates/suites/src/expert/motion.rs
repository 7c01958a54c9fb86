//! From where the tool is towards where it is to be.

use skillweld_robot_sim::{Pose, TABLE, Vec3, vec3};

use crate::controller::{ACTIONS, POSITION_SCALE_M, ROTATION_SCALE_RAD, pitch_and_roll, to_axis_angle};
use crate::env::Env;
use crate::layout::PAN_M;

/// What is higher than this is not on the table's top.
const HIGHEST_M: f64 = 0.15;
/// No way leads higher than this: further up the arm cannot point down.
const CEILING_M: f64 = 0.100;
/// Vertically with something near the fingers, in a step: what one sees of the last centimetres is worth having twice.
pub(super) const DESCENT_M: f64 = 0.012;
/// Air between what moves over things and the things.
const AIR_M: f64 = 0.010;

/// Nothing but the gripper.
pub(crate) fn wait(closed: bool) -> [f64; ACTIONS] {
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, if closed { 1.0 } else { -1.0 }]
}

/// How a tool comes down onto a pose or carries something there: over everything while it is far, down as it comes near.
///
/// What to do follows from where the tool is, smoothly and without phases: a policy that sees the place a little wrongly then
/// does a little wrong, and one that has gone astray finds in demonstrations what to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Funnel {
    /// Where it ends.
    pub(super) target: Pose,
    /// Height of the tool while it is far, in metres.
    pub(super) over_m: f64,
}

/// So far off the way down is the target's whole neighbourhood.
const SLACK_M: f64 = 0.008;
/// Metres up for each that it is further off.
const SLOPE: f64 = 4.0;
/// A turn that is missing counts as much as its arc at this radius.
const TURN_RADIUS_M: f64 = 0.03;
/// Sideways at full speed only where nothing is missing upwards; not at all from here on.
const RISE_M: f64 = 0.015;

impl Funnel {
    pub(super) fn action(&self, env: &Env, closed: bool) -> [f64; ACTIONS] {
        let (tool, to) = (env.world().tool(), self.target.position);
        let now = tool.position;
        let (from, goal) = (vec3(now.x - PAN_M, now.y, 0.0), vec3(to.x - PAN_M, to.y, 0.0));
        // Along a circle about the pan axis, as the arm likes to move.
        let (angle, radius) = (from.y.atan2(from.x), from.length_xy());
        let (turn_rad, out_m) = (goal.y.atan2(goal.x) - angle, goal.length_xy() - radius);
        let way_m = (turn_rad * radius).hypot(out_m);
        let missing_rad = (self.target.rotation * tool.rotation.inverse()).angle_rad();
        let off_m = way_m.hypot(TURN_RADIUS_M * missing_rad);
        let above_m = (SLOPE * (off_m - SLACK_M)).clamp(0.0, (self.over_m - to.z).max(0.0));
        let up_m = to.z + above_m - now.z;
        let sideways = (1.0 - up_m / RISE_M).clamp(0.0, 1.0);
        let share = sideways * (POSITION_SCALE_M / way_m.max(1e-9)).min(1.0);
        let (angle, radius) = (angle + share * turn_rad, radius + share * out_m);
        let next = vec3(PAN_M + radius * angle.cos(), radius * angle.sin(), now.z + up_m.max(-DESCENT_M));
        action(env, next - now, self.target, closed)
    }
}

/// Straight, by at most `most_m` in a step.
pub(super) fn line(env: &Env, target: Pose, most_m: f64, closed: bool) -> [f64; ACTIONS] {
    let way = target.position - env.world().tool().position;
    let share = (most_m / way.length().max(1e-9)).min(1.0);
    action(env, way * share, target, closed)
}

/// A shift, cut to what one step takes, and the turn towards the target's orientation.
fn action(env: &Env, shift: Vec3, target: Pose, closed: bool) -> [f64; ACTIONS] {
    let shift = shift * (1.0 / POSITION_SCALE_M);
    let shift = shift * (1.0 / shift.length().max(1.0));
    let turn = turn_to(env, target) * (1.0 / ROTATION_SCALE_RAD);
    let turn = turn * (1.0 / turn.length().max(1.0));
    let [.., grip] = wait(closed);
    [shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, grip]
}

/// The turn that is missing, in the world. The short way round may lead past the end of the wrist's roll: then the other.
fn turn_to(env: &Env, target: Pose) -> Vec3 {
    let world = env.world();
    let (arm, tool) = (world.arm(), world.tool());
    let turn = to_axis_angle(target.rotation * tool.rotation.inverse());
    let (_, roll_rad) = pitch_and_roll(arm, tool.position, target.rotation, 0.0);
    let missing_rad = roll_rad - world.joints()[4];
    if turn.length() > 2.0 && missing_rad.abs() > 2.0 {
        return tool.rotation.rotate(Vec3::X) * -missing_rad;
    }
    turn
}

/// A tool so near to a pose is there: within the funnel's slack, with room for what is not seen exactly.
const ARRIVED_M: f64 = 0.005;
const ARRIVED_RAD: f64 = 0.10;

/// Whether the tool is at a pose.
pub(super) fn arrived(env: &Env, target: Pose) -> bool {
    let tool = env.world().tool();
    (tool.position - target.position).length() < ARRIVED_M
        && (target.rotation * tool.rotation.inverse()).angle_rad() < ARRIVED_RAD
}

/// The same pose at another height.
pub(super) fn at_height(pose: Pose, height_m: f64) -> Pose {
    Pose { position: vec3(pose.position.x, pose.position.y, height_m), ..pose }
}

/// The height of the tool at which what hangs `below_m` under it passes over everything but `except`.
pub(super) fn over_all_m(env: &Env, except: Option<usize>, below_m: f64) -> f64 {
    let bodies = env.world().bodies().iter().enumerate();
    let tops = bodies.filter(|(i, _)| *i != TABLE && Some(*i) != except).map(|(_, body)| body.top_m());
    let highest_m = tops.filter(|top_m| *top_m < HIGHEST_M).fold(0.0, f64::max);
    (highest_m + below_m + AIR_M).min(CEILING_M)
}
