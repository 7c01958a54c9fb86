//! What bodies do: fall, rest, slide off, are pushed, gripped, carried, pulled.

use proptest::prelude::*;
use skillweld_robot_sim::{
    ArmModel, Body, GRIPPER, JOINTS, Jaws, Motion, Part, Pose, Random, STEPS_PER_S, Scene, Shape, SimError,
    TABLE, TOLERANCE_M, ToolTarget, Vec3, World, cubes_and_tray, vec3,
};

const RED: [u8; 3] = [200, 40, 40];

fn world(bodies: Vec<Body>) -> World {
    World::new(ArmModel::so101(), Scene::tabletop(32, 32), bodies).expect("a sound world")
}

fn cube(name: &str, x: f64, y: f64, z: f64) -> Body {
    Body::block(name, vec3(0.025, 0.025, 0.025), RED, Pose::at(x, y, z))
}

/// Brings the tool to a target along the joints, within `seconds`.
fn go(world: &mut World, target: &ToolTarget, opening_m: f64, seconds: f64) {
    let arm = world.arm().clone();
    let start = world.servos().goals;
    let mut end = arm.inverse(target, &start).expect("a target in reach");
    end[GRIPPER] = arm.gripper.position_for(opening_m, &arm.joints[GRIPPER]);
    let steps = (seconds * f64::from(STEPS_PER_S)) as usize;
    for step in 1..=steps {
        let share = (1.4 * step as f64 / steps as f64).min(1.0);
        world.set_goals(&std::array::from_fn(|j| start[j] + share * (end[j] - start[j])));
        world.step();
    }
}

/// Opens above a place, goes straight down, closes.
fn grasp(world: &mut World, place: Vec3, yaw: f64, width_m: f64) {
    let arm = world.arm().clone();
    go(world, &arm.from_above(place + Vec3::Z * 0.045, yaw, width_m), 0.05, 1.5);
    // Even joints make a bow, which would touch down on what is beside the place.
    for height_m in [0.036, 0.027, 0.018, 0.009, 0.0] {
        go(world, &arm.from_above(place + Vec3::Z * height_m, yaw, width_m), 0.05, 0.3);
    }
    go(world, &arm.from_above(place, yaw, width_m), 0.0, 0.8);
}

#[test]
fn a_falling_body_falls_as_gravity_says_and_rests_on_the_table() {
    let mut world = world(vec![cube("cube", 0.3, 0.0, 0.3)]);
    world.advance(24);
    // 24 steps of 1/240 s: the sum 1 + 2 + … + 24 of g/240² is 51 mm, a little more than g/2 · 0.1².
    let expected = 0.3 - 9.81 / 57_600.0 * 300.0;
    assert!((world.bodies()[1].pose().position.z - expected).abs() < 1e-12);
    assert_eq!(world.rests_on(1), None);
    world.advance(200);
    assert!((world.bodies()[1].pose().position.z - 0.0125).abs() < 1e-9);
    assert_eq!(world.rests_on(1), Some(TABLE));
    assert!(world.touching(1, TABLE));
}

#[test]
fn a_tower_stands_and_a_cube_over_the_edge_slides_off() {
    let mut world = world(vec![
        cube("a", 0.3, 0.0, 0.0125),
        cube("b", 0.308, 0.0, 0.0375),
        cube("c", 0.316, 0.0, 0.0625),
        cube("d", 0.2, 0.1, 0.0125),
        cube("e", 0.2, 0.117, 0.0375),
    ]);
    world.advance(480);
    let at = |i: usize| world.bodies()[i].pose().position;
    assert_eq!((world.rests_on(2), world.rests_on(3)), (Some(1), Some(2)));
    assert!((at(3) - vec3(0.316, 0.0, 0.0625)).length() < 1e-6, "{:?}", at(3));
    // e's centre was 4.5 mm beyond d: it has gone away from d in y, to the table.
    assert_eq!(world.rests_on(5), Some(TABLE));
    assert!(
        at(5).y > 0.1245 - TOLERANCE_M && (at(5).x - 0.2).abs() < 1e-6 && (at(5).z - 0.0125).abs() < 1e-6,
        "{:?}",
        at(5)
    );
    assert!(world.penetration_m() <= TOLERANCE_M);
}

