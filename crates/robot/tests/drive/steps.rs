use std::time::Duration;

use skillweld_robot::{
    DriveError, DriveOptions, DryRun, Event, Next, Origin, Reason, Replay, Robot, StopSwitch, Unit,
    drive_by_clock,
};

use crate::arm::{Arm, Call, Exchange, Notes, Source, for_steps, run, towards};

/// One step up and one down, slowly enough for all limits.
fn staircase(steps: usize) -> Vec<Vec<f64>> {
    (0..steps).map(|step| vec![step as f64, -(step as f64)]).collect()
}

#[test]
fn a_recording_is_played_step_by_step() {
    let mut arm = Arm::new();
    let names = Some(vec!["shoulder_pan.pos".to_owned(), "elbow_flex.pos".to_owned()]);
    let mut replay = Replay::new(staircase(20), names, Some(vec![Unit::Degrees; 2]));
    let mut notes = Notes::new(|_: &_| ());
    let summary = run(&mut arm, &mut replay, &DriveOptions::default(), &mut notes).unwrap();

    assert_eq!((summary.end.clone(), summary.steps, summary.skipped), (Reason::Over, 21, 0));
    assert!(summary.is_success() && !arm.torque);
    assert_eq!(notes.ended, Some(summary));
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal).collect();
    assert_eq!(goals, staircase(20));
    for (step, told) in notes.told[..20].iter().enumerate() {
        assert_eq!((told.step, told.origin, told.running), (step as u64, Origin::Replay, true));
        assert_eq!(told.time, Duration::from_secs_f64(step as f64 / 30.0));
        assert_eq!(told.sent.as_ref(), Some(&staircase(20)[step]));
        assert_eq!(told.raw, told.sent);
    }
    assert_eq!(notes.lines(), ["torque is off: the run is over"]);
    let calls = arm.calls();
    assert_eq!(calls[0], Call::Connect);
    assert!(matches!(calls[calls.len() - 2..], [Call::Hold(held), Call::Stop(stopped)] if held == stopped));
}

#[test]
fn a_recording_that_begins_elsewhere_is_gone_to_slowly_and_then_played() {
    let mut arm = Arm { positions: vec![-19.9, 3.0], ..Arm::new() };
    let recorded: Vec<_> = staircase(10).into_iter().map(|goal| vec![goal[0], goal[1] + 3.0]).collect();
    let mut replay = Replay::new(recorded.clone(), None, None);
    let mut notes = Notes::new(|_: &_| ());
    let summary = run(&mut arm, &mut replay, &DriveOptions::default(), &mut notes).unwrap();
    assert_eq!(summary.end, Reason::Over);
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal).collect();
    let (way, played) = goals.split_at(goals.len() - 10);
    // A sixth of 60 °/s, until the arm is as near as it gets in a tenth of a second at full speed: 14° in 1.4 s.
    assert_eq!(way.len(), 42);
    for (number, goal) in (1..).zip(way) {
        assert!((goal[0] - (-19.9 + f64::from(number) / 3.0)).abs() < 1e-6 && goal[1] == 3.0, "{goal:?}");
    }
    // From there at full speed, 2° a step, until it has caught up.
    let caught_up: Vec<_> =
        played.iter().zip(&recorded).skip_while(|(sent, wanted)| sent != wanted).collect();
    assert_eq!(caught_up.len(), 6, "{played:?}");
    assert!(caught_up.iter().all(|(sent, wanted)| sent == wanted));
    let text = "the arm goes slowly to where its actions begin: shoulder_pan is 19.9 degrees away";
    assert_eq!(notes.told[0].events[0].to_string(), text);
}

#[test]
fn a_jump_becomes_a_walk() {
    let mut arm = Arm::new();
    let mut notes = Notes::new(|_: &_| ());
    let summary = run(&mut arm, &mut towards(500.0), &for_steps(60), &mut notes).unwrap();
    let pan: Vec<_> = arm.commands().iter().map(|(_, goal)| goal[0]).collect();
    let walk: Vec<_> = (1..=60).map(|step| f64::from(2 * step).min(90.0)).collect();
    assert_eq!(pan, walk);
    assert_eq!(summary.clamped, [("shoulder_pan".to_owned(), 60), ("elbow_flex".to_owned(), 60)]);
    let of_pan: Vec<_> = notes.lines().into_iter().filter(|line| line.starts_with("shoulder_pan")).collect();
    assert_eq!(
        of_pan,
        [
            "shoulder_pan is told 2.00 instead of 500.00 degrees: its largest velocity",
            "shoulder_pan is told 90.00 instead of 500.00 degrees: its range",
        ]
    );
    assert_eq!(notes.told[0].raw, Some(vec![500.0, 500.0]));
}

