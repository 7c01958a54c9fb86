//! Where the arm is, against the published chain of joint frames; and back again, against a slow search.

use std::f64::consts::{FRAC_PI_2, PI};

use proptest::prelude::*;
use skillweld_robot_sim::{ArmModel, GRIPPER, JOINTS, Link, Pose, Quat, ToolTarget, Unreachable, Vec3, vec3};

/// Any position of all joints within their limits.
fn joints() -> impl Strategy<Value = [f64; JOINTS]> {
    prop::array::uniform6(0.0..1.0f64).prop_map(|share| {
        let arm = ArmModel::so101();
        std::array::from_fn(|j| {
            arm.joints[j].min_rad + share[j] * (arm.joints[j].max_rad - arm.joints[j].min_rad)
        })
    })
}

/// The chain of TheRobotStudio's URDF (new calibration): origin, roll-pitch-yaw, then a turn about z. The last frame is
/// the published gripper frame, at the tip of the fixed jaw.
fn published_tip(joints: &[f64; JOINTS]) -> Vec3 {
    const CHAIN: [([f64; 3], [f64; 3]); 5] = [
        ([0.038_835_3, 0.0, 0.0624], [PI, 0.0, -PI]),
        ([-0.030_399_2, -0.018_277_8, -0.0542], [-FRAC_PI_2, -FRAC_PI_2, 0.0]),
        ([-0.11257, -0.028, 0.0], [0.0, 0.0, FRAC_PI_2]),
        ([-0.1349, 0.0052, 0.0], [0.0, 0.0, -FRAC_PI_2]),
        ([0.0, -0.0611, 0.0181], [FRAC_PI_2, 0.048_679_5, PI]),
    ];
    let mut pose = Pose::IDENTITY;
    for (([x, y, z], [roll, pitch, yaw]), angle) in CHAIN.into_iter().zip(joints) {
        let rotation = Quat::about(Vec3::Z, yaw) * Quat::about(Vec3::Y, pitch) * Quat::about(Vec3::X, roll);
        pose = pose * Pose { position: vec3(x, y, z), rotation };
        pose = pose.turned(Vec3::Z, *angle);
    }
    pose.apply(vec3(-0.0079, -0.000_218, -0.098_127))
}

proptest! {
    /// Ours leaves out two sideways offsets of 18 mm that cancel to 0.2 mm, and a twist of 0.05 rad of the jaws, which
    /// are 8 mm from the roll axis; the rest is rounding of published lengths to 0.1 mm: 1 mm in all.
    #[test]
    fn the_tool_is_where_the_published_chain_puts_it(q in joints()) {
        let tool = ArmModel::so101().frames(&q).tool();
        // Our tool point is 10 mm behind the tips, on the roll axis.
        let tip = tool.apply(vec3(0.010, 0.0, -0.0079));
        let published = published_tip(&q);
        prop_assert!((tip - published).length() < 1e-3, "{tip:?} {published:?}");
    }

    #[test]
    fn there_and_back(q in joints()) {
        let arm = ArmModel::so101();
        let tool = arm.frames(&q).tool();
        let target =
            ToolTarget { position: tool.position, pitch_rad: q[1] + q[2] + q[3], roll_rad: q[4] };
        // From the joints themselves, the way with the smallest motion is the joints, but for a target on the pan axis,
        // where pan is free, and a stretched elbow, where both ways meet.
        prop_assume!((tool.position - vec3(arm.pan_offset_m, 0.0, tool.position.z)).length() > 1e-3);
        prop_assume!((q[2] - arm.lower_arm_rise_rad + FRAC_PI_2 - arm.upper_arm_lean_rad).abs() > 1e-3);
        let found = arm.inverse(&target, &q).unwrap();
        for j in 0..JOINTS {
            prop_assert!((found[j] - q[j]).abs() < 1e-6, "joint {j}: {} of {}", found[j], q[j]);
        }
    }

    /// Whatever comes out is on target and within the limits; and where a slow search finds a way, so does the inverse.
    #[test]
    fn the_inverse_finds_what_a_search_finds(
        x in -0.15..0.45f64, y in -0.4..0.4f64, z in -0.05..0.4f64, pitch in -1.6..2.6f64, roll in -2.7..2.8f64,
    ) {
        let arm = ArmModel::so101();
        let target = ToolTarget { position: vec3(x, y, z), pitch_rad: pitch, roll_rad: roll };
        let searched = search(&arm, &target);
        match arm.inverse(&target, &[0.0; JOINTS]) {
            Ok(q) => {
                prop_assert!(miss(&arm, &target, &q) < 1e-9);
                for (value, joint) in q.iter().zip(&arm.joints) {
                    prop_assert!((joint.min_rad..=joint.max_rad).contains(value));
                }
            }
            Err(problem) => prop_assert!(searched.is_none(), "{problem}, but {searched:?} leads there"),
        }
    }

    #[test]
    fn from_above_closes_the_fingers_along_the_yaw(
        x in 0.18..0.24f64, y in -0.1..0.1f64, yaw in -1.5..1.5f64, width in 0.01..0.04f64,
    ) {
        let arm = ArmModel::so101();
        let target = arm.from_above(vec3(x, y, 0.02), yaw, width);
        let q = arm.inverse(&target, &arm.rest()).unwrap();
        let frames = arm.frames(&q);
        let [out, _, across] = frames.tool().rotation.axes();
        prop_assert!((out + Vec3::Z).length() < 1e-9, "down");
        prop_assert!((across.x * yaw.sin() - across.y * yaw.cos()).abs() < 1e-9 && across.z.abs() < 1e-9);
        // The thing's side is two millimetres from the fixed finger's face, and its middle in the middle of the finger.
        let seen = frames.pose(Link::FixedJaw).inverse().apply(vec3(x, y, 0.02));
        prop_assert!((seen.z - 0.5 * width - 2e-3).abs() < 1e-9 && seen.y.abs() < 1e-9);
    }

    #[test]
    fn the_opening_and_its_joint_are_inverse(opening in 0.0..0.08f64) {
        let arm = ArmModel::so101();
        let joint = &arm.joints[GRIPPER];
        let position = arm.gripper.position_for(opening, joint);
        prop_assert!((arm.gripper.opening_m(position, joint) - opening).abs() < 1e-12);
    }
}