#[test]
fn a_tilted_body_lies_down_on_its_nearest_face() {
    let tilted = Pose::at(0.3, 0.0, 0.1).turned(Vec3::Y, 0.6);
    let lying = Pose::at(0.3, 0.15, 0.1).turned(Vec3::X, 1.2);
    let mut world = world(vec![
        Body::block("block", vec3(0.03, 0.03, 0.05), RED, tilted),
        Body::cylinder("can", 0.015, 0.06, RED, lying),
    ]);
    world.advance(480);
    assert!((world.bodies()[1].pose().position.z - 0.025).abs() < 1e-6);
    assert!((world.bodies()[2].pose().position.z - 0.015).abs() < 1e-6, "on its side");
}

#[test]
fn a_body_pushed_off_the_table_falls_to_the_floor() {
    let edge = Scene::tabletop(8, 8).table.centre_m[1] + 0.5 * Scene::tabletop(8, 8).table.size_m[1];
    let mut world = world(vec![cube("cube", 0.3, edge + 0.001, 0.0125)]);
    world.advance(480);
    assert!((world.bodies()[1].pose().position.z - (skillweld_robot_sim::FLOOR_M + 0.0125)).abs() < 1e-6);
    assert_eq!(world.rests_on(1), None);
}

#[test]
fn the_gripper_lifts_a_cube_and_lets_it_go() {
    let mut world = world(vec![cube("cube", 0.22, 0.04, 0.0125)]);
    let arm = world.arm().clone();
    grasp(&mut world, vec3(0.22, 0.04, 0.0125), 0.0, 0.025);
    assert_eq!(world.held(), Some(1));
    // 25 mm between the fingers, and what a slanting jaw and the tolerance of a contact change.
    assert!((0.0235..0.0275).contains(&world.opening_m()), "{}", world.opening_m());
    let grip = world.tool().inverse() * world.bodies()[1].pose();
    go(&mut world, &arm.from_above(vec3(0.20, -0.06, 0.08), 0.0, 0.025), 0.0, 1.2);
    let after = world.tool().inverse() * world.bodies()[1].pose();
    assert!((after.position - grip.position).length() < 1e-9, "it moves rigidly with the gripper");
    assert!(world.bodies()[1].pose().position.z > 0.07);
    go(&mut world, &arm.from_above(vec3(0.20, -0.06, 0.08), 0.0, 0.025), 0.05, 1.0);
    world.advance(240);
    assert_eq!(world.held(), None);
    assert!((world.bodies()[1].pose().position.z - 0.0125).abs() < 1e-6);
    assert!((world.bodies()[1].pose().position - vec3(0.20, -0.06, 0.0125)).length() < 0.02);
}

#[test]
fn another_arm_with_a_parallel_gripper_lifts_a_cube_too() {
    let mut arm = ArmModel::so101();
    (arm.name, arm.upper_arm_m, arm.lower_arm_m) = ("longer".into(), 0.14, 0.15);
    arm.gripper.jaws = Jaws::Parallel { opening_m: 0.07, finger_m: 0.06 };
    let arm = arm.dressed();
    let cube = cube("cube", 0.25, 0.05, 0.0125);
    let mut world = World::new(arm.clone(), Scene::tabletop(32, 32), vec![cube]).unwrap();
    grasp(&mut world, vec3(0.25, 0.05, 0.0125), 0.0, 0.025);
    assert_eq!(world.held(), Some(1));
    assert!((world.opening_m() - 0.025).abs() < 2e-3, "{}", world.opening_m());
    go(&mut world, &arm.from_above(vec3(0.25, 0.0, 0.07), 0.0, 0.025), 0.0, 1.0);
    assert!((world.bodies()[1].pose().position - vec3(0.25, 0.0, 0.07)).length() < 4e-3);
}

