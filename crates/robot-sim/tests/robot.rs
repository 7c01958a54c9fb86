//! The simulated arm as a robot.

use std::time::Duration;

use skillweld_robot::{BodyUnit, Robot, RobotError, Unit};
use skillweld_robot_sim::{ArmModel, Clock, Scene, SimArm, SimError, SimOptions, World, cubes_and_tray};

fn stepped(units: BodyUnit, seed: u64) -> SimArm {
    let clock = Clock::Stepped { period_s: 1.0 / 30.0 };
    SimArm::new(&SimOptions { units, clock, height: 48, width: 64, seed, ..SimOptions::default() })
        .expect("sound options")
}

/// The same in a world whose cameras are not as good.
fn noisy(seed: u64, noise: f64) -> SimArm {
    let scene = Scene::tabletop(64, 48);
    let mut world = World::new(ArmModel::so101(), scene, cubes_and_tray(seed)).expect("a sound world");
    world.scene.noise = noise;
    let clock = Clock::Stepped { period_s: 1.0 / 30.0 };
    SimArm::with_world(world, BodyUnit::Degrees, clock).expect("a sound period")
}

#[test]
fn it_describes_itself_as_the_real_arm_does() {
    let arm = stepped(BodyUnit::Degrees, 0);
    let description = arm.describe();
    let names: Vec<&str> = description.joints.iter().map(|j| j.name.as_str()).collect();
    assert_eq!(names, ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]);
    assert_eq!(description.kind, "so101_sim");
    let pan = &description.joints[0];
    assert_eq!(pan.unit, Unit::Degrees);
    assert!((pan.max - 1.92f64.to_degrees()).abs() < 1e-9 && (pan.min + pan.max).abs() < 1e-9);
    let gripper = &description.joints[5];
    assert_eq!((gripper.unit, gripper.min), (Unit::Percent, 0.0));
    assert!((gripper.max - 100.0).abs() < 1e-9);
    let centred = stepped(BodyUnit::Centred, 0);
    for joint in &centred.describe().joints[..5] {
        assert_eq!(joint.unit, Unit::Centred);
        assert!((joint.min + 100.0).abs() < 1e-9 && (joint.max - 100.0).abs() < 1e-9);
    }
    let cameras: Vec<_> = description.cameras.iter().map(|c| (c.name.as_str(), c.height, c.width)).collect();
    assert_eq!(cameras, [("front", 48, 64), ("wrist", 48, 64)]);
}

#[test]
fn it_goes_where_it_is_told_in_both_units() {
    for (units, goal) in [
        (BodyUnit::Degrees, [30.0, -20.0, 15.0, 40.0, -60.0, 50.0]),
        (BodyUnit::Centred, [-20.0, -30.0, 20.0, 50.0, 75.0, 10.0]),
    ] {
        let mut arm = stepped(units, 0);
        arm.connect().unwrap();
        for _ in 0..60 {
            arm.act(&goal).unwrap();
        }
        let positions = arm.observe().unwrap().positions;
        for (position, goal) in positions.iter().zip(goal) {
            assert!((position - goal).abs() < 0.05, "{positions:?}");
        }
        // 60 actions of 1/30 s are 480 steps, however the thirtieths round.
        assert_eq!(arm.world().steps(), 480);
    }
}

#[test]
fn runs_repeat_to_the_byte_and_seeds_differ() {
    let run = |seed: u64| {
        let mut arm = noisy(seed, 4.0);
        arm.connect().unwrap();
        let mut all = Vec::new();
        for step in 0..20 {
            arm.act(&[f64::from(step), 10.0, 0.0, 20.0, 5.0, 50.0]).unwrap();
            let observation = arm.observe().unwrap();
            all.extend(observation.positions.iter().flat_map(|p| p.to_le_bytes()));
            all.extend(observation.frames.iter().flat_map(|f| f.rgb.to_vec()));
        }
        all
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}

#[test]
fn commands_that_mean_nothing_are_refused() {
    let mut arm = stepped(BodyUnit::Degrees, 0);
    assert_eq!(arm.act(&[0.0; 6]), Err(RobotError::NotConnected));
    assert_eq!(arm.observe().unwrap_err(), RobotError::NotConnected);
    assert_eq!(arm.hold(), Err(RobotError::NotConnected));
    assert_eq!(arm.stop(), Ok(()));
    arm.connect().unwrap();
    assert_eq!(arm.act(&[0.0; 5]).unwrap_err().to_string(), "5 positions for 6 joints: send one a joint");
    let nan = arm.act(&[0.0, 0.0, f64::NAN, 0.0, 0.0, 0.0]).unwrap_err();
    assert_eq!(nan.to_string(), "elbow_flex: NaN is no position");
    let mut arm = noisy(0, f64::NAN);
    arm.connect().unwrap();
    let unseen = arm.observe().unwrap_err();
    assert!(matches!(&unseen, RobotError::Camera { problem, .. } if problem.contains("noise")), "{unseen}");
}

#[test]
fn live_time_is_the_clock_on_the_wall() {
    let mut arm = SimArm::new(&SimOptions { height: 8, width: 8, ..SimOptions::default() }).unwrap();
    arm.connect().unwrap();
    let start = std::time::Instant::now();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        arm.observe().unwrap();
    }
    let elapsed = start.elapsed().as_secs_f64();
    let steps = arm.world().steps();
    // Never ahead of the clock, and at least the five pauses.
    assert!((24..=(elapsed * 240.0) as u64 + 1).contains(&steps), "{steps} in {elapsed} s");
}

#[test]
fn impossible_options_are_refused() {
    let clock = Clock::Stepped { period_s: 0.0 };
    let refused = SimArm::new(&SimOptions { clock, ..SimOptions::default() });
    assert!(matches!(refused, Err(SimError::Invalid { what, .. }) if what == "period_s"));
    let refused = SimArm::new(&SimOptions { max_velocity_deg_s: f64::NAN, ..SimOptions::default() });
    assert!(matches!(refused, Err(SimError::Invalid { what, .. }) if what == "max_velocity_deg_s"));
    let refused = SimArm::new(&SimOptions { width: 100_000, ..SimOptions::default() });
    assert!(matches!(refused, Err(SimError::Invalid { what, .. }) if what == "camera front"));
}
