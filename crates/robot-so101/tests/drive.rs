//! The control loop, the driver and fake servos together: what is asked of the arm keeps to its limits whatever goes wrong, and
//! torque is off at the end.

mod support;

use std::cell::Cell;
use std::time::{Duration, Instant};

use skillweld_fake_servo_bus::{Fault, Schedule, Servos, address};
use skillweld_robot::{
    ActionSource, Clock, Description, Disagreement, DriveError, DriveOptions, Event, Moment, Next,
    Observation, Origin, Reason, Robot, RobotError, StopSwitch, Summary, drive_by_clock,
};
use skillweld_robot_so101::So101Follower;
use support::*;

/// Degrees, or percent, a second.
const VELOCITY: f64 = 180.0;
const HZ: f64 = 30.0;

/// The virtual time of the servos' line.
struct LineClock {
    start: Instant,
    servos: Servos,
}

impl Clock for LineClock {
    fn now(&self) -> Instant {
        self.start + self.servos.now()
    }

    fn nap(&self, time: Duration) {
        self.servos.advance(time);
    }

    fn sleep_until(&self, deadline: Instant) {
        self.servos.advance(deadline.saturating_duration_since(self.now()));
    }
}

/// The follower in virtual time, with an eye on what it is told.
struct Watched<'a> {
    arm: So101Follower,
    clock: &'a LineClock,
    observed: Vec<f64>,
    /// Where the next goal may start from: the last one, or, when the arm has held, where it was seen since.
    starts: Vec<Vec<f64>>,
    held: bool,
    goals: u64,
}

impl Watched<'_> {
    fn keeps_to_limits(&mut self, goals: &[f64]) {
        // What a joint covers in a period, and in the tenth of a second by which its goal may run ahead of it.
        let (change, step, tolerance) = (VELOCITY / HZ, VELOCITY * 0.1, 1e-9);
        let joints = self.arm.describe().joints.iter().enumerate();
        for (i, joint) in joints {
            let (goal, observed) = (goals[i], self.observed[i]);
            assert!((joint.min..=joint.max).contains(&goal), "{} to {goal}", joint.name);
            let is_near = (goal - observed.clamp(joint.min, joint.max)).abs() <= step + tolerance;
            let allowed = self.starts.iter().any(|start| {
                let start = start[i].clamp(joint.min, joint.max);
                let moved = (goal - start).abs();
                let comes_back = moved >= change - tolerance && (goal > start) == (observed > start);
                moved <= change + tolerance && (is_near || comes_back)
            });
            assert!(allowed, "{} to {goal}, seen at {observed}, from {:?}", joint.name, self.starts);
        }
        (self.starts, self.held) = (vec![goals.to_vec()], false);
        self.goals += 1;
    }
}

impl Robot for Watched<'_> {
    fn describe(&self) -> &Description {
        self.arm.describe()
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        self.arm.connect()
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        let captured = self.clock.now();
        let seen = self.arm.observe()?;
        self.observed.clone_from(&seen.positions);
        if self.starts.is_empty() || self.held {
            self.starts.push(seen.positions.clone());
        }
        Ok(Observation { captured, ..seen })
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        self.keeps_to_limits(positions);
        self.arm.act(positions)
    }

    fn hold(&mut self) -> Result<(), RobotError> {
        (self.starts, self.held) = (Vec::new(), true);
        self.arm.hold()
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        self.arm.stop()
    }
}

/// Wants to go anywhere, and does something to the servos first at each step.
struct Wild<'a> {
    numbers: Numbers,
    each: Box<dyn FnMut(u64) + 'a>,
    step: u64,
}

impl ActionSource for Wild<'_> {
    fn agree(&self, _robot: &Description) -> Result<(), Disagreement> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), RobotError> {
        Ok(())
    }

    fn next(&mut self, _moment: &Moment<'_>, _events: &mut Vec<Event>) -> Next {
        self.step += 1;
        (self.each)(self.step);
        let reach = if self.numbers.next() < 0.2 { 1e6 } else { 300.0 };
        Next::Act((0..6).map(|_| reach * (self.numbers.next() - 0.5)).collect(), Origin::Policy)
    }
}

struct Run {
    result: Result<Summary, DriveError>,
    goals: u64,
}

/// Drives so many steps in virtual time.
fn run(servos: &Servos, seed: u64, steps: u64, each: impl FnMut(u64)) -> Run {
    let clock = LineClock { start: Instant::now(), servos: servos.clone() };
    let arm =
        So101Follower::with_opener(options("memory"), opener(servos)).expect("the options are an arm's");
    let (observed, starts) = (Vec::new(), Vec::new());
    let mut arm = Watched { arm, clock: &clock, observed, starts, held: false, goals: 0 };
    let mut source = Wild { numbers: Numbers(seed), each: Box::new(each), step: 0 };
    let options = DriveOptions { hz: HZ, steps: Some(steps), ..DriveOptions::default() };
    let switch = StopSwitch::new();
    let result = drive_by_clock(&mut arm, &mut source, &options, &mut (), &switch, &clock);
    if !servos.is_plugged() {
        // Somebody puts the cable back, and what is left on is turned off.
        servos.clear_faults();
        servos.replug();
        arm.stop().expect("the line is good again");
    }
    let goals = arm.goals;
    Run { result, goals }
}

fn ends_with_torque_off(servos: &Servos, context: &str) {
    assert_eq!(torque(servos), [false; 6], "{context}");
    for write in servos.goals() {
        let motor = calibration().motors[usize::from(write.id) - 1];
        assert!((motor.range_min..=motor.range_max).contains(&write.goal), "{context}: {write:?}");
    }
}

