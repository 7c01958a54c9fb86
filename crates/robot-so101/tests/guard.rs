//! A program that drives an arm is killed: its guardian turns torque off.
//!
//! The program and the guardian are this test binary, started with the name of one of the two functions that are ignored
//! otherwise, and the port in an environment variable.

#![cfg(unix)]

mod support;

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use skillweld_fake_servo_bus::ServoBus;
use skillweld_robot::Robot;
use skillweld_robot_so101::guard::{Guarded, GuardianCommand, guard};
use skillweld_robot_so101::protocol::{BAUD, Bus};
use skillweld_robot_so101::{FollowerOptions, So101Follower};
use support::*;

const PORT: &str = "SO101_TEST_PORT";

fn arguments(function: &str) -> Vec<OsString> {
    ["--exact", function, "--ignored", "--nocapture", "--test-threads=1"].map(OsString::from).to_vec()
}

fn guardian() -> GuardianCommand {
    GuardianCommand {
        program: env::current_exe().expect("this test has a file"),
        arguments: arguments("program_that_guards"),
    }
}

#[test]
fn a_killed_program_leaves_no_torque() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let mut program = Command::new(env::current_exe().unwrap())
        .args(arguments("program_that_is_killed"))
        .env(PORT, line.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("torque comes on", || torque(&servos) == [true; 6]);
    program.kill().unwrap();
    program.wait().unwrap();
    eventually("torque goes off", || torque(&servos) == [false; 6]);
    // The guardian reads back that it is off before it lets go of the port: the port must be there until then.
    eventually("the guardian ends", || Bus::open(line.path().to_str().unwrap(), BAUD).is_ok());
}

#[test]
#[ignore = "started by a_killed_program_leaves_no_torque"]
fn program_that_is_killed() {
    let Ok(port) = env::var(PORT) else { return };
    let options = FollowerOptions { guardian: Some(guardian()), ..options(&port) };
    let mut arm = So101Follower::with_opener(options, patient_opener(&port)).unwrap();
    arm.connect().unwrap();
    loop {
        arm.observe().unwrap();
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "started by the guardians of other tests"]
fn program_that_guards() {
    let Ok(port) = env::var(PORT) else { return };
    guard(&port, std::io::stdin()).unwrap();
}

/// The guardian of this one reads no port: it ends with the right word, and `stop` waits for that.
#[test]
fn a_program_that_stops_its_arm_takes_its_guardian_along() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap();
    let cat = GuardianCommand {
        program: "sh".into(),
        arguments: vec!["-c".into(), format!("test \"$(cat)\" = released && touch {port}.released").into()],
    };
    let options = FollowerOptions { guardian: Some(cat), ..options(port) };
    let mut arm = So101Follower::with_opener(options, patient_opener(port)).unwrap();
    arm.connect().unwrap();
    arm.stop().unwrap();
    assert!(line.path().with_extension("released").exists());
}

#[test]
fn a_broken_pipe_turns_torque_off_once_the_port_is_free() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap().to_owned();
    let mut arm = So101Follower::with_opener(options(&port), patient_opener(&port)).unwrap();
    arm.connect().unwrap();
    let guardian = thread::spawn({
        let port = port.clone();
        move || guard(&port, &b""[..])
    });
    thread::sleep(Duration::from_millis(300));
    assert_eq!(torque(&servos), [true; 6]);
    // As if it were killed: nothing of the arm's own stopping.
    servos.unplug();
    eventually("the arm is lost", || arm.observe().is_err());
    servos.replug();
    assert_eq!(guardian.join().unwrap(), Ok(Guarded::TorqueOff));
    assert_eq!(torque(&servos), [false; 6]);
}
