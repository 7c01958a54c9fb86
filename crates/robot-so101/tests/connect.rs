//! What connecting does to an arm, and what it refuses.

mod support;

use skillweld_fake_servo_bus::{Fault, Servos, address};
use skillweld_robot::{Robot, RobotError, Unit};
use skillweld_robot_so101::calibration::Calibration;
use skillweld_robot_so101::{So101Follower, So101Leader};
use support::*;

fn follower(servos: &Servos) -> So101Follower {
    So101Follower::with_opener(options("memory"), opener(servos)).expect("the options are an arm's")
}

/// Connecting fails, nothing has moved, torque is off.
fn refused(servos: &Servos, expected: &[&str]) {
    let before = positions(servos);
    // An earlier program left torque on.
    servos.set(2, address::GOAL_POSITION, &(servos.position(2) as u16).to_le_bytes());
    servos.set(2, address::TORQUE_ENABLE, &[1]);
    let error = follower(servos).connect().expect_err("it is refused");
    assert!(matches!(error, RobotError::Connect(_)), "{error:?}");
    for part in expected {
        assert!(error.to_string().contains(part), "{error} / {part}");
    }
    assert_eq!((positions(servos), torque(servos)), (before, vec![false; 6]));
}

#[test]
fn an_arm_is_held_where_it_stands() {
    let servos = servos_at(0.25);
    let here = positions(&servos);
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    assert_eq!(
        (torque(&servos), goals(&servos), positions(&servos)),
        (vec![true; 6], here.clone(), here.clone())
    );
    // The only goals that were ever written, before torque came on.
    let written: Vec<(i32, bool)> = servos.goals().iter().map(|goal| (goal.goal, goal.torque)).collect();
    assert_eq!(written, here.iter().map(|&goal| (goal, false)).collect::<Vec<_>>());
    arm.stop().unwrap();
    assert_eq!(torque(&servos), [false; 6]);
    assert_eq!(arm.observe(), Err(RobotError::NotConnected));
    assert_eq!(arm.act(&[0.0; 6]), Err(RobotError::NotConnected));
    assert_eq!(arm.stop(), Ok(()));
}

#[test]
fn settings_are_kept_and_locked() {
    let servos = servos();
    follower(&servos).connect().unwrap();
    assert_eq!(servos.word(3, address::GOAL_VELOCITY), 2048); // 180°/s
    assert_eq!(servos.word(6, address::TORQUE_LIMIT), 500);
    servos.power_cycle();
    for id in IDS {
        let pid: Vec<u8> = [21, 22, 23].iter().map(|&at| servos.byte(id, at)).collect();
        assert_eq!(pid, [16, 32, 0]);
        assert_eq!(
            (servos.byte(id, address::RETURN_DELAY), servos.byte(id, address::MAX_ACCELERATION)),
            (0, 254)
        );
        assert_eq!(servos.byte(id, address::LOCK), 1);
        assert_eq!(servos.word(id, address::MAX_TORQUE), if id == 6 { 500 } else { 1000 });
    }
    // What holds its value is not written again: no EEPROM wears out by connecting.
    servos.forget();
    follower(&servos).connect().unwrap();
    let writes = servos.packets().into_iter().filter(|packet| packet.from_host && packet.bytes[4] == 3);
    assert!(
        writes.into_iter().all(|packet| (40..80).contains(&packet.bytes[5])),
        "what is kept without power was written"
    );
}

#[test]
fn a_dropped_arm_is_let_go() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    drop(arm);
    assert_eq!(torque(&servos), [false; 6]);
}

#[test]
fn a_velocity_in_coarse_units_is_the_same_velocity() {
    let servos = servos();
    servos.set(3, 18, &[8]);
    follower(&servos).connect().unwrap();
    assert_eq!(servos.word(3, address::GOAL_VELOCITY), 40); // of 50 ticks/s
}

#[test]
fn missing_servos_are_named() {
    let servos = servos();
    servos.set_connected(3, false);
    servos.set_connected(6, false);
    // Two have their plugs pulled.
    let error = follower(&servos).connect().unwrap_err().to_string();
    assert!(error.contains("no reply from elbow_flex (id 3), gripper (id 6) at memory"), "{error}");
    assert!(error.contains("power supply"), "{error}");
}

#[test]
fn a_servo_with_a_wrong_id_is_named() {
    let servos = servos();
    servos.set(3, address::ID, &[12]);
    let error = follower(&servos).connect().unwrap_err().to_string();
    let expected = "no reply from elbow_flex (id 3) at memory, but servo 12 answers";
    assert!(error.contains(expected) && error.ends_with("set it up with its joint's id"), "{error}");
}

#[test]
fn another_model_is_refused() {
    let servos = servos();
    servos.set(4, address::MODEL, &1284_u16.to_le_bytes());
    refused(&servos, &["wrist_flex (id 4) is a servo of model 1284"]);
}

#[test]
fn different_firmware_is_refused() {
    let servos = servos();
    servos.set(5, 1, &[9]);
    refused(&servos, &["shoulder_pan 3.10", "wrist_roll 3.9", "firmware"]);
}

