use std::time::Duration;

use proptest::prelude::*;
use skillweld_robot::{DriveOptions, Next, Origin, Reason, RobotError, Tick};

use crate::arm::{Arm, Call, Exchange, Notes, Source, bus, for_steps, run, towards};

/// Fails while `when` says so of the number of the observation.
fn failing(error: RobotError, when: impl Fn(u32) -> bool + Send + 'static) -> Arm {
    let mut observations = 0;
    Arm::with(move |exchange| {
        if let Exchange::Observe(_) = exchange {
            observations += 1;
        }
        let fails = when(observations) && !matches!(exchange, Exchange::Stop);
        if fails { Err(error.clone()) } else { Ok(()) }
    })
}

const NO_ANSWER: &str = "no answer from elbow_flex: check its cable";

#[test]
fn a_few_failures_are_passed_over() {
    let mut arm = failing(bus(NO_ANSWER), |number| (10..14).contains(&number));
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(30), &mut notes).unwrap();
    assert!(summary.is_success());
    assert_eq!((summary.failures, summary.held), (4, 0));
    assert_eq!(arm.commands().len(), 26, "nothing is sent to an arm that is not seen");
    assert_eq!(notes.told[8].events.len(), 1);
    assert_eq!(notes.told[8].events[0].to_string(), NO_ANSWER);
}

#[test]
fn more_failures_hold_and_the_arm_recovers() {
    let mut arm = failing(bus(NO_ANSWER), |number| (10..40).contains(&number));
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(90), &mut notes).unwrap();
    assert_eq!(summary.end, Reason::Over);
    let told: Vec<_> = notes.lines().into_iter().filter(|line| line.starts_with("the arm")).collect();
    let holds = format!("the arm holds: 5 failures in a row; the last: {NO_ANSWER}");
    // From the fifth failure on, to the first step in which all went well.
    assert_eq!(told, [holds.as_str(), "the arm goes on after 0.9 s"]);
    assert_eq!(summary.held, 27);
}

#[test]
fn failures_without_end_turn_torque_off() {
    let mut arm = failing(bus(NO_ANSWER), |number| number >= 10);
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(9_000), &mut ()).unwrap();
    assert!(matches!(summary.end, Reason::Failures { .. }) && !summary.is_success());
    assert!(summary.end.to_string().contains(NO_ANSWER), "{}", summary.end);
    // 9 good steps less the reading before the first, 4 failures, 5 s of holding.
    assert!(
        summary.duration.abs_diff(Duration::from_secs_f64(12.0 / 30.0 + 5.0)) < Duration::from_millis(40)
    );
    assert!(!arm.torque && summary.torque_may_be_on.is_none());
}

#[test]
fn an_arm_that_is_read_but_cannot_be_told_holds_too() {
    let mut acts = 0;
    let mut arm = Arm::with(move |exchange| match exchange {
        Exchange::Act => {
            acts += 1;
            if acts > 10 { Err(bus(NO_ANSWER)) } else { Ok(()) }
        }
        Exchange::Hold => Err(bus(NO_ANSWER)),
        _ => Ok(()),
    });
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(9_000), &mut ()).unwrap();
    assert!(matches!(summary.end, Reason::Failures { .. }), "{}", summary.end);
    assert_eq!(arm.commands().len(), 10);
    assert!(!arm.torque);
}

#[test]
fn a_lost_cable_ends_the_run_at_once() {
    let lost = RobotError::Disconnected("the USB cable of the arm is out".to_owned());
    let mut arm = failing(lost, |number| number >= 10);
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(9_000), &mut notes).unwrap();
    assert_eq!(summary.end.to_string(), "the USB cable of the arm is out");
    assert_eq!(summary.steps, 9);
    assert_eq!(notes.lines().pop().unwrap(), "torque is off: the USB cable of the arm is out");
}

#[test]
fn readings_that_are_no_numbers_or_too_few_are_failures() {
    for (number, text) in [(0, "joint elbow_flex reads NaN"), (1, "scripted gave 1 positions for 2 joints")] {
        let mut observations = 0;
        let mut arm = Arm::with(move |exchange| {
            if let Exchange::Observe(observation) = exchange {
                observations += 1;
                if observations > 10 && number == 0 {
                    observation.positions[1] = f64::NAN;
                } else if observations > 10 {
                    observation.positions.pop();
                }
            }
            Ok(())
        });
        let summary = run(&mut arm, &mut towards(1.0), &for_steps(9_000), &mut ()).unwrap();
        assert!(summary.end.to_string().contains(text), "{}", summary.end);
    }
}