#[test]
fn closing_fingers_turn_a_cube_that_lies_askew() {
    let pose = Pose::at(0.22, 0.0, 0.0125).turned(Vec3::Z, 0.2);
    let mut world = world(vec![Body::block("cube", vec3(0.025, 0.025, 0.025), RED, pose)]);
    grasp(&mut world, vec3(0.22, 0.0, 0.0125), 0.0, 0.025);
    assert_eq!(world.held(), Some(1));
    assert!(world.bodies()[1].pose().yaw_rad().abs() < 0.05, "{}", world.bodies()[1].pose().yaw_rad());
}

#[test]
fn an_empty_gripper_closes_and_holds_nothing() {
    let mut world = world(vec![cube("cube", 0.3, 0.1, 0.0125)]);
    let arm = world.arm().clone();
    go(&mut world, &arm.from_above(vec3(0.2, -0.05, 0.05), 0.0, 0.025), 0.05, 1.5);
    go(&mut world, &arm.from_above(vec3(0.2, -0.05, 0.05), 0.0, 0.025), 0.0, 1.0);
    assert_eq!(world.held(), None);
    assert!(world.opening_m() < 1e-3);
}

#[test]
fn the_table_stops_the_arm() {
    let mut world = world(Vec::new());
    let arm = world.arm().clone();
    go(&mut world, &arm.from_above(vec3(0.22, 0.0, 0.05), 0.0, 0.025), 0.0, 1.5);
    go(&mut world, &arm.from_above(vec3(0.22, 0.0, -0.05), 0.0, 0.025), 0.0, 1.0);
    // The goal is 60 mm below the table. The tips are at it, but for a tilt of the stopped wrist.
    let tips_m = world.tool().apply(Vec3::X * arm.gripper.tip_m).z;
    assert!((-0.002..0.004).contains(&tips_m), "{tips_m}");
    assert!(world.penetration_m() <= TOLERANCE_M);
}

#[test]
fn what_is_in_a_tray_goes_where_the_tray_goes() {
    let tray = Body::tray("tray", vec3(0.09, 0.09, 0.02), 0.004, RED, Pose::at(0.24, 0.0, 0.010));
    let mut world = world(vec![tray, cube("cube", 0.24, 0.01, 0.0165)]);
    world.advance(10);
    assert_eq!(world.rests_on(2), Some(1));
    let arm = world.arm().clone();
    let (tray, cube) = (world.bodies()[1].pose().position, world.bodies()[2].pose().position);
    // Closed fingers push its right wall to the left.
    go(&mut world, &arm.from_above(vec3(0.235, -0.09, 0.05), 0.0, 0.025), 0.0, 1.5);
    go(&mut world, &arm.from_above(vec3(0.235, -0.09, 0.014), 0.0, 0.025), 0.0, 1.0);
    go(&mut world, &arm.from_above(vec3(0.235, -0.03, 0.014), 0.0, 0.025), 0.0, 1.5);
    let moved = world.bodies()[1].pose().position - tray;
    assert!(moved.y > 0.01, "{moved:?}");
    let turn = world.bodies()[1].pose().rotation;
    let expected = world.bodies()[1].pose().position + turn.rotate(cube - tray);
    assert!((world.bodies()[2].pose().position - expected).length() < 1e-6);
    assert!(world.penetration_m() <= TOLERANCE_M);
}