#[test]
fn another_calibration_is_refused_with_what_mends_it() {
    let servos = servos();
    servos.set(1, address::HOMING_OFFSET, &[0, 0]);
    servos.set(6, address::MAX_POSITION, &[0, 8]);
    let what = "the motors of shoulder_pan, gripper at memory are calibrated otherwise than the file of the follower \"arm\" says";
    refused(&servos, &[what, "write the file's calibration to the motors"]);
    servos.set(5, address::TORQUE_ENABLE, &[1]);
    calibration().write_to(&mut bus(&servos)).unwrap();
    assert_eq!(torque(&servos), [false; 6]);
    follower(&servos).connect().unwrap();
    servos.power_cycle();
    assert_eq!(Calibration::read_from(&mut bus(&servos)).unwrap(), calibration());
}

#[test]
fn a_joint_outside_its_range_is_not_pulled_into_it() {
    let servos = servos();
    servos.turn(3, f64::from(-1220 + 3098 + 24));
    refused(&servos, &["elbow_flex stands at 3122, outside its range of 884 … 3098"]);
    servos.turn(3, f64::from(-1220 + 3098 + 23));
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    assert_eq!(servos.goal(3), 3098);
}

#[test]
fn what_cannot_be_an_arm_is_refused_before_anything_is_opened() {
    let never = || -> skillweld_robot_so101::Opener { Box::new(|| panic!("opened")) };
    let mut bad = options("memory");
    bad.arm.calibration.motors[2].range_max = 0;
    let error = So101Follower::with_opener(bad.clone(), never()).err().unwrap().to_string();
    assert!(error.contains("\"arm\": elbow_flex: the range 884 … 0"), "{error}");
    assert!(So101Leader::with_opener(bad.arm, never()).is_err());
    for velocity in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options =
            skillweld_robot_so101::FollowerOptions { max_velocity_deg_s: velocity, ..options("memory") };
        assert!(So101Follower::with_opener(options, never()).is_err());
    }
}

#[test]
fn a_port_that_is_not_there_is_named() {
    let mut arm = So101Follower::new(options("/dev/no-such-arm")).unwrap();
    let error = arm.connect().unwrap_err();
    assert!(matches!(&error, RobotError::Connect(text) if text.contains("/dev/no-such-arm")), "{error:?}");
    assert!(error.to_string().contains("look which port it is at"), "{error}");
    // Torque was never on: there is nothing to let go.
    assert_eq!(arm.stop(), Ok(()));
}

#[test]
fn goals_are_reached_and_cut_to_the_range() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    // The middle of an odd range is half a tick away.
    let seen = arm.observe().unwrap().positions;
    assert_eq!((&seen[..3], seen[5]), (&[0.0; 3][..], 50.0));
    assert_eq!(seen[3], 0.5 * 360.0 / 4095.0);
    arm.act(&[45.0, -10.0, 0.0, 1000.0, -1000.0, 25.0]).unwrap();
    // 2039 + 45·4095/360 = 2550.9; 2021 − 113.75 = 1907.25; the gripper: 2020 + 1502/4.
    assert_eq!(goals(&servos), [2550, 1907, 1991, 3198, 0, 2395]);
    servos.advance(std::time::Duration::from_secs(3));
    assert_eq!(positions(&servos), goals(&servos));
    let seen = arm.observe().unwrap().positions;
    // Within a tick, 0.088°, of what was asked for.
    assert!((seen[0] - 45.0).abs() < 0.088 && (seen[1] + 10.0).abs() < 0.088, "{seen:?}");
    servos.turn(2, f64::from(1104 + 2000));
    arm.hold().unwrap();
    assert_eq!(servos.goal(2), 2000);
}

#[test]
fn commands_that_are_none_are_refused() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    servos.forget();
    let nan = arm.act(&[0.0, 0.0, f64::NAN, 0.0, 0.0, 0.0]).unwrap_err();
    assert_eq!(nan, RobotError::Command("elbow_flex cannot go to NaN".into()));
    assert!(matches!(arm.act(&[0.0; 5]), Err(RobotError::Command(_))));
    assert!(servos.packets().is_empty());
}

#[test]
fn the_description_is_the_calibrations() {
    let servos = servos();
    let arm = follower(&servos);
    let described = arm.describe();
    let units: Vec<Unit> = described.joints.iter().map(|joint| joint.unit).collect();
    assert_eq!(units[..5], [Unit::Degrees; 5]);
    assert_eq!((units[5], described.joints[5].name.as_str()), (Unit::Percent, "gripper"));
    assert_eq!(described.joints[4].max, 180.0);
}

/// What an observation says beside the positions.
fn problems(arm: &mut So101Follower) -> Vec<RobotError> {
    let seen = arm.observe().expect("joints are read");
    assert_eq!(seen.positions.len(), 6);
    seen.problems
}