#[test]
fn a_run_without_faults_is_one() {
    let servos = servos();
    let Run { result, goals } = run(&servos, 1, 60, |_| ());
    let summary = result.unwrap();
    assert_eq!((summary.end, summary.failures, goals), (Reason::Over, 0, 60));
    ends_with_torque_off(&servos, "no faults");
}

/// The supply of the whole arm fails for a moment: all joints are limp, and their settings in SRAM are gone.
#[test]
fn a_power_cycle_ends_the_run_with_torque_off() {
    for at in 95..105 {
        let servos = servos();
        let cycled = servos.clone();
        let run = run(&servos, at, 9_000, move |step| {
            if step == at {
                cycled.power_cycle();
            }
        });
        let summary = run.result.unwrap();
        let end = summary.end.to_string();
        assert!(matches!(summary.end, Reason::Lost(RobotError::LetGo { .. })), "{end}");
        assert!(end.contains("torque went off by itself"), "{end}");
        // Within ten observations.
        assert!(summary.steps <= at + 10, "{} steps", summary.steps);
        ends_with_torque_off(&servos, &end);
    }
}

/// One joint alone, whose turn comes every sixty observations: within two seconds.
#[test]
fn one_joint_that_lets_go_ends_the_run_with_torque_off() {
    for id in IDS {
        let servos = servos();
        let limp = servos.clone();
        let run = run(&servos, 7, 9_000, move |step| {
            if step == 30 {
                limp.set(id, address::TORQUE_ENABLE, &[0]);
            }
        });
        let summary = run.result.unwrap();
        assert!(matches!(summary.end, Reason::Lost(RobotError::LetGo { .. })), "{}", summary.end);
        assert!(summary.steps <= 30 + 60, "{} steps", summary.steps);
        ends_with_torque_off(&servos, "one joint");
    }
}

/// Heat that the servo does not complain about: found when its turn comes, held for five seconds, then torque goes off.
#[test]
fn a_joint_that_stays_too_hot_ends_the_run_within_the_hold_limit() {
    let servos = servos();
    let hot = servos.clone();
    let run = run(&servos, 3, 9_000, move |step| {
        if step == 30 {
            hot.set(4, address::PRESENT_TEMPERATURE, &[71]);
        }
    });
    let summary = run.result.unwrap();
    assert!(
        matches!(&summary.end, Reason::Failures { last, .. } if last.to_string().contains("wrist_flex: too hot"))
    );
    assert!(summary.duration <= Duration::from_secs(1 + 2 + 5 + 1), "{:?}", summary.duration);
    ends_with_torque_off(&servos, "heat");
}

fn faults(seed: u64) -> Vec<Fault> {
    let mut faults = vec![
        Fault::Deaf,
        Fault::NoReply,
        Fault::BadChecksum,
        Fault::GarbageBefore(vec![0xFF, 0xFF, 0x03, 0x04]),
        Fault::GarbageWithin(vec![0xFF, 0x00, 0xFF]),
        Fault::Truncated(5),
        Fault::WrongId(2),
        Fault::Delayed(Duration::from_millis(18)),
    ];
    // Some lines are only noisy; on others servos complain, and cables come off.
    if seed.is_multiple_of(2) {
        faults.push(Fault::Status(0x20));
    }
    if seed.is_multiple_of(3) {
        faults.push(Fault::Unplug);
    }
    faults
}

#[test]
fn many_bad_lines_keep_to_the_limits_and_end_with_torque_off() {
    let (mut began, mut goals, mut held, mut lost, mut let_go, mut over) = (0, 0, 0, 0, 0, 0);
    for seed in 0..200_u64 {
        let mut numbers = Numbers(seed);
        let servos = servos_at(0.1 + 0.8 * numbers.next());
        let schedule =
            Schedule { seed, chance: [0.005, 0.03, 0.12][(seed % 3) as usize], faults: faults(seed) };
        let limp_at = (seed % 5 == 0).then(|| 5 + (numbers.next() * 50.0) as u64);
        let (victim, cycled) = (servos.clone(), Cell::new(false));
        let run = run(&servos, seed, 150, |step| {
            if step == 1 {
                victim.schedule(schedule.clone());
            }
            if Some(step) == limp_at {
                victim.power_cycle();
                cycled.set(true);
            }
            if step == 20 && seed % 7 == 0 {
                // Somebody pushes a joint.
                victim.turn(3, f64::from(-1220 + 1991 + 300));
            }
        });
        let context = format!("seed {seed}");
        match run.result {
            Ok(summary) => {
                began += 1;
                held += summary.held;
                match &summary.end {
                    Reason::Over => over += 1,
                    Reason::Lost(RobotError::LetGo { .. }) => let_go += 1,
                    Reason::Lost(_) => lost += 1,
                    Reason::Failures { .. } => {}
                    other => panic!("{context}: {other}"),
                }
                // No run goes on with limp joints.
                assert!(!cycled.get() || summary.end != Reason::Over, "{context}");
            }
            Err(error) => panic!("{context}: {error}"),
        }
        goals += run.goals;
        ends_with_torque_off(&servos, &context);
    }
    println!("{began} began, {goals} goals, {held} steps held, {lost} lost, {let_go} let go, {over} over");
    assert!(goals > 5_000 && held > 200 && lost > 20 && let_go > 20 && over > 50);
}