/// Distance in metres and radians together.
fn miss(arm: &ArmModel, target: &ToolTarget, q: &[f64; JOINTS]) -> f64 {
    let tool = arm.frames(q).tool();
    let turn = arm.tool_rotation(q[0], target).inverse() * tool.rotation;
    (tool.position - target.position).length() + turn.angle_rad()
}

/// Newton's method in pan, lift and elbow from a grid of starts; wrist and roll follow from pitch and roll.
fn search(arm: &ArmModel, target: &ToolTarget) -> Option<[f64; JOINTS]> {
    let full = |v: [f64; 3]| [v[0], v[1], v[2], target.pitch_rad - v[1] - v[2], target.roll_rad, 0.0];
    let error = |v: [f64; 3]| arm.frames(&full(v)).tool().position - target.position;
    for start in 0..75 {
        let third = |n: usize, count: usize| (n as f64 + 0.5) / count as f64 * 3.2 - 1.6;
        let mut v = [third(start % 3, 3), third(start / 3 % 5, 5), third(start / 15, 5)];
        for _ in 0..40 {
            let e = error(v);
            let columns: [Vec3; 3] = std::array::from_fn(|k| {
                let mut moved = v;
                moved[k] += 1e-6;
                (error(moved) - e) * 1e6
            });
            let det = columns[0].dot(columns[1].cross(columns[2]));
            if det.abs() < 1e-9 {
                break;
            }
            let step = [
                e.dot(columns[1].cross(columns[2])) / det,
                columns[0].dot(e.cross(columns[2])) / det,
                columns[0].dot(columns[1].cross(e)) / det,
            ];
            v = std::array::from_fn(|k| v[k] - step[k].clamp(-0.4, 0.4));
        }
        let q = full(v);
        let inside = q.iter().zip(&arm.joints).all(|(q, j)| *q > j.min_rad + 1e-6 && *q < j.max_rad - 1e-6);
        if inside && error(v).length() < 1e-8 {
            return Some(q);
        }
    }
    None
}

#[test]
fn unreachable_targets_say_why() {
    let arm = ArmModel::so101();
    let ask = |x: f64, z: f64, pitch_rad: f64| {
        let target = ToolTarget { position: vec3(x, 0.0, z), pitch_rad, roll_rad: 0.0 };
        arm.inverse(&target, &arm.rest()).unwrap_err()
    };
    assert!(matches!(ask(0.8, 0.1, 0.0), Unreachable::TooFar { by_m } if (0.3..0.5).contains(&by_m)));
    // The wrist would be on the shoulder axis, where the links, 116 and 135 mm, cannot fold to.
    let on_shoulder = 0.0388 + 0.0304 + 0.1492;
    assert!(
        matches!(ask(on_shoulder, 0.1166, 0.0), Unreachable::TooClose { by_m } if (by_m - 0.019).abs() < 1e-6)
    );
    assert!(matches!(ask(0.10, 0.05, 1.57), Unreachable::Limit { .. }));
    assert_eq!(ask(f64::NAN, 0.0, 0.0), Unreachable::NotFinite);
}
