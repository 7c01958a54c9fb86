use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use skillweld_robot::{
    Clock, DriveError, DriveOptions, Next, Observer, Origin, Reason, RobotError, StopSwitch, Tick,
    drive_by_clock,
};

use crate::arm::{Arm, Call, Exchange, Notes, Source, bus, for_steps, run, towards};
use crate::clock::VirtualClock;

#[test]
fn a_stop_ends_the_run_within_a_period() {
    // Every part of a step is where someone may ask.
    for part in ["between", "observe", "decide", "act"] {
        let mut arm = Arm::new();
        let switch = StopSwitch::new();
        let (clock, flag) = (arm.clock.clone(), switch.stop_flag());
        let asked = Duration::from_secs(1);
        let stop = {
            let clock = clock.clone();
            move |here: &str| {
                if here == part && clock.passed() >= asked {
                    flag.store(true, Ordering::SeqCst);
                }
            }
        };
        let in_script = stop.clone();
        arm.script = Box::new(move |exchange| {
            match exchange {
                Exchange::Observe(_) => in_script("observe"),
                Exchange::Act => in_script("act"),
                _ => {}
            }
            Ok(())
        });
        let in_source = stop.clone();
        let mut source = Source::new(move |_: &_| {
            in_source("decide");
            Next::Act(vec![1.0, 1.0], Origin::Policy)
        });
        let mut notes = Notes::new(|_: &Tick<'_>| stop("between"));
        let options = DriveOptions::default();
        let summary = drive_by_clock(&mut arm, &mut source, &options, &mut notes, &switch, &clock).unwrap();
        assert_eq!(summary.end, Reason::Stopped);
        assert!(summary.is_success() && !arm.torque);
        let calls = arm.calls();
        let [.., Call::Hold(_), Call::Stop(at)] = &calls[..] else { panic!("{part}: {calls:?}") };
        assert!(*at <= asked + Duration::from_millis(34), "{part}: {at:?}");
        assert!(arm.commands().iter().all(|(at, _)| *at <= asked), "{part}: nothing is sent after a stop");
    }
}

/// Someone asks for a stop while the loop sleeps.
struct Alarm {
    clock: VirtualClock,
    at: Duration,
    switch: StopSwitch,
}

impl Clock for Alarm {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn nap(&self, time: Duration) {
        self.sleep_until(self.now() + time);
    }

    fn sleep_until(&self, deadline: Instant) {
        self.clock.sleep_until(deadline);
        if self.clock.passed() >= self.at {
            self.switch.stop();
        }
    }
}

#[test]
fn a_stop_does_not_wait_for_a_slow_loops_next_step() {
    let mut arm = Arm::new();
    let (switch, at) = (StopSwitch::new(), Duration::from_millis(4_500));
    let clock = Alarm { clock: arm.clock.clone(), at, switch: switch.clone() };
    let options = DriveOptions { hz: 0.5, ..DriveOptions::default() };
    let summary = drive_by_clock(&mut arm, &mut towards(1.0), &options, &mut (), &switch, &clock).unwrap();
    assert_eq!((summary.end, summary.steps), (Reason::Stopped, 3));
    assert!(summary.duration <= at + Duration::from_millis(10), "{:?}", summary.duration);
}

#[test]
fn a_hold_is_kept_until_it_is_taken_back() {
    let mut arm = Arm::new();
    let switch = StopSwitch::new();
    let clock = arm.clock.clone();
    let mut notes = Notes::new(|tick: &Tick<'_>| match tick.step {
        9 => switch.hold(true),
        // Far longer than any limit.
        3_000 => switch.hold(false),
        _ => {}
    });
    let options = for_steps(3_020);
    let summary =
        drive_by_clock(&mut arm, &mut towards(10.0), &options, &mut notes, &switch, &clock).unwrap();
    assert_eq!((summary.end, summary.held), (Reason::Over, 2_991));
    let commands = arm.commands();
    assert_eq!(commands.len(), 10 + 19);
    assert_eq!(
        arm.calls().iter().filter(|call| matches!(call, Call::Hold(_))).count(),
        2,
        "once, and at the end"
    );
    assert_eq!(
        notes.lines()[2..],
        [
            "the arm holds: hold was asked for",
            "the arm goes on after 99.7 s",
            "torque is off: the run is over"
        ]
    );
    assert!(
        notes.told[10..3_001].iter().all(|told| !told.running && told.sent.is_none() && told.raw.is_none())
    );
}

