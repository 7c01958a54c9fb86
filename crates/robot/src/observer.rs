use std::fmt;
use std::time::Duration;

use crate::{ChunkError, Clamped, Observation, Reason, Refusal, RobotError, Routing, State, Summary, Unit};

/// Whoever watches a loop: a recorder, a terminal, a log. Called by the loop itself, so it must be quick; to end the run, it
/// uses a clone of the [`StopSwitch`](crate::StopSwitch).
pub trait Observer {
    /// A control step is done.
    fn tick(&mut self, tick: &Tick<'_>);

    /// The run is over, torque is off as far as that was possible.
    fn ended(&mut self, _summary: &Summary) {}
}

/// Nobody watches.
impl Observer for () {
    fn tick(&mut self, _tick: &Tick<'_>) {}
}

/// Several watch, in this order.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.iter_mut().for_each(|observer| observer.tick(tick));
    }

    fn ended(&mut self, summary: &Summary) {
        self.iter_mut().for_each(|observer| observer.ended(summary));
    }
}

/// One control step.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// Its number: periods since the start. Numbers that are missing were left out, for the loop was late.
    pub step: u64,
    /// When it began, since the start.
    pub time: Duration,
    /// What was observed; none if that failed, and in the last tick of a run, which only tells its end.
    pub observation: Option<&'a Observation>,
    /// What was asked for, one number a joint; none if the source had nothing, or was not asked.
    pub raw: Option<&'a [f64]>,
    /// What was sent, within the limits; none if nothing was.
    pub sent: Option<&'a [f64]>,
    /// Where `sent` comes from.
    pub origin: Origin,
    /// Actions that are planned after this one; none where nothing is planned ahead.
    pub queued: Option<usize>,
    /// Whether the arm follows actions.
    pub state: &'a State,
    /// What happened, in this order.
    pub events: &'a [Event],
}

/// Where a command comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A policy's chunk.
    Policy,
    /// A leader arm that drives all the time.
    Leader,
    /// A list of actions.
    Replay,
    /// A leader arm that took over from a policy.
    Intervention,
    /// Nobody: the arm stays where it was told to be last.
    Hold,
}

impl Origin {
    /// As it is written in logs and datasets: `policy`, `leader`, `replay`, `intervention`, `hold`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Leader => "leader",
            Self::Replay => "replay",
            Self::Intervention => "intervention",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something worth a line in a log. What goes on for many steps is told when it begins.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A limit begins to change a joint's goals.
    Clamped(Clamped),
    /// An action was not sent.
    Refused(Refusal),
    /// The source has no action: the last command is repeated.
    Starved,
    /// A chunk has come.
    Chunk {
        /// How many actions it has.
        actions: usize,
        /// How many of them were dropped, because their time has passed.
        dropped: usize,
        /// How long the policy took.
        latency: Duration,
        /// Share of full speed at which chunks are carried out, 0 … 1; below 1 the policy is too slow for the arm.
        speed: f64,
        /// The task that ran, if it is another one than before.
        routing: Option<Routing>,
    },
    /// There is no chunk.
    ChunkFailed(ChunkError),
    /// The leader arm cannot be read.
    LeaderFailed(RobotError),
    /// The arm goes slowly to where its actions begin, for that is not where it stands.
    Approaching {
        /// The joint that has the longest way.
        joint: String,
        /// How far it is, in `unit`.
        distance: f64,
        /// The joint's unit.
        unit: Unit,
    },
    /// The leader arm takes over.
    InterventionBegins,
    /// The policy goes on.
    InterventionEnds,
    /// An exchange with the robot failed.
    RobotFailed(RobotError),
    /// The arm holds.
    Holding(Reason),
    /// The arm follows actions again.
    Recovered {
        /// How long it held.
        after: Duration,
    },
    /// A step took so long that others were left out.
    Overrun {
        /// How many.
        skipped: u64,
        /// What took longest: `observe`, `decide`, `act` or `report`.
        section: &'static str,
        /// How long that took.
        took: Duration,
    },
    /// Torque was turned off.
    TorqueOff(Reason),
    /// Torque could not be turned off.
    TorqueMayBeOn(RobotError),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clamped(Clamped { joint, from, to, unit, by }) => {
                write!(f, "{joint} is told {to:.2} instead of {from:.2} {unit}: {by}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Starved => f.write_str("no action is there: the last command is repeated"),
            Self::Chunk { actions, dropped, latency, speed, routing } => {
                write!(f, "chunk of {actions} actions after {:.0} ms", latency.as_secs_f64() * 1e3)?;
                if *dropped > 0 {
                    write!(f, ", the first {dropped} are past")?;
                }
                if *speed < 1.0 {
                    write!(f, ", carried out at {:.0} % speed", speed * 100.0)?;
                }
                match routing {
                    Some(Routing { task, reason, margin: Some(margin) }) => {
                        write!(f, "; task {task} ({reason}, margin {margin:.3})")
                    }
                    Some(Routing { task, reason, margin: None }) => write!(f, "; task {task} ({reason})"),
                    None => Ok(()),
                }
            }
            Self::ChunkFailed(error) => write!(f, "no chunk: {error}"),
            Self::LeaderFailed(error) => write!(f, "leader arm: {error}"),
            Self::Approaching { joint, distance, unit } => {
                write!(
                    f,
                    "the arm goes slowly to where its actions begin: {joint} is {distance:.1} {unit} away"
                )
            }
            Self::InterventionBegins => f.write_str("the leader arm takes over"),
            Self::InterventionEnds => f.write_str("the policy goes on"),
            Self::RobotFailed(error) => error.fmt(f),
            Self::Holding(reason) => write!(f, "the arm holds: {reason}"),
            Self::Recovered { after } => write!(f, "the arm goes on after {:.1} s", after.as_secs_f64()),
            Self::Overrun { skipped, section, took } => {
                let took_ms = took.as_secs_f64() * 1e3;
                write!(f, "{skipped} steps left out: {section} took {took_ms:.0} ms")
            }
            Self::TorqueOff(reason) => write!(f, "torque is off: {reason}"),
            Self::TorqueMayBeOn(error) => write!(f, "torque may still be on: {error}"),
        }
    }
}
