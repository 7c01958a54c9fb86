use std::sync::{Arc, Mutex};
use std::time::Duration;

use skillweld_robot::{
    ActionSource, Clock, Description, Disagreement, DriveError, DriveOptions, Event, Joint, Moment, Next,
    Observation, Observer, Origin, Robot, RobotError, State, StopSwitch, Summary, Tick, Unit, drive_by_clock,
};

use crate::clock::VirtualClock;

/// What an arm was asked to do, with when; failures are not among them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Connect,
    Observe(Vec<f64>),
    Act(Duration, Vec<f64>),
    Hold(Duration),
    Stop(Duration),
}

/// What an arm is about to do.
#[derive(Debug)]
pub(crate) enum Exchange<'a> {
    Connect,
    Observe(&'a mut Observation),
    Act,
    Hold,
    Stop,
}

/// Says what goes wrong, changes what is observed, lets time pass.
pub(crate) type Script = Box<dyn FnMut(Exchange<'_>) -> Result<(), RobotError> + Send>;

pub(crate) type Log = Arc<Mutex<Vec<Call>>>;

/// An arm in memory that is where it was told to be.
pub(crate) struct Arm {
    pub(crate) description: Description,
    pub(crate) clock: VirtualClock,
    pub(crate) log: Log,
    pub(crate) script: Script,
    pub(crate) positions: Vec<f64>,
    pub(crate) torque: bool,
}

impl Arm {
    /// Two joints of −90 … 90°, 60 °/s: 2° a step of 30 Hz, at most 6° from where they are.
    pub(crate) fn new() -> Self {
        let joint = |name: &str| Joint {
            name: name.to_owned(),
            unit: Unit::Degrees,
            min: -90.0,
            max: 90.0,
            max_velocity: 60.0,
        };
        let joints = vec![joint("shoulder_pan"), joint("elbow_flex")];
        Self {
            description: Description { kind: "scripted".to_owned(), joints, cameras: Vec::new() },
            clock: VirtualClock::new(),
            log: Log::default(),
            script: Box::new(|_| Ok(())),
            positions: vec![0.0, 0.0],
            torque: false,
        }
    }

    pub(crate) fn with(script: impl FnMut(Exchange<'_>) -> Result<(), RobotError> + Send + 'static) -> Self {
        Self { script: Box::new(script), ..Self::new() }
    }

    fn note(&self, call: Call) {
        self.log.lock().unwrap().push(call);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.log.lock().unwrap().clone()
    }

    /// What it was told, with when.
    pub(crate) fn commands(&self) -> Vec<(Duration, Vec<f64>)> {
        let acts = self.calls().into_iter().filter_map(|call| match call {
            Call::Act(at, goal) => Some((at, goal)),
            _ => None,
        });
        acts.collect()
    }
}

impl Robot for Arm {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        (self.script)(Exchange::Connect)?;
        self.torque = true;
        self.note(Call::Connect);
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        let (captured, positions) = (self.clock.now(), self.positions.clone());
        let mut observation = Observation { captured, positions, frames: Vec::new(), problems: Vec::new() };
        (self.script)(Exchange::Observe(&mut observation))?;
        self.note(Call::Observe(observation.positions.clone()));
        Ok(observation)
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        (self.script)(Exchange::Act)?;
        assert!(self.torque, "told to move without torque");
        self.positions = positions.to_vec();
        self.note(Call::Act(self.clock.passed(), positions.to_vec()));
        Ok(())
    }

    fn hold(&mut self) -> Result<(), RobotError> {
        (self.script)(Exchange::Hold)?;
        self.note(Call::Hold(self.clock.passed()));
        Ok(())
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        (self.script)(Exchange::Stop)?;
        self.torque = false;
        self.note(Call::Stop(self.clock.passed()));
        Ok(())
    }
}

/// A source that a closure stands for.
pub(crate) struct Source<F>(F);

impl<F: FnMut(&Moment<'_>) -> Next> Source<F> {
    pub(crate) fn new(next: F) -> Self {
        Self(next)
    }
}

impl<F: FnMut(&Moment<'_>) -> Next> ActionSource for Source<F> {
    fn agree(&self, _robot: &Description) -> Result<(), Disagreement> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), RobotError> {
        Ok(())
    }

    fn next(&mut self, moment: &Moment<'_>, _events: &mut Vec<Event>) -> Next {
        (self.0)(moment)
    }
}

/// Both joints to one place, always.
pub(crate) fn towards(goal: f64) -> Source<impl FnMut(&Moment<'_>) -> Next> {
    Source::new(move |_: &Moment<'_>| Next::Act(vec![goal, goal], Origin::Policy))
}

/// What was told of one step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) step: u64,
    pub(crate) time: Duration,
    pub(crate) raw: Option<Vec<f64>>,
    pub(crate) sent: Option<Vec<f64>>,
    pub(crate) origin: Origin,
    pub(crate) running: bool,
    pub(crate) events: Vec<Event>,
}

/// Remembers what it is told, and does something at every step.
pub(crate) struct Notes<F> {
    pub(crate) told: Vec<Told>,
    pub(crate) ended: Option<Summary>,
    pub(crate) each: F,
}

impl<F: FnMut(&Tick<'_>)> Notes<F> {
    pub(crate) fn new(each: F) -> Self {
        Self { told: Vec::new(), ended: None, each }
    }

    /// All events, as they would stand in a log.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.told.iter().flat_map(|told| &told.events).map(ToString::to_string).collect()
    }
}

impl<F: FnMut(&Tick<'_>)> Observer for Notes<F> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.told.push(Told {
            step: tick.step,
            time: tick.time,
            raw: tick.raw.map(<[f64]>::to_vec),
            sent: tick.sent.map(<[f64]>::to_vec),
            origin: tick.origin,
            running: *tick.state == State::Running,
            events: tick.events.to_vec(),
        });
        (self.each)(tick);
    }

    fn ended(&mut self, summary: &Summary) {
        assert!(self.ended.replace(summary.clone()).is_none(), "told once");
    }
}

pub(crate) fn for_steps(steps: u64) -> DriveOptions {
    DriveOptions { steps: Some(steps), ..DriveOptions::default() }
}

/// Drives in virtual time; nobody stops it.
pub(crate) fn run(
    arm: &mut Arm,
    source: &mut dyn ActionSource,
    options: &DriveOptions,
    observer: &mut dyn Observer,
) -> Result<Summary, DriveError> {
    let clock = arm.clock.clone();
    drive_by_clock(arm, source, options, observer, &StopSwitch::new(), &clock)
}

pub(crate) fn bus(text: &str) -> RobotError {
    RobotError::Bus(text.to_owned())
}
