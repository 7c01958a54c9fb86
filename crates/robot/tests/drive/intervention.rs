use std::sync::{Arc, Mutex};

use skillweld_robot::{
    ActionSource, Description, Disagreement, Event, Leader, Moment, Next, Origin, Reason, RobotError,
    StopSwitch, Tick, Unit, WithLeader, drive_by_clock,
};

use crate::arm::{Arm, Call, Exchange, Notes, bus, for_steps, run};

/// A leader that a hand moves by 1° a reading, and that shows whether it was told anything.
fn led() -> Arm {
    let mut readings = 0;
    Arm::with(move |exchange| {
        match exchange {
            Exchange::Observe(observation) => {
                readings += 1;
                observation.positions = vec![f64::from(readings), 0.0];
            }
            Exchange::Act | Exchange::Hold => panic!("a leader is told nothing"),
            Exchange::Connect | Exchange::Stop => {}
        }
        Ok(())
    })
}

#[test]
fn a_leader_is_followed() {
    let (mut arm, leader) = (Arm::new(), led());
    let log = Arc::clone(&leader.log);
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut Leader::new(leader), &for_steps(20), &mut notes).unwrap();
    assert_eq!((summary.end, summary.interventions), (Reason::Over, 0));
    assert!(notes.told[..20].iter().all(|told| told.origin == Origin::Leader));
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal[0]).collect();
    assert_eq!(goals, (1..=20).map(f64::from).collect::<Vec<_>>());
    let log = log.lock().unwrap();
    assert!(matches!((&log[0], log.last()), (Call::Connect, Some(Call::Stop(_)))));
}

#[test]
fn a_leader_that_cannot_be_read_is_told_once_and_the_arm_stays() {
    let mut arm = Arm::new();
    let mut readings = 0;
    let leader = Arm::with(move |exchange| {
        if let Exchange::Observe(observation) = exchange {
            readings += 1;
            if (5..10).contains(&readings) {
                return Err(bus("no answer from wrist_roll: check its cable"));
            }
            observation.positions = vec![1.0, 1.0];
        }
        Ok(())
    });
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut Leader::new(leader), &for_steps(20), &mut notes).unwrap();
    assert_eq!(summary.starved, 5);
    assert_eq!(notes.lines()[0], "leader arm: no answer from wrist_roll: check its cable");
    assert_eq!(notes.lines().len(), 3, "with the starving, and the end: {:?}", notes.lines());
}