#[test]
fn pushed_bodies_push_others() {
    let mut world = world(vec![cube("a", 0.22, 0.0, 0.0125), cube("b", 0.22, 0.03, 0.0125)]);
    let arm = world.arm().clone();
    go(&mut world, &arm.from_above(vec3(0.22, -0.06, 0.05), 0.0, 0.025), 0.0, 1.5);
    go(&mut world, &arm.from_above(vec3(0.22, -0.06, 0.0125), 0.0, 0.025), 0.0, 1.0);
    go(&mut world, &arm.from_above(vec3(0.22, 0.0, 0.0125), 0.0, 0.025), 0.0, 2.0);
    let (a, b) = (world.bodies()[1].pose().position, world.bodies()[2].pose().position);
    assert!(a.y > 0.015 && b.y > 0.04, "{a:?} {b:?}");
    assert!(world.penetration_m() <= TOLERANCE_M);
}

/// A drawer with a handle towards the arm.
fn drawer() -> Body {
    let part = |x: f64, y: f64, z: f64, half: [f64; 3]| Part {
        shape: Shape::cuboid(half[0], half[1], half[2]),
        pose: Pose::at(x, y, z),
        color: RED,
    };
    let parts = vec![
        part(0.0, 0.0, -0.018, [0.05, 0.04, 0.002]),
        part(-0.052, 0.0, 0.0, [0.002, 0.04, 0.02]),
        part(0.0, -0.042, 0.0, [0.05, 0.002, 0.02]),
        part(0.0, 0.042, 0.0, [0.05, 0.002, 0.02]),
        part(-0.065, 0.0, 0.005, [0.011, 0.006, 0.008]),
    ];
    let motion = Motion::Slides { axis: vec3(-1.0, 0.0, 0.0), travel_m: 0.06 };
    Body::new("drawer", parts, Pose::at(0.33, 0.0, 0.021)).moving(motion)
}

#[test]
fn a_drawer_opens_by_its_handle_as_far_as_it_goes_with_what_is_in_it() {
    let mut world = world(vec![drawer(), cube("cube", 0.33, 0.0, 0.02)]);
    let arm = world.arm().clone();
    world.advance(120);
    assert_eq!(world.rests_on(2), Some(1));
    grasp(&mut world, vec3(0.261, 0.0, 0.032), std::f64::consts::FRAC_PI_2, 0.012);
    assert_eq!(world.held(), Some(1));
    go(&mut world, &arm.from_above(vec3(0.221, 0.0, 0.032), std::f64::consts::FRAC_PI_2, 0.012), 0.0, 1.5);
    let slide_m = world.bodies()[1].slide_m();
    assert!((slide_m - 0.04).abs() < 0.004, "{slide_m}");
    assert!((world.bodies()[2].pose().position.x - (0.33 - slide_m)).abs() < 1e-6);
}

/// The moving finger cannot push a handle to the other one, 12 mm away: the arm gives, as far as it does.
#[test]
fn a_handle_need_not_be_met_to_the_millimetre() {
    for (off_m, held) in [(0.0, Some(1)), (0.010, Some(1)), (0.016, None)] {
        let mut world = world(vec![drawer()]);
        // A yaw a little below π/2 leaves no doubt that the fixed finger is the one at smaller y.
        grasp(&mut world, vec3(0.261, -off_m, 0.032), 1.45, 0.012);
        assert!(world.tool().position.z < 0.035 && world.opening_m() > 0.011, "{:?}", world.tool());
        assert_eq!(world.held(), held, "{off_m}");
    }
}