#[test]
fn what_is_no_number_is_not_sent() {
    let mut arm = Arm::new();
    let mut step = 0;
    let mut source = Source::new(|_: &_| {
        step += 1;
        Next::Act(vec![1.0, if step % 2 == 0 { f64::NAN } else { 1.0 }], Origin::Policy)
    });
    let mut notes = Notes::new(|_: &_| ());
    let summary = run(&mut arm, &mut source, &for_steps(10), &mut notes).unwrap();
    assert_eq!(summary.refused, 5);
    assert_eq!(notes.lines()[0], "an action is NaN for joint elbow_flex: it is not sent");
    assert!(notes.told[1].raw.as_ref().unwrap()[1].is_nan());
    assert_eq!(
        (notes.told[1].origin, notes.told[1].sent.as_deref()),
        (Origin::Hold, Some([1.0, 1.0].as_slice()))
    );
    assert!(arm.commands().iter().all(|(_, goal)| goal == &[1.0, 1.0]));
}

#[test]
fn the_last_command_is_repeated_when_nothing_comes() {
    let mut arm = Arm::new();
    let mut answers = vec![Next::Waiting; 3];
    answers.extend((0..4).map(|_| Next::Act(vec![1.5, -1.5], Origin::Policy)));
    answers.extend(vec![Next::Starved; 5]);
    answers.push(Next::Finished);
    let mut answers = answers.into_iter();
    let mut source = Source::new(|_: &_| answers.next().unwrap());
    let mut notes = Notes::new(|_: &_| ());
    let summary = run(&mut arm, &mut source, &DriveOptions::default(), &mut notes).unwrap();
    assert_eq!((summary.waited, summary.starved, summary.steps), (3, 5, 13));
    let mut goals = vec![vec![0.0, 0.0]; 3];
    goals.extend(vec![vec![1.5, -1.5]; 9]);
    assert_eq!(arm.commands().into_iter().map(|(_, goal)| goal).collect::<Vec<_>>(), goals);
    assert_eq!(notes.lines()[0], "no action is there: the last command is repeated");
    assert_eq!(notes.lines().len(), 2, "told once: {:?}", notes.lines());
}

#[test]
fn commands_may_be_more_frequent_than_steps() {
    let mut arm = Arm::new();
    let options = DriveOptions { send_hz: Some(120.0), ..for_steps(10) };
    run(&mut arm, &mut towards(100.0), &options, &mut ()).unwrap();
    let commands = arm.commands();
    assert_eq!(commands.len(), 40);
    for (number, (at, goal)) in commands.iter().enumerate() {
        assert_eq!(*at, Duration::from_secs_f64(number as f64 / 120.0));
        assert!((goal[0] - 0.5 * (number + 1) as f64).abs() < 1e-12, "{goal:?} at {number}");
    }
    let options = DriveOptions { send_hz: Some(50.0), ..for_steps(10) };
    let error = run(&mut arm, &mut towards(0.0), &options, &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "50 commands a second: give a multiple of 30, at most 1000");
}

#[test]
fn commands_whose_time_has_passed_are_left_out() {
    let mut arm = Arm::new();
    let clock = arm.clock.clone();
    arm.script = Box::new(move |exchange| {
        if matches!(exchange, Exchange::Act) {
            clock.advance(Duration::from_millis(12));
        }
        Ok(())
    });
    let options = DriveOptions { send_hz: Some(120.0), ..for_steps(4) };
    let summary = run(&mut arm, &mut towards(100.0), &options, &mut ()).unwrap();
    // Of four commands, 8.3 ms apart, the second ends after the third's time, and so on: the goal itself is always sent.
    let commands: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal[0]).collect();
    for step in 1..=4 {
        assert!(commands.contains(&f64::from(2 * step)), "{commands:?}");
    }
    assert!(commands.len() < 16 && commands.is_sorted(), "{commands:?}");
    assert_eq!((summary.steps, summary.skipped), (4, 0));
}