#[test]
fn a_leader_with_other_units_is_refused() {
    let mut leader = led();
    leader.description.joints[1].unit = Unit::Centred;
    let error = run(&mut Arm::new(), &mut Leader::new(leader), &for_steps(2), &mut ()).unwrap_err();
    let text = "the leader arm's actions are centred, joint elbow_flex of scripted is set to degrees: set the arm to centred";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_leader_that_does_not_connect_leaves_the_arm_alone() {
    let leader = Arm::with(|_| Err(RobotError::Connect("no leader at /dev/ttyACM1".to_owned())));
    let mut arm = Arm::new();
    let error = run(&mut arm, &mut Leader::new(leader), &for_steps(2), &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "no leader at /dev/ttyACM1");
    assert!(!arm.calls().contains(&Call::Connect));
}

/// A policy that wants −1°, and counts interruptions.
struct Policy(Arc<Mutex<u32>>);

impl ActionSource for Policy {
    fn agree(&self, _robot: &Description) -> Result<(), Disagreement> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), RobotError> {
        Ok(())
    }

    fn next(&mut self, _moment: &Moment<'_>, _events: &mut Vec<Event>) -> Next {
        Next::Act(vec![-1.0, 0.0], Origin::Policy)
    }

    fn interrupt(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn what_was_planned_before_a_hold_is_void() {
    let (mut arm, switch, interruptions) = (Arm::new(), StopSwitch::new(), Arc::default());
    let clock = arm.clock.clone();
    let mut source = Policy(Arc::clone(&interruptions));
    let mut notes = Notes::new(|tick: &Tick<'_>| switch.hold((10..20).contains(&tick.step)));
    drive_by_clock(&mut arm, &mut source, &for_steps(30), &mut notes, &switch, &clock).unwrap();
    assert_eq!(*interruptions.lock().unwrap(), 1);
}

/// A leader that lies at one place.
fn lying(pan: f64) -> Arm {
    Arm { positions: vec![pan, 0.0], ..Arm::new() }
}

#[test]
fn a_leader_that_is_far_away_is_come_to_slowly() {
    let (mut arm, switch) = (Arm::new(), StopSwitch::new());
    let clock = arm.clock.clone();
    let policy = Policy(Arc::default());
    let mut source = WithLeader::new(policy, Leader::new(lying(28.9)), switch.clone());
    let mut notes = Notes::new(|tick: &Tick<'_>| switch.intervene(tick.step >= 9));
    drive_by_clock(&mut arm, &mut source, &for_steps(120), &mut notes, &switch, &clock).unwrap();
    let text = "the arm goes slowly to where its actions begin: shoulder_pan is 29.9 degrees away";
    assert_eq!(notes.told[10].events[0], Event::InterventionBegins);
    assert_eq!(notes.told[10].events[1].to_string(), text);
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal[0]).collect();
    // 10 °/s for 24°, then the rest at full speed; a period has whole nanoseconds.
    for (number, goal) in (1..=72).zip(&goals[10..]) {
        assert!((goal - (-1.0 + f64::from(number) / 3.0)).abs() < 1e-6, "{goal} after {number} steps");
    }
    assert!((goals[82] - 25.0).abs() < 1e-6 && goals[84..] == [28.9; 36], "{:?}", &goals[80..90]);
}

#[test]
fn after_a_hold_a_leader_is_come_to_slowly_again() {
    let (mut arm, switch) = (Arm::new(), StopSwitch::new());
    let clock = arm.clock.clone();
    let mut readings = 0;
    let leader = Arm::with(move |exchange| {
        if let Exchange::Observe(observation) = exchange {
            readings += 1;
            // While the arm holds the leader is not read, and is moved elsewhere.
            observation.positions[0] = if readings > 10 { 60.0 } else { 0.0 };
        }
        Ok(())
    });
    let mut notes = Notes::new(|tick: &Tick<'_>| switch.hold((9..19).contains(&tick.step)));
    let mut source = Leader::new(leader);
    drive_by_clock(&mut arm, &mut source, &for_steps(50), &mut notes, &switch, &clock).unwrap();
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal[0]).collect();
    assert_eq!((goals.len(), goals[9]), (40, 0.0));
    assert!((goals[39] - 10.0).abs() < 1e-6, "30 steps of a third of a degree: {goals:?}");
}

#[test]
fn a_person_corrects_and_the_policy_goes_on() {
    let (mut arm, switch, interruptions) = (Arm::new(), StopSwitch::new(), Arc::default());
    let clock = arm.clock.clone();
    let mut source = WithLeader::new(Policy(Arc::clone(&interruptions)), Leader::new(led()), switch.clone());
    let mut notes = Notes::new(|tick: &Tick<'_>| match tick.step {
        9 => switch.intervene(true),
        19 => switch.intervene(false),
        _ => {}
    });
    let options = for_steps(30);
    let summary = drive_by_clock(&mut arm, &mut source, &options, &mut notes, &switch, &clock).unwrap();
    assert_eq!(summary.interventions, 10);
    assert_eq!(*interruptions.lock().unwrap(), 2, "at its beginning and at its end");
    let origins: Vec<_> = notes.told[..30].iter().map(|told| told.origin).collect();
    let tagged =
        [vec![Origin::Policy; 10], vec![Origin::Intervention; 10], vec![Origin::Policy; 10]].concat();
    assert_eq!(origins, tagged);
    assert_eq!(notes.told[10].events[0], Event::InterventionBegins);
    assert_eq!(notes.told[20].events[0], Event::InterventionEnds);
    // From −1° towards the hand at 2° a step, then with it, then back.
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal[0]).collect();
    assert_eq!(goals[8..14], [-1.0, -1.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(goals[19..23], [10.0, 8.0, 6.0, 4.0]);
}
