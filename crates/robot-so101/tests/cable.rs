//! A real port (a pseudo terminal), and a cable that is pulled.

mod support;

use skillweld_fake_servo_bus::{ServoBus, address};
use skillweld_robot::{Robot, RobotError};
use skillweld_robot_so101::So101Follower;
use skillweld_robot_so101::protocol::{BAUD, Bus, BusError};
use support::*;

#[test]
fn an_arm_at_a_port() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap();
    let mut arm = So101Follower::with_opener(options(port), patient_opener(port)).unwrap();
    arm.connect().unwrap();
    let busy = Bus::open(port, BAUD).err().unwrap();
    assert!(busy.to_string().contains("another program uses it"), "{busy}");
    arm.act(&[10.0; 6]).unwrap();
    eventually("the arm arrives", || {
        arm.observe().unwrap();
        positions(&servos) == goals(&servos)
    });
    arm.stop().unwrap();
    assert_eq!(torque(&servos), [false; 6]);
    // The next program gets the port, with other settings first.
    assert_eq!(Bus::open(port, 500_000).unwrap().ping(1), Err(BusError::NoReply { ids: vec![1] }));
    assert_eq!(patient_opener(port)().unwrap().ping(1), Ok(()));
}

#[test]
fn a_cable_pulled_while_observing_and_acting() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap();
    for acting in [false, true] {
        let mut arm = So101Follower::with_opener(options(port), patient_opener(port)).unwrap();
        arm.connect().unwrap();
        servos.unplug();
        eventually("the port hangs up", || !line.path().exists());
        let lost = if acting { arm.act(&[0.0; 6]).unwrap_err() } else { arm.observe().unwrap_err() };
        let named =
            matches!(&lost, RobotError::Disconnected(text) if text.contains("check the arm's USB cable"));
        assert!(named, "{lost:?}");
        assert_eq!(arm.observe().unwrap_err(), RobotError::NotConnected);
        // The servos have their power still, and hold.
        assert_eq!(torque(&servos), [true; 6]);
        let error = arm.stop().unwrap_err().to_string();
        assert!(error.contains("cannot be told to let go") && error.contains("power supply"), "{error}");
        servos.replug();
        eventually("the port is back", || line.path().exists());
        arm.stop().unwrap();
        assert_eq!(torque(&servos), [false; 6]);
    }
}

#[test]
fn an_arm_connects_again_after_its_cable_was_out() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap();
    let mut arm = So101Follower::with_opener(options(port), patient_opener(port)).unwrap();
    arm.connect().unwrap();
    servos.unplug();
    eventually("the arm is lost", || matches!(arm.observe(), Err(RobotError::Disconnected(_))));
    servos.replug();
    eventually("the port is back", || line.path().exists());
    arm.connect().unwrap();
    assert_eq!((torque(&servos), arm.observe().is_ok()), (vec![true; 6], true));
    assert_eq!(servos.byte(3, address::LOCK), 1);
}