#[test]
fn steps_that_take_too_long_leave_others_out() {
    let mut arm = Arm::new();
    let (clock, mut observed) = (arm.clock.clone(), 0);
    arm.script = Box::new(move |exchange| {
        if let Exchange::Observe(observation) = exchange {
            observed += 1;
            // The first reading is before the loop.
            if observed == 6 {
                clock.advance(Duration::from_millis(130));
                observation.captured += Duration::from_millis(130);
            }
        }
        Ok(())
    });
    let mut notes = Notes::new(|_: &_| ());
    let summary = run(&mut arm, &mut towards(0.0), &for_steps(30), &mut notes).unwrap();
    // Step 4 ends 130 ms, 3.9 periods, after its deadline: the nearest deadline is the fourth after.
    let steps: Vec<_> = notes.told.iter().map(|told| told.step).collect();
    assert_eq!(steps[..7], [0, 1, 2, 3, 4, 8, 9]);
    assert_eq!((summary.skipped, summary.overruns, summary.steps), (3, 1, 27));
    let observe = Duration::from_millis(130);
    assert_eq!(summary.sections.worst(), ("observe", observe));
    assert_eq!(notes.told[5].events, [Event::Overrun { skipped: 3, section: "observe", took: observe }]);
    assert!(summary.lateness.max() < Duration::from_micros(1), "steps begin in time again");
}

#[test]
fn an_arm_far_outside_its_range_is_not_driven() {
    let mut arm = Arm { positions: vec![0.0, 97.0], ..Arm::new() };
    let error = run(&mut arm, &mut towards(0.0), &for_steps(5), &mut ()).unwrap_err();
    let text = "joint elbow_flex stands at 97.0 degrees, outside of its range -90.0 to 90.0: move it inside by hand, or \
                calibrate again";
    assert_eq!(error.to_string(), text);
    assert!(arm.commands().is_empty() && !arm.torque);
    assert!(matches!(arm.calls().last(), Some(Call::Stop(_))));
}

#[test]
fn who_disagrees_or_makes_no_sense_never_connects() {
    let mut arm = Arm::new();
    let mut replay = Replay::new(staircase(3), None, Some(vec![Unit::Centred; 2]));
    let error = run(&mut arm, &mut replay, &DriveOptions::default(), &mut ()).unwrap_err();
    assert!(matches!(error, DriveError::Disagreement(_)));
    assert!(error.to_string().ends_with("set the arm to centred"), "{error}");
    for options in [
        DriveOptions { hz: f64::NAN, ..DriveOptions::default() },
        DriveOptions { hz: 0.0, ..DriveOptions::default() },
        DriveOptions { max_step: Some(vec![1.0]), ..DriveOptions::default() },
    ] {
        let error = run(&mut arm, &mut towards(0.0), &options, &mut ()).unwrap_err();
        assert!(matches!(error, DriveError::Options(_)), "{error}");
    }
    assert!(arm.calls().is_empty());
}

#[test]
fn a_dry_run_moves_nothing_and_says_what_it_would() {
    let arm = Arm::new();
    let (clock, log) = (arm.clock.clone(), arm.log.clone());
    let mut dry = DryRun::new(arm);
    let mut source = towards(100.0);
    let summary =
        drive_by_clock(&mut dry, &mut source, &for_steps(30), &mut (), &StopSwitch::new(), &clock).unwrap();
    assert!(summary.is_success());
    assert!(
        log.lock()
            .unwrap()
            .iter()
            .all(|call| matches!(call, Call::Connect | Call::Observe(_) | Call::Stop(_)))
    );
    let report = dry.report();
    assert_eq!(report.commands, 30);
    let pan = &report.joints[0];
    assert_eq!((pan.name.as_str(), pan.first, pan.last, pan.largest_change), ("shoulder_pan", 2.0, 6.0, 2.0));
    assert_eq!((pan.least, pan.largest), (2.0, 6.0));
    assert_eq!(dry.describe().kind, "scripted");
}