#[test]
fn complaints_of_a_servo_are_faults_of_its_joint() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    assert_eq!(problems(&mut arm), []);
    servos.set_status(3, 0x24);
    servos.set(3, address::PRESENT_TEMPERATURE, &[71]);
    let [RobotError::Fault { joint, fault }] = &problems(&mut arm)[..] else { panic!("no fault") };
    assert_eq!(joint, "elbow_flex");
    assert!(fault.contains("too hot, overload (71 °C, 7.4 V"), "{fault}");
}

#[test]
fn a_fault_that_a_servo_does_not_complain_about_lasts_until_it_is_gone() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    servos.set(3, address::PRESENT_TEMPERATURE, &[71]);
    servos.set(5, address::PRESENT_VOLTAGE, &[39]);
    // Each has its turn within sixty observations, and is asked every time from then on.
    let met: Vec<usize> = (0..60).map(|_| problems(&mut arm).len()).collect();
    assert!(met.is_sorted() && met[..20] == [0; 20] && met[40..] == [2; 20], "{met:?}");
    let hot =
        "elbow_flex: too hot (71 °C, 7.4 V, load 0 %); let it cool down, and check the arm's power supply";
    let low = "wrist_roll: supply voltage too low (30 °C, 3.9 V, load 0 %); let it cool down, and check the arm's power supply";
    assert_eq!(problems(&mut arm).iter().map(ToString::to_string).collect::<Vec<_>>(), [hot, low]);
    servos.set(3, address::PRESENT_TEMPERATURE, &[60]);
    assert_eq!(problems(&mut arm).len(), 1);
    servos.set(5, address::PRESENT_VOLTAGE, &[74]);
    assert_eq!((0..60).flat_map(|_| problems(&mut arm)).collect::<Vec<_>>(), []);
}

#[test]
fn a_supply_that_failed_for_a_moment_is_noticed() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    assert_eq!(problems(&mut arm), []);
    servos.power_cycle();
    // It failed for all: whichever joint has its turn within ten observations tells.
    let first = (0..10).find_map(|_| problems(&mut arm).pop()).unwrap();
    assert!(matches!(&first, RobotError::LetGo { joint, .. } if joint == "shoulder_lift"), "{first:?}");
    let text =
        "shoulder_lift: torque went off by itself (30 °C, 7.4 V, load 0 %); check the arm's power supply";
    assert!(first.to_string().starts_with(text), "{first}");
}

/// Health that cannot be read is a failure beside the positions, and is asked for again.
#[test]
fn a_servo_that_does_not_say_how_it_feels_takes_nothing_from_the_positions() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    // One reply to the positions, then three attempts at the health of the first joint.
    servos.inject(1, Fault::Delayed(std::time::Duration::ZERO));
    (0..3).for_each(|_| servos.inject(1, Fault::NoReply));
    let told = problems(&mut arm);
    assert!(matches!(&told[..], [RobotError::Bus(text)] if text.contains("shoulder_pan (id 1)")), "{told:?}");
    assert_eq!(problems(&mut arm), []);
}

#[test]
fn one_lost_reply_is_nothing() {
    let servos = servos();
    let mut arm = follower(&servos);
    arm.connect().unwrap();
    arm.observe().unwrap();
    for fault in
        [Fault::NoReply, Fault::BadChecksum, Fault::Truncated(3), Fault::WrongId(2), Fault::WrongId(5)]
    {
        servos.inject(4, fault);
        let seen = arm.observe().unwrap().positions;
        assert!(seen[..5].iter().all(|degrees| degrees.abs() < 0.05), "{seen:?}");
    }
    servos.set_connected(4, false);
    let error = arm.observe().unwrap_err();
    assert!(matches!(&error, RobotError::Bus(text) if text.contains("wrist_flex (id 4)")), "{error:?}");
    let error = arm.stop().unwrap_err();
    let expected = "torque is not off at wrist_flex (id 4): hold the arm and switch its power supply off";
    assert_eq!(error.to_string(), expected);
    servos.set_connected(4, true);
    arm.stop().unwrap();
    assert_eq!(torque(&servos), [false; 6]);
}

#[test]
fn a_leader_is_read_and_moves_freely() {
    let servos = servos();
    servos.set(2, address::TORQUE_ENABLE, &[1]);
    let mut leader = So101Leader::with_opener(arm_options("memory"), opener(&servos)).unwrap();
    assert_eq!(leader.observe(), Err(RobotError::NotConnected));
    leader.connect().unwrap();
    assert_eq!(torque(&servos), [false; 6]);
    servos.turn(1, f64::from(-709 + 2039 + 512));
    servos.turn(6, f64::from(2020 + 751));
    let seen = leader.observe().unwrap().positions;
    assert_eq!((seen[0], seen[5]), (512.0 * 360.0 / 4095.0, 50.0));
    assert_eq!(leader.describe().joints[5].unit, Unit::Percent);
    servos.unplug();
    assert!(matches!(leader.observe(), Err(RobotError::Disconnected(_))));
    assert_eq!(leader.observe(), Err(RobotError::NotConnected));
}