#[test]
fn impossible_worlds_are_refused_by_name() {
    let make = |scene: Scene, bodies| World::new(ArmModel::so101(), scene, bodies).unwrap_err();
    let scene = || Scene::tabletop(32, 32);
    let twice = make(scene(), vec![cube("a", 0.2, 0.0, 0.1), cube("a", 0.3, 0.0, 0.1)]);
    assert_eq!(twice, SimError::DuplicateBody { name: "a".into() });
    let nan = make(scene(), vec![cube("a", f64::NAN, 0.0, 0.1)]);
    assert!(matches!(nan, SimError::Invalid { what, .. } if what == "body a"));
    let mut dark = scene();
    dark.light.direction = Vec3::ZERO;
    assert!(matches!(make(dark, Vec::new()), SimError::Invalid { what, .. } if what == "the light"));
    let mut wide = scene();
    wide.cameras[1].width = 0;
    assert!(matches!(make(wide, Vec::new()), SimError::Invalid { what, .. } if what == "camera wrist"));
    let mut still = ArmModel::so101();
    still.joints[2].max_velocity = f64::NAN;
    let still = World::new(still, scene(), Vec::new()).unwrap_err();
    assert!(matches!(still, SimError::Invalid { what, .. } if what == "joint elbow_flex"));
    let world = world(vec![cube("a", 0.2, 0.0, 0.1)]);
    assert_eq!(world.index("b").unwrap_err().to_string(), "there is no body b: the world has table, a");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the arm is told: numbers stay finite, nothing goes through anything, what is held moves with the gripper,
    /// and a second run ends in the same state, to the bit.
    #[test]
    fn random_actions_break_nothing(seed: u64) {
        let start = || {
            let mut bodies = cubes_and_tray(seed % 1000);
            bodies.push(Body::cylinder("can", 0.016, 0.05, RED, Pose::at(0.04, -0.2, 0.025)));
            let mut drawer = drawer().moving(Motion::Slides { axis: vec3(0.0, -1.0, 0.0), travel_m: 0.05 });
            drawer = Body::new("drawer", drawer.parts, Pose::at(0.40, 0.0, 0.021)).moving(drawer.motion);
            bodies.push(drawer);
            world(bodies)
        };
        let (mut first, mut second) = (start(), start());
        let mut random = Random::new(seed);
        let reach = |random: &mut Random, world: &World| {
            // Half of the goals are anywhere, half bring the fingers down to the table, closing or open.
            let arm = world.arm();
            let near = *world.joints();
            let mut goals: [f64; JOINTS] =
                std::array::from_fn(|j| random.uniform(arm.joints[j].min_rad, arm.joints[j].max_rad));
            if random.uniform(0.0, 1.0) < 0.6 {
                let place = vec3(random.uniform(0.12, 0.28), random.uniform(-0.2, 0.2), random.uniform(0.0, 0.06));
                if let Ok(found) = arm.inverse(&arm.from_above(place, random.uniform(-1.5, 1.5), 0.025), &near) {
                    goals[..GRIPPER].copy_from_slice(&found[..GRIPPER]);
                }
            }
            if random.uniform(0.0, 1.0) < 0.5 { goals[GRIPPER] = arm.joints[GRIPPER].min_rad; }
            goals
        };
        for _ in 0..25 {
            let goals = reach(&mut random, &first);
            first.set_goals(&goals);
            second.set_goals(&goals);
            for _ in 0..40 {
                let (held, grip) = (first.held(), first.held().map(|h| first.tool().inverse() * first.bodies()[h].pose()));
                first.step();
                second.step();
                let depth = first.penetration_m();
                prop_assert!(depth <= TOLERANCE_M + 1e-6, "{depth} at step {}", first.steps());
                for body in first.bodies() {
                    prop_assert!(body.pose().position.is_finite());
                    prop_assert!(body.bottom_m() > skillweld_robot_sim::FLOOR_M - 1e-6);
                }
                if let (Some(h), Some(before)) = (held, grip)
                    && first.held() == held && first.bodies()[h].motion == Motion::Free
                {
                    let now = first.tool().inverse() * first.bodies()[h].pose();
                    prop_assert!((now.position - before.position).length() < 1e-9);
                    prop_assert!((now.rotation.inverse() * before.rotation).angle_rad() < 1e-7);
                }
            }
        }
        prop_assert!(first == second);
        let mut third = first.clone();
        third.advance(50);
        first.advance(50);
        prop_assert!(first == third, "a clone goes on as the original");
    }
}
