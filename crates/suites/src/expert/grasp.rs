//! Where the fingers go: around a thing, with room for both of them, and to where it is put down.

use std::f64::consts::{FRAC_PI_2, PI};

use skillweld_robot_sim::{
    GRIPPER, Jaws, Pose, Shape, Solid, TABLE, ToolTarget, Vec3, World, separation_m, vec3,
};

use crate::controller::{OPEN_M, pan_to};
use crate::env::Env;

/// Wider things are not gripped: open fingers would have little room on both sides.
const WIDEST_M: f64 = 0.040;
/// Fingers come down this much further from a thing than they need to, on both sides: a policy that learns from it may be off
/// by as much. The moving finger leans inwards, so that higher up there is no more room than this.
pub(super) const ASIDE_M: f64 = 0.005;
/// The tool is at least so high: the tips, a centimetre lower, then clear the table.
pub(super) const LOWEST_M: f64 = 0.014;
/// More room than this around the fingers is not better.
const ROOM_M: f64 = 0.005;
/// Turning the tool in the world by a radian costs as much as this much less room: where nothing stands near, the shortest turn
/// is best, which is also what a policy learns soonest.
const TURN_M: f64 = 0.02;
/// A thing is let go this far above what it is put on.
const DROP_M: f64 = 0.003;
/// While it is let go the tips are this far above walls around it.
const OVER_WALLS_M: f64 = 0.004;

/// Pose of the tool, pointing straight down.
fn downwards(world: &World, position: Vec3, roll_rad: f64) -> Pose {
    let target = ToolTarget { position, pitch_rad: FRAC_PI_2, roll_rad };
    Pose { position, rotation: world.arm().tool_rotation(pan_to(world.arm(), position), &target) }
}

/// The roll with which the tool, pointing down at a place, is turned in the world as it is now.
fn kept_rad(world: &World, place: Vec3) -> f64 {
    let joints = world.joints();
    joints[4] + pan_to(world.arm(), place) - joints[0]
}

/// Where the fingers come down around a thing: of the ways to grip its first part the one with most room.
pub(super) fn grasp(world: &World, object: usize) -> Pose {
    let body = &world.bodies()[object];
    let pose = body.pose() * body.parts[0].pose;
    let place = vec3(pose.position.x, pose.position.y, pose.position.z.max(LOWEST_M));
    let yaw_rad = pose.yaw_rad();
    let ways: Vec<(f64, f64)> = match body.parts[0].shape {
        Shape::Box { half_m } => {
            vec![(yaw_rad, 2.0 * half_m.x), (yaw_rad + FRAC_PI_2, 2.0 * half_m.y)]
        }
        // As the fingers are now, and otherwise.
        Shape::Cylinder { radius_m, .. } => {
            let across = world.tool().rotation.rotate(Vec3::Z);
            let now_rad = across.y.atan2(across.x);
            (0..12).map(|k| (now_rad + f64::from(k) * PI / 12.0, 2.0 * radius_m)).collect()
        }
    };
    let poses = ways.iter().filter(|(_, width_m)| *width_m <= WIDEST_M).map(|&(yaw_rad, width_m)| {
        let target = world.arm().from_above(place, yaw_rad, width_m + 2.0 * ASIDE_M);
        let tool = downwards(world, target.position, target.roll_rad);
        (tool, room_m(world, tool, object) - TURN_M * (target.roll_rad - kept_rad(world, place)).abs())
    });
    best(poses).unwrap_or_else(|| downwards(world, place, world.joints()[4]))
}

/// Where the tool lets go of what it holds, so that it comes to stand on a support.
pub(super) fn release(env: &Env, object: usize, support: usize) -> Pose {
    let world = env.world();
    let (body, below) = (&world.bodies()[object], &world.bodies()[support]);
    let spots = env.support(&below.name).map(|s| s.spots.as_slice()).unwrap_or_default();
    // The emptiest of several.
    let spots = spots.iter().map(|&spot| below.pose().apply(spot));
    let lonely = spots.map(|spot| {
        let others = world.bodies().iter().enumerate().filter(|(i, _)| ![TABLE, object, support].contains(i));
        let nearest_m =
            others.map(|(_, b)| (b.pose().position - spot).length()).fold(f64::INFINITY, f64::min);
        (spot, nearest_m)
    });
    let spot = best(lonely).unwrap_or(below.pose().position);
    let held = world.tool().inverse() * body.pose();
    let stands_m = body.pose().position.z - body.bottom_m();
    let target = spot + Vec3::Z * (stands_m + DROP_M);
    let lowest_m = below.top_m() + world.arm().gripper.tip_m + OVER_WALLS_M;
    let roll = world.arm().joints[4];
    let now_rad = kept_rad(world, target);
    let poses = [0.0, -FRAC_PI_2, FRAC_PI_2].into_iter().filter_map(|turn_rad| {
        let roll_rad = now_rad + turn_rad;
        if !(roll.min_rad..=roll.max_rad).contains(&roll_rad) {
            return None;
        }
        // The pan depends on the place and the place, because the thing is off the tool's axis, on the pan.
        let mut tool = downwards(world, target, roll_rad);
        for _ in 0..4 {
            tool = downwards(world, target - tool.rotation.rotate(held.position), roll_rad);
        }
        tool.position.z = tool.position.z.max(lowest_m);
        Some((tool, room_m(world, tool, object) - TURN_M * turn_rad.abs()))
    });
    best(poses).unwrap_or_else(|| downwards(world, target, now_rad))
}

/// From both open fingers to the nearest thing but `object`, up to what matters.
fn room_m(world: &World, tool: Pose, object: usize) -> f64 {
    let gripper = &world.arm().gripper;
    let half = 0.5 * gripper.thickness_m;
    let faces = match gripper.jaws {
        Jaws::Hinged { face_m, .. } => [face_m, face_m + OPEN_M],
        Jaws::Parallel { .. } => [-0.5 * OPEN_M, 0.5 * OPEN_M],
    };
    let fingers = [(faces[0], -1.0), (faces[1], 1.0)].map(|(face_m, side)| {
        // From the tip up, 40 mm of each.
        let shape = Shape::cuboid(0.020, 0.5 * gripper.width_m, half);
        Solid::new(shape, tool * Pose::at(gripper.tip_m - 0.020, 0.0, face_m + side * half))
    });
    let others = world.bodies().iter().enumerate().filter(|(i, _)| *i != TABLE && *i != object);
    let apart = others.flat_map(|(_, body)| body.solids()).flat_map(|s| fingers.map(|f| separation_m(s, &f)));
    apart.fold(ROOM_M, f64::min)
}

/// Where the fingers come down on both sides of a place, closing along `yaw_rad`, if a thing there is `width_m` wide:
/// 0 for closed fingers.
pub(super) fn at_place(world: &World, place: Vec3, yaw_rad: f64, width_m: f64) -> Pose {
    let target = world.arm().from_above(place, yaw_rad, width_m);
    downwards(world, target.position, target.roll_rad)
}

/// Whether the gripper is about as open as it gets.
pub(super) fn is_open(world: &World) -> bool {
    let arm = world.arm();
    world.joints()[GRIPPER] > arm.gripper.position_for(0.9 * OPEN_M, &arm.joints[GRIPPER])
}

/// The one with the largest number, the first of equal ones.
fn best<T>(candidates: impl Iterator<Item = (T, f64)>) -> Option<T> {
    let mut best: Option<(T, f64)> = None;
    for (candidate, score) in candidates {
        if best.as_ref().is_none_or(|(_, most)| score > *most) {
            best = Some((candidate, score));
        }
    }
    best.map(|(candidate, _)| candidate)
}