#[test]
fn an_arm_that_is_read_once_and_never_again_holds() {
    let mut first = None;
    let mut arm = Arm::with(move |exchange| {
        if let Exchange::Observe(observation) = exchange {
            observation.captured = *first.get_or_insert(observation.captured);
        }
        Ok(())
    });
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(9_000), &mut ()).unwrap();
    assert!(matches!(summary.end, Reason::StaleObservation { .. }), "{}", summary.end);
    assert!(arm.commands().iter().all(|(at, _)| *at <= Duration::from_millis(300)));
}

#[test]
fn what_fails_beside_the_joints_holds_the_arm_and_is_told_once() {
    let (mut observations, fault) =
        (0, RobotError::Fault { joint: "elbow_flex".to_owned(), fault: "too hot".to_owned() });
    let mut arm = Arm::with(move |exchange| {
        if let Exchange::Observe(observation) = exchange {
            observations += 1;
            if (10..40).contains(&observations) {
                observation.problems.push(fault.clone());
            }
        }
        Ok(())
    });
    let mut notes = Notes::new(|tick: &Tick<'_>| assert!(tick.observation.is_some() || tick.step == 60));
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(60), &mut notes).unwrap();
    assert_eq!((summary.end, summary.failures, summary.held), (Reason::Over, 30, 31));
    assert_eq!(
        notes.lines(),
        [
            "elbow_flex: too hot",
            "the arm holds: 1 failures in a row; the last: elbow_flex: too hot",
            "the arm goes on after 1.0 s",
            "torque is off: the run is over",
        ]
    );
}

#[test]
fn a_fault_at_the_start_keeps_the_run_from_beginning() {
    let mut arm = Arm::with(|exchange| {
        if let Exchange::Observe(observation) = exchange {
            observation.problems.push(bus(NO_ANSWER));
        }
        Ok(())
    });
    let error = run(&mut arm, &mut towards(1.0), &for_steps(9), &mut ()).unwrap_err();
    assert_eq!(error.to_string(), NO_ANSWER);
    assert!(arm.commands().is_empty() && !arm.torque);
}

#[test]
fn a_source_that_breaks_ends_the_run_as_a_failure() {
    let mut arm = Arm::new();
    let mut asked = 0;
    let mut source = Source::new(|_: &_| {
        asked += 1;
        if asked <= 10 {
            return Next::Act(vec![1.0, 1.0], Origin::Policy);
        }
        Next::Broken("the policy's thread has ended".to_owned())
    });
    let summary = run(&mut arm, &mut source, &DriveOptions::default(), &mut ()).unwrap();
    assert_eq!(summary.end, Reason::Source("the policy's thread has ended".to_owned()));
    assert!(!summary.is_success() && summary.steps == 11 && !arm.torque);
}

#[test]
fn a_source_that_says_no_more_holds_then_ends() {
    let mut arm = Arm::new();
    let mut asked = 0;
    let mut source = Source::new(|_: &_| {
        asked += 1;
        // Once it comes back in time.
        match asked {
            0..30 | 130..160 => Next::Act(vec![1.0, 1.0], Origin::Policy),
            _ => Next::Starved,
        }
    });
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut source, &DriveOptions::default(), &mut notes).unwrap();
    let told: Vec<_> = notes.lines().into_iter().filter(|line| !line.starts_with("no action is")).collect();
    assert_eq!(
        told,
        [
            "the arm holds: no action for 3.0 s",
            "the arm goes on after 0.3 s",
            "the arm holds: no action for 3.0 s",
            "torque is off: no action for 8.0 s",
        ]
    );
    assert!(matches!(summary.end, Reason::NoAction { .. }));
}

/// One thing that a run meets.
#[derive(Debug, Clone)]
enum Mishap {
    Fine,
    Error(RobotError),
    /// Someone moves the arm.
    Pushed(f64),
    Reads(f64),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let cable = "no answer from shoulder_pan: check its cable";
    let fault = || RobotError::Fault { joint: "elbow_flex".to_owned(), fault: "overload: let go".to_owned() };
    prop_oneof![
        80 => Just(Mishap::Fine),
        8 => Just(Mishap::Error(bus(cable))),
        2 => Just(Mishap::Error(fault())),
        1 => Just(Mishap::Error(RobotError::Disconnected("the cable is out".to_owned()))),
        4 => (-150.0..150.0_f64).prop_map(Mishap::Pushed),
        2 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), any::<f64>()].prop_map(Mishap::Reads),
    ]
}

