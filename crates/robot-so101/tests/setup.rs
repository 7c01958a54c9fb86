//! Preparing an arm: ids, baud rates, calibration, a look at its registers.

mod support;

use std::time::Duration;

use skillweld_fake_servo_bus::{Fault, Servos, address};
use skillweld_robot::Robot;
use skillweld_robot_so101::calibration::{Calibration, MAX_TICKS};
use skillweld_robot_so101::protocol::{Bus, BusError, Retries};
use skillweld_robot_so101::registers::{BAUD_RATES, GOAL_POSITION, HOMING_OFFSET, PRESENT_POSITION};
use skillweld_robot_so101::setup::{Centring, Found, SETUP_ORDER, SetupError, monitor, scan, setup_motor};
use skillweld_robot_so101::{JOINTS, So101Follower, label};
use support::*;

#[test]
fn six_new_servos_become_an_arm() {
    let mut taken = Vec::new();
    for joint in SETUP_ORDER {
        let servos = Servos::new(&[1]);
        // Some come from elsewhere, with another baud rate or id.
        let (baud, id) = [(0, 1), (4, 1), (0, 9), (7, 3), (0, 200), (1, 1)][joint];
        servos.set(1, address::BAUD_RATE, &[baud]);
        servos.set(1, address::ID, &[id]);
        let found = setup_motor(&mut bus(&servos), joint).unwrap();
        assert_eq!(found, (BAUD_RATES[usize::from(baud)], id));
        servos.power_cycle();
        let id = JOINTS[joint].id;
        assert_eq!((servos.byte(id, address::BAUD_RATE), servos.byte(id, address::LOCK)), (0, 1));
        assert_eq!(servos.word(id, address::MODEL), 777);
        taken.push(id);
    }
    assert_eq!(taken, [6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_servo_that_is_not_alone_or_not_there_is_refused() {
    let two = Servos::new(&[1, 4]);
    let error = setup_motor(&mut bus(&two), 5).unwrap_err().to_string();
    assert!(error.contains("several servos answer, with ids 1, 4: plug in only that of gripper"), "{error}");
    let none = setup_motor(&mut bus(&Servos::new(&[])), 5).unwrap_err().to_string();
    assert!(none.contains("no servo answers: plug in that of gripper"), "{none}");
    let other = Servos::new(&[1]);
    other.set(1, address::MODEL, &[4, 5]);
    let error = setup_motor(&mut bus(&other), 0).unwrap_err().to_string();
    assert!(error.contains("model 1284"), "{error}");
}

#[test]
fn a_scan_finds_who_answers_where() {
    let servos = Servos::new(&[1, 6]);
    servos.set(6, address::BAUD_RATE, &[2]);
    servos.set(6, 1, &[9]);
    let mut asked = 0;
    let found = scan(&mut bus(&servos), &BAUD_RATES[..3], &[1, 2, 6], |_, _| asked += 1).unwrap();
    let one = |baud, id, firmware| Found { baud, id, model: 777, firmware };
    assert_eq!(found, [one(1_000_000, 1, (3, 10)), one(250_000, 6, (3, 9))]);
    assert_eq!(asked, 9);
}

#[test]
fn a_calibration_from_the_first_step_to_a_connected_arm() {
    let servos = Servos::new(&IDS);
    // Old settings, and torque left on.
    servos.set(3, address::HOMING_OFFSET, &[100, 0]);
    servos.set(3, address::MIN_POSITION, &[0xE8, 3]);
    servos.set(3, address::TORQUE_ENABLE, &[1]);
    let mut bus = bus(&servos);
    let centring = Centring::start(&mut bus).unwrap();
    assert_eq!(torque(&servos), [false; 6]);
    // Where each encoder shows the middle of its joint, the last ones at its ends.
    let middles = [2757, 900, 3267, 2047, 4095, 0];
    for (id, middle) in IDS.into_iter().zip(middles) {
        servos.turn(id, f64::from(middle));
    }
    let mut sweep = centring.centred(&mut bus).unwrap();
    // 4095 − 2047 does not fit into the register: a tick is left.
    assert_eq!(positions(&servos), [2047, 2047, 2047, 2047, 2048, 2047]);
    let error = sweep.finish().unwrap_err();
    let still = vec!["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "gripper"];
    assert_eq!(error, SetupError::NotMoved(still));
    for (id, middle) in IDS.into_iter().zip(middles) {
        for step in (-500..=300).chain((-500..=300).rev()).step_by(50) {
            servos.turn(id, f64::from(middle + step));
            let ranges = sweep.sample(&mut bus).unwrap();
            assert_eq!(ranges[usize::from(id) - 1].now, servos.position(id));
        }
        servos.turn(id, f64::from(middle));
    }
    let calibration = sweep.finish().unwrap();
    let offsets: Vec<i32> = calibration.motors.iter().map(|motor| motor.homing_offset).collect();
    assert_eq!(offsets, [710, -1147, 1220, 0, 2047, -2047]);
    for (i, motor) in calibration.motors.iter().enumerate() {
        let range = if i == 4 { (0, MAX_TICKS) } else { (2047 - 500, 2047 + 300) };
        assert_eq!((motor.range_min, motor.range_max), range, "{}", label(motor.id));
    }
    calibration.write_to(&mut bus).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arm.json");
    calibration.save(&file).unwrap();
    servos.power_cycle();
    drop(bus);
    let mut options = options("memory");
    options.arm.calibration = Calibration::load(&file).unwrap();
    So101Follower::with_opener(options, opener(&servos)).unwrap().connect().unwrap();
}

#[test]
fn writes_under_lock_do_not_last_and_ours_do() {
    let servos = servos();
    let mut bus = bus(&servos);
    bus.write_verified(2, &HOMING_OFFSET, -5).unwrap();
    servos.power_cycle();
    assert_eq!(bus.read(2, &HOMING_OFFSET), Ok(1104));
    assert_eq!(bus.settle_registers(2, &[(&HOMING_OFFSET, -5)]), Ok(true));
    assert_eq!(bus.settle_registers(2, &[(&HOMING_OFFSET, -5)]), Ok(false));
    servos.power_cycle();
    assert_eq!((bus.read(2, &HOMING_OFFSET), servos.byte(2, address::LOCK)), (Ok(-5), 1));
}

#[test]
fn what_the_servos_show_is_read_out() {
    let servos = servos();
    servos.set(4, address::PRESENT_TEMPERATURE, &[44]);
    servos.set_status(4, 4);
    servos.set_connected(2, false);
    let mut bus = bus(&servos);
    bus.write(4, &GOAL_POSITION, 2100).unwrap();
    let readouts = monitor(&mut bus).unwrap();
    assert_eq!(readouts[1], Err(BusError::NoReply { ids: vec![2] }));
    let wrist = readouts[3].as_ref().unwrap();
    assert_eq!((wrist.joint, wrist.health.torque, wrist.moving), ("wrist_flex", false, false));
    assert_eq!((wrist.goal_ticks, wrist.position_ticks, wrist.health.temperature_c), (2100, 2038, 44));
    assert_eq!((wrist.health.voltage_v, wrist.health.status.to_string()), (7.4, "too hot".into()));
}

#[test]
fn a_late_reply_is_not_taken_for_the_next_one() {
    let servos = servos();
    let mut bus = bus(&servos);
    bus.write(5, &GOAL_POSITION, 1234).unwrap();
    bus.set_retries(Retries { attempts: 1, ..Retries::STEADY });
    servos.inject(5, Fault::Delayed(Duration::from_millis(20)));
    assert_eq!(bus.read(5, &PRESENT_POSITION), Err(BusError::NoReply { ids: vec![5] }));
    assert_eq!(bus.read(5, &GOAL_POSITION), Ok(1234));
}

#[test]
fn what_a_servo_says_and_what_is_missing_is_told_apart() {
    let servos = servos();
    let mut bus = bus(&servos);
    let read = |bus: &mut Bus| bus.read(5, &PRESENT_POSITION);
    for (fault, expected) in [
        (Fault::NoReply, "no reply from wrist_roll (id 5)"),
        (Fault::BadChecksum, "damaged reply from wrist_roll (id 5): wrong checksum"),
        (Fault::WrongId(4), "damaged reply from wrist_roll (id 5): it bears the id 4"),
        (Fault::Truncated(4), "damaged reply from wrist_roll (id 5): 4 bytes without a whole reply"),
    ] {
        (0..3).for_each(|_| servos.inject(5, fault.clone()));
        let error = read(&mut bus).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(read(&mut bus), Ok(2048));
    }
    servos.inject(5, Fault::Status(0x20));
    assert_eq!(read(&mut bus), Ok(2048));
    let alarms = bus.take_alarms();
    assert_eq!((alarms[0].0, alarms[0].1.to_string()), (5, "overload".into()));
    assert!(bus.take_alarms().is_empty());
    assert_eq!(bus.write(5, &PRESENT_POSITION, 1), Err(BusError::ReadOnly { register: "Present_Position" }));
}
