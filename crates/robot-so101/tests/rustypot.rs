//! The crate `rustypot`, another implementation of the protocol, and ours on one line of fake servos: what one writes, the
//! other reads.

mod support;

use std::time::Duration;

use rustypot::DynamixelProtocolHandler;
use rustypot::servo::feetech::sts3215::DEFINITION;
use skillweld_fake_servo_bus::ServoBus;
use skillweld_robot_so101::registers::{
    GOAL_POSITION, HOMING_OFFSET, LOCK, MAX_POSITION, MODEL_NUMBER, PRESENT_POSITION, PRESENT_TEMPERATURE,
    PRESENT_VOLTAGE, Register, TORQUE_ENABLE,
};
use support::*;

/// What both are asked to read.
const READ: [&Register; 9] = [
    &MODEL_NUMBER,
    &HOMING_OFFSET,
    &MAX_POSITION,
    &LOCK,
    &TORQUE_ENABLE,
    &GOAL_POSITION,
    &PRESENT_POSITION,
    &PRESENT_VOLTAGE,
    &PRESENT_TEMPERATURE,
];

#[test]
fn both_read_and_write_the_same() {
    let servos = servos_at(0.3);
    let line = ServoBus::start(&servos).unwrap();
    let path = line.path().to_str().unwrap().to_owned();
    let theirs = DynamixelProtocolHandler::v1();
    // A port belongs to one program at a time, so they take turns.
    let open = || serialport::new(&path, 1_000_000).timeout(Duration::from_millis(500)).open().unwrap();

    let mut port = open();
    for id in IDS {
        assert!(theirs.ping(port.as_mut(), id).unwrap(), "{id}");
    }
    let read: Vec<Vec<i64>> = READ
        .iter()
        .map(|register| {
            let name = register.name.to_lowercase();
            let one = |&id: &u8| DEFINITION.read_register(&theirs, port.as_mut(), id, &name).unwrap();
            IDS.iter().map(one).collect()
        })
        .collect();
    let (at, size) = (PRESENT_POSITION.address, PRESENT_POSITION.size);
    let together = theirs.sync_read(port.as_mut(), &IDS, at, size).unwrap();
    let goals: Vec<i32> = (0..6).map(|i| 1900 + 40 * i).collect();
    let bytes: Vec<Vec<u8>> = goals.iter().map(|&goal| GOAL_POSITION.encode(goal).unwrap()).collect();
    theirs.sync_write(port.as_mut(), &IDS, GOAL_POSITION.address, &bytes).unwrap();
    theirs.write(port.as_mut(), 2, HOMING_OFFSET.address, &HOMING_OFFSET.encode(-33).unwrap()).unwrap();
    drop(port);

    let mut ours = patient_opener(&path)().unwrap();
    assert_eq!(ours.sync_read(&GOAL_POSITION, &IDS).unwrap(), goals);
    assert_eq!(ours.read(2, &HOMING_OFFSET).unwrap(), -33);
    ours.write_verified(2, &HOMING_OFFSET, 1104).unwrap();
    ours.sync_write(&TORQUE_ENABLE, &IDS.map(|id| (id, 0))).unwrap();
    for (register, theirs) in READ.iter().zip(&read) {
        // The goal has been written since, and is read back above.
        if register.name != GOAL_POSITION.name {
            let ours: Vec<i64> = IDS.iter().map(|&id| i64::from(ours.read(id, register).unwrap())).collect();
            assert_eq!(&ours, theirs, "{}", register.name);
        }
    }
    for (position, bytes) in ours.sync_read(&PRESENT_POSITION, &IDS).unwrap().into_iter().zip(together) {
        assert_eq!(position, PRESENT_POSITION.decode(&bytes));
    }
    // And the other way round.
    let goals: Vec<(u8, i32)> = IDS.iter().map(|&id| (id, 2100 + 10 * i32::from(id))).collect();
    ours.sync_write(&GOAL_POSITION, &goals).unwrap();
    drop(ours);
    let mut port = open();
    for (id, goal) in goals {
        let read = DEFINITION.read_register(&theirs, port.as_mut(), id, "goal_position").unwrap();
        assert_eq!(read, i64::from(goal));
    }
}
