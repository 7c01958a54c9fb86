//! A thousand short runs with faults at random: no goal outside a joint's range, no panic, torque off at the end.

mod support;

use std::time::Duration;

use skillweld_fake_servo_bus::{Fault, Schedule, Servos};
use skillweld_robot::{Robot, RobotError};
use skillweld_robot_so101::{JOINTS, So101Follower};
use support::*;

fn faults(seed: u64) -> Vec<Fault> {
    let mut faults = vec![
        Fault::Deaf,
        Fault::NoReply,
        Fault::BadChecksum,
        Fault::GarbageBefore(vec![0xFF, 0xFF, 0x03, 0x04]),
        Fault::GarbageBefore(vec![0xFF; 9]),
        Fault::GarbageWithin(vec![0xFF, 0x00, 0xFF]),
        Fault::Truncated(5),
        Fault::WrongId(2),
        Fault::Delayed(Duration::from_millis(4)),
        Fault::Delayed(Duration::from_millis(18)),
        Fault::Delayed(Duration::from_millis(40)),
        Fault::Status(0x20),
    ];
    if seed.is_multiple_of(2) {
        faults.push(Fault::Unplug);
    }
    faults
}

/// Every message names a joint or the cable, and what is asked of a connected arm is never a panic.
fn checked<T>(seed: u64, result: Result<T, RobotError>) -> Result<T, RobotError> {
    if let Err(error) = &result {
        let text = error.to_string();
        let named = JOINTS.iter().any(|joint| text.contains(joint.name)) || text.contains("cable");
        let closed = matches!(error, RobotError::NotConnected);
        let open = matches!(error, RobotError::Connect(_)) && text.contains("memory");
        assert!(named || closed || open, "{seed}: {error:?}");
    }
    result
}

#[derive(Default)]
struct Seen {
    connected: u32,
    observed: u32,
    failed: u32,
    faults: u32,
    unplugged: u32,
}

fn run(seed: u64, seen: &mut Seen) {
    let mut numbers = Numbers(seed);
    let servos = servos_at(0.1 + 0.8 * numbers.next());
    let chance = [0.02, 0.1, 0.3][(seed % 3) as usize];
    let schedule = Schedule { seed, chance, faults: faults(seed) };
    let arm = So101Follower::with_opener(options("memory"), opener(&servos));
    let mut arm = arm.expect("the options are an arm's");
    // Half of the runs have a good line until they are connected.
    if seed % 4 < 2 {
        servos.schedule(schedule.clone());
    }
    if checked(seed, arm.connect()).is_ok() {
        seen.connected += 1;
        assert_eq!(torque(&servos), [true; 6], "{seed}");
    }
    servos.schedule(schedule);
    for _ in 0..20 {
        match checked(seed, arm.observe()) {
            Ok(observation) => {
                seen.observed += 1;
                assert_eq!(observation.positions.len(), 6);
                for problem in observation.problems {
                    match checked::<()>(seed, Err(problem)) {
                        Err(RobotError::Fault { .. }) => seen.faults += 1,
                        _ => seen.failed += 1,
                    }
                }
            }
            Err(RobotError::NotConnected) => break,
            Err(_) => seen.failed += 1,
        }
        let wild = if numbers.next() < 0.2 { 1e6 } else { 200.0 };
        let goals: Vec<f64> = (0..6).map(|_| wild * (numbers.next() - 0.5)).collect();
        let _ = checked(seed, arm.act(&goals));
        servos.advance(Duration::from_millis(33));
    }
    let stopped = checked(seed, arm.stop());
    if servos.is_plugged() {
        assert_eq!(stopped, Ok(()), "{seed}");
    } else {
        seen.unplugged += 1;
        servos.clear_faults();
        servos.replug();
        assert_eq!(arm.stop(), Ok(()), "{seed}");
    }
    assert_eq!(torque(&servos), [false; 6], "{seed}");
    only_goals_within(seed, &servos);
}

fn only_goals_within(seed: u64, servos: &Servos) {
    for write in servos.goals() {
        let motor = calibration().motors[usize::from(write.id) - 1];
        assert!((motor.range_min..=motor.range_max).contains(&write.goal), "{seed}: {write:?}");
    }
}

#[test]
fn a_thousand_bad_lines() {
    let mut seen = Seen::default();
    for seed in 0..1000 {
        run(seed, &mut seen);
    }
    // Each kind of end was met often enough to mean something.
    let Seen { connected, observed, failed, faults, unplugged } = seen;
    println!(
        "{connected} connected, {observed} observed, {failed} failed, {faults} faults, {unplugged} unplugged"
    );
    assert!(connected > 500 && observed > 2000 && failed > 500 && faults > 500 && unplugged > 100);
}

#[test]
fn a_cable_pulled_while_connecting_leaves_nothing_on() {
    for requests in 0..250_u8 {
        let servos = servos();
        let mut arm = So101Follower::with_opener(options("memory"), opener(&servos)).unwrap();
        for _ in 0..requests / 6 {
            // Faults that change nothing, so that the last one meets a later request.
            servos.inject(1 + requests % 6, Fault::Delayed(Duration::ZERO));
        }
        servos.inject(1 + requests % 6, Fault::Unplug);
        let connected = arm.connect();
        if servos.is_plugged() {
            connected.unwrap();
        } else {
            let error = connected.unwrap_err();
            assert!(matches!(error, RobotError::Disconnected(_)), "{error:?}");
            servos.replug();
        }
        servos.clear_faults();
        arm.stop().unwrap();
        assert_eq!(torque(&servos), [false; 6]);
    }
}