#[test]
fn after_a_hold_the_arm_goes_on_from_where_it_stands() {
    let mut arm = Arm::new();
    let switch = StopSwitch::new();
    let clock = arm.clock.clone();
    let mut readings = 0;
    arm.script = Box::new(move |exchange| {
        if let Exchange::Observe(observation) = exchange {
            readings += 1;
            if readings > 20 {
                // Someone has moved it by hand.
                observation.positions[0] -= 50.0;
            }
        }
        Ok(())
    });
    let mut notes = Notes::new(|tick: &Tick<'_>| match tick.step {
        9 => switch.hold(true),
        29 => switch.hold(false),
        _ => {}
    });
    drive_by_clock(&mut arm, &mut towards(10.0), &for_steps(31), &mut notes, &switch, &clock).unwrap();
    let goals: Vec<_> = arm.commands().into_iter().map(|(_, goal)| goal[0]).collect();
    assert_eq!(goals[9..], [10.0, -38.0], "2° from where it stands, −40°");
}

struct Panics;

impl Observer for Panics {
    fn tick(&mut self, tick: &Tick<'_>) {
        assert!(tick.step < 5, "as tests of panics do");
    }
}

#[test]
fn torque_goes_off_when_the_loop_panics() {
    let mut arm = Arm::new();
    let result =
        catch_unwind(AssertUnwindSafe(|| run(&mut arm, &mut towards(1.0), &for_steps(9), &mut Panics)));
    assert!(result.is_err());
    assert!(!arm.torque && matches!(arm.calls().last(), Some(Call::Stop(_))));
}

#[test]
fn torque_goes_off_when_connecting_fails() {
    let mut arm = Arm::with(|exchange| match exchange {
        Exchange::Connect => Err(RobotError::Connect("servo 3 (elbow_flex) does not answer".to_owned())),
        _ => Ok(()),
    });
    let error = run(&mut arm, &mut towards(1.0), &for_steps(9), &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "servo 3 (elbow_flex) does not answer");
    assert!(matches!(arm.calls()[..], [Call::Stop(_)]));
}

#[test]
fn torque_that_stays_on_is_told() {
    let dead = |exchange: Exchange<'_>| match exchange {
        Exchange::Stop => Err(bus("torque of elbow_flex is on: pull the power plug")),
        _ => Ok(()),
    };
    let mut arm = Arm::with(dead);
    let mut notes = Notes::new(|_: &Tick<'_>| ());
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(9), &mut notes).unwrap();
    assert!(!summary.is_success());
    assert_eq!(summary.torque_may_be_on, Some(bus("torque of elbow_flex is on: pull the power plug")));
    let last = notes.lines().pop().unwrap();
    assert_eq!(last, "torque may still be on: torque of elbow_flex is on: pull the power plug");

    let mut arm = Arm::with(dead);
    arm.positions[0] = 200.0;
    let error = run(&mut arm, &mut towards(1.0), &for_steps(9), &mut ()).unwrap_err();
    assert!(matches!(error, DriveError::TorqueMayBeOn { .. }));
    assert!(
        error.to_string().contains("shoulder_pan") && error.to_string().contains("elbow_flex"),
        "{error}"
    );
}

#[test]
fn turning_torque_off_is_tried_twice() {
    let mut tries = 0;
    let mut arm = Arm::with(move |exchange| {
        if matches!(exchange, Exchange::Stop) {
            tries += 1;
            return if tries == 1 { Err(bus("noise on the cable")) } else { Ok(()) };
        }
        Ok(())
    });
    let summary = run(&mut arm, &mut towards(1.0), &for_steps(9), &mut ()).unwrap();
    assert!(summary.is_success() && !arm.torque);
}
