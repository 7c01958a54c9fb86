//! A program that drives an arm is killed, or hangs: its guardian turns torque off.
//!
//! The programs and the guardian are this test binary, started with the name of one of the functions that are ignored
//! otherwise, and the port in an environment variable.

#![cfg(unix)]

mod support;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use skillweld_fake_servo_bus::ServoBus;
use skillweld_robot::{Robot, RobotError};
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

/// This test binary as one of its ignored functions.
fn start(function: &str, line: &ServoBus) -> Child {
    let mut program = Command::new(env::current_exe().expect("this test has a file"));
    program.args(arguments(function)).env(PORT, line.path());
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is there")
}

/// The guardian reads back that torque is off before it lets go of the port: the port must be there until then.
fn is_let_go(line: &ServoBus) {
    let port = line.path().to_str().expect("its name is plain");
    eventually("the guardian ends", || Bus::open(port, BAUD).is_ok());
}

#[test]
fn a_killed_program_leaves_no_torque() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let mut program = start("program_that_is_killed", &line);
    eventually("torque comes on", || torque(&servos) == [true; 6]);
    program.kill().unwrap();
    program.wait().unwrap();
    eventually("torque goes off", || torque(&servos) == [false; 6]);
    is_let_go(&line);
}

#[test]
#[ignore = "started by a_killed_program_leaves_no_torque"]
fn program_that_is_killed() {
    let Ok(port) = env::var(PORT) else { return };
    let options = FollowerOptions { guardian: Some(guardian()), ..options(&port) };
    let mut arm = So101Follower::with_opener(options, patient_opener(&port)).unwrap();
    arm.connect().unwrap();
    loop {
        assert_eq!(arm.observe().unwrap().problems, []);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_that_hangs_is_ended_and_leaves_no_torque() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let mut program = start("program_that_hangs", &line);
    eventually("torque comes on", || torque(&servos) == [true; 6]);
    assert_eq!(program.wait().unwrap().signal(), Some(9));
    eventually("torque goes off", || torque(&servos) == [false; 6]);
    is_let_go(&line);
}

#[test]
#[ignore = "started by a_program_that_hangs_is_ended_and_leaves_no_torque"]
fn program_that_hangs() {
    let Ok(port) = env::var(PORT) else { return };
    let options = FollowerOptions { guardian: Some(guardian()), ..options(&port) };
    let mut arm = So101Follower::with_opener(options, patient_opener(&port)).unwrap();
    arm.connect().unwrap();
    arm.observe().unwrap();
    thread::sleep(Duration::from_secs(600));
}

#[test]
#[ignore = "started by other tests, and by the guardians of others"]
fn program_that_guards() {
    let Ok(port) = env::var(PORT) else { return };
    match guard(&port).unwrap() {
        Guarded::Released => fs::write(format!("{port}.released"), "").unwrap(),
        Guarded::Died | Guarded::Hung => {}
    }
}

#[test]
fn a_program_that_stops_its_arm_takes_its_guardian_along() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap();
    // The guardian of this one reads no port: it ends with the right words, and `stop` waits for that.
    let script = format!("printf '\\006'; test \"$(cat)\" = .qr && touch {port}.released");
    let cat = GuardianCommand { program: "sh".into(), arguments: vec!["-c".into(), script.into()] };
    let options = FollowerOptions { guardian: Some(cat), ..options(port) };
    let mut arm = So101Follower::with_opener(options, patient_opener(port)).unwrap();
    arm.connect().unwrap();
    assert_eq!(arm.observe().unwrap().problems, []);
    arm.stop().unwrap();
    assert!(line.path().with_extension("released").exists());
}

#[test]
fn an_arm_whose_guardian_dies_says_so_until_it_has_another() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap();
    let script = "printf '\\006'; exec head -c 2".into();
    let mortal = GuardianCommand { program: "sh".into(), arguments: vec!["-c".into(), script] };
    let options = FollowerOptions { guardian: Some(mortal), ..options(port) };
    let mut arm = So101Follower::with_opener(options, patient_opener(port)).unwrap();
    arm.connect().unwrap();
    let dies =
        |problem: &RobotError| matches!(problem, RobotError::Fault { joint, .. } if joint == "guardian");
    eventually("the guardian dies", || arm.observe().unwrap().problems.iter().any(dies));
    assert!(arm.observe().unwrap().problems.iter().any(dies));
    arm.stop().unwrap();
    arm.connect().unwrap();
    assert_eq!(arm.observe().unwrap().problems, []);
}

#[test]
fn signs_of_life_do_not_depend_on_the_bus() {
    let servos = servos();
    let folder = tempfile::tempdir().unwrap();
    let beats = folder.path().join("beats");
    let script = format!("printf '\\006'; head -c 4 > {}", beats.display()).into();
    let counts = GuardianCommand { program: "sh".into(), arguments: vec!["-c".into(), script] };
    let options = FollowerOptions { guardian: Some(counts), ..options("memory") };
    let mut arm = So101Follower::with_opener(options, opener(&servos)).unwrap();
    arm.connect().unwrap();
    servos.set_connected(3, false);
    (0..3).for_each(|_| assert!(arm.observe().is_err()));
    servos.set_connected(3, true);
    arm.stop().unwrap();
    assert_eq!(fs::read_to_string(beats).unwrap(), "...q");
}

/// What ends programs politely ends no guardian, and `killall` with the program's name does not meet it.
#[test]
fn a_guardian_outlives_the_signals_that_end_its_program() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let mut guardian = start("program_that_guards", &line);
    let mut said = guardian.stdout.take().unwrap();
    let mut byte = [0];
    while byte != [6] {
        said.read_exact(&mut byte).unwrap();
    }
    for signal in ["-TERM", "-INT", "-HUP"] {
        let sent = Command::new("kill").args([signal, &guardian.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(guardian.try_wait().unwrap(), None);
    guardian.stdin.take().unwrap().write_all(b"r").unwrap();
    assert!(guardian.wait().unwrap().success());
    assert!(line.path().with_extension("released").exists());
}

#[test]
fn a_broken_pipe_turns_torque_off_once_the_port_is_free() {
    let servos = servos();
    let line = ServoBus::start(&servos).unwrap();
    let port = line.path().to_str().unwrap().to_owned();
    let mut arm = So101Follower::with_opener(options(&port), patient_opener(&port)).unwrap();
    arm.connect().unwrap();
    let mut guardian = start("program_that_guards", &line);
    drop(guardian.stdin.take());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(torque(&servos), [true; 6]);
    // As if it were killed: nothing of the arm's own stopping.
    servos.unplug();
    eventually("the arm is lost", || arm.observe().is_err());
    servos.replug();
    assert!(guardian.wait().unwrap().success());
    assert_eq!(torque(&servos), [false; 6]);
    assert!(!line.path().with_extension("released").exists());
}