fn answer() -> impl Strategy<Value = Next> {
    let number = || {
        prop_oneof![
            6 => -200.0..200.0_f64,
            1 => any::<f64>(),
            1 => prop_oneof![Just(f64::NAN), Just(f64::MAX), Just(f64::NEG_INFINITY), Just(5e-324)],
        ]
    };
    prop_oneof![
        10 => (number(), number()).prop_map(|(pan, elbow)| Next::Act(vec![pan, elbow], Origin::Policy)),
        1 => Just(Next::Act(vec![0.0], Origin::Policy)),
        1 => Just(Next::Starved),
        1 => Just(Next::Waiting),
    ]
}

/// What the arm was told keeps to all limits, by its own log.
fn keeps_to_limits(calls: &[Call], sends: u32) -> Result<(), TestCaseError> {
    let (step, change, tolerance) = (6.0, 2.0 / f64::from(sends), 1e-9);
    let mut observed = vec![0.0, 0.0];
    // Where the goal may have started from: the first reading, the last command, or any reading since a hold.
    let (mut starts, mut held): (Vec<Vec<f64>>, bool) = (Vec::new(), false);
    for call in calls {
        match call {
            // Drivers may say anything; the loop believes only finite numbers.
            Call::Observe(positions) if positions.iter().all(|position| position.is_finite()) => {
                observed.clone_from(positions);
                if starts.is_empty() || held {
                    starts.push(positions.clone());
                }
            }
            Call::Act(_, goal) => {
                for joint in 0..2 {
                    let (goal, observed) = (goal[joint], observed[joint]);
                    prop_assert!((-90.0..=90.0).contains(&goal));
                    let least = (observed - step).clamp(-90.0, 90.0) - tolerance;
                    let largest = (observed + step).clamp(-90.0, 90.0) + tolerance;
                    let is_near = (least..=largest).contains(&goal);
                    let allowed = starts.iter().any(|start| {
                        let start = start[joint].clamp(-90.0, 90.0);
                        let moved = (goal - start).abs();
                        let enough = if sends == 1 { change - tolerance } else { 0.0 };
                        let follows_it = moved >= enough && (goal > start) == (observed > start);
                        moved <= change + tolerance && (is_near || follows_it)
                    });
                    prop_assert!(allowed, "{} after {:?} at {}", goal, starts, observed);
                }
                (starts, held) = (vec![goal.clone()], false);
            }
            Call::Hold(_) => (starts, held) = (Vec::new(), true),
            Call::Observe(_) | Call::Connect | Call::Stop(_) => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_the_arm_is_safe(
        mishaps in prop::collection::vec(mishap(), 1..120),
        answers in prop::collection::vec(answer(), 1..40),
        sends in 1_u32..4,
        dead_from in prop::option::weighted(0.2, 0_usize..200),
    ) {
        let mut exchanges = 0;
        let mut arm = Arm::with(move |exchange| {
            exchanges += 1;
            let last = matches!(exchange, Exchange::Stop);
            if dead_from.is_some_and(|from| exchanges > from) && !last {
                return Err(bus("no answer from any servo: check the cable and the power plug"));
            }
            match (&mishaps[exchanges % mishaps.len()], exchange) {
                (Mishap::Error(error), _) if !last => return Err(error.clone()),
                (Mishap::Pushed(by), Exchange::Observe(observation)) => observation.positions[0] += by,
                (Mishap::Reads(value), Exchange::Observe(observation)) => observation.positions[1] = *value,
                _ => {}
            }
            Ok(())
        });
        let mut asked = 0;
        let mut source = Source::new(|_: &_| {
            asked += 1;
            answers[asked % answers.len()].clone()
        });
        let options = DriveOptions { send_hz: Some(30.0 * f64::from(sends)), ..for_steps(240) };
        let mut notes = Notes::new(|_: &Tick<'_>| ());
        match run(&mut arm, &mut source, &options, &mut notes) {
            Ok(summary) => {
                let said = summary.end.to_string();
                match summary.end {
                    Reason::Failures { .. } | Reason::Lost(_) => {
                        let named = ["shoulder_pan", "elbow_flex", "cable"].iter().any(|name| said.contains(name));
                        prop_assert!(named, "{}", said);
                    }
                    Reason::Over | Reason::NoAction { .. } | Reason::StaleObservation { .. } => {}
                    _ => prop_assert!(false, "{}", said),
                }
                prop_assert!(summary.torque_may_be_on.is_none());
                prop_assert_eq!(notes.ended, Some(summary));
            }
            Err(error) => {
                let said = error.to_string();
                let named = ["shoulder_pan", "elbow_flex", "cable"].iter().any(|name| said.contains(name));
                prop_assert!(named, "{}", said);
                prop_assert!(arm.commands().is_empty());
            }
        }
        prop_assert!(!arm.torque);
        let calls = arm.calls();
        prop_assert!(matches!(calls.last(), Some(Call::Stop(_))));
        keeps_to_limits(&calls, sends)?;
    }
}
