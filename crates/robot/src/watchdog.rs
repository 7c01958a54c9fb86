use std::time::{Duration, Instant};

use crate::{Observation, RobotError};

/// Joints that were read longer ago than this are not acted on.
const STALE_OBSERVATION: Duration = Duration::from_millis(300);
/// Images older than this are not acted on: USB cameras pause.
const STALE_FRAME: Duration = Duration::from_secs(1);
/// After so long without an action the arm holds.
const NO_ACTION: Duration = Duration::from_secs(3);
/// The same before the first action of a run: policies take longer then.
const NO_FIRST_ACTION: Duration = Duration::from_secs(30);
/// After so many failed exchanges in a row the arm holds.
pub(crate) const FAILURES: u32 = 5;
/// After holding for so long for any of these reasons, torque goes off.
const HOLD_LIMIT: Duration = Duration::from_secs(5);

/// Whether the arm follows actions.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It does.
    Running,
    /// It stays where it is, with torque, and goes on when the reason is gone; after 5 s torque goes off, unless people asked for
    /// the hold.
    Holding {
        /// Since when.
        since: Instant,
        /// Why.
        reason: Reason,
    },
    /// Torque goes off, the run is over.
    TorqueOff(Reason),
}

/// Why an arm does not follow actions.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The run has come to its end.
    #[error("the run is over")]
    Over,
    /// Someone asked for a stop.
    #[error("stop was asked for")]
    Stopped,
    /// Someone asked for a hold.
    #[error("hold was asked for")]
    Asked,
    /// Joints were not read for 300 ms.
    #[error("the joints were last read {} ms ago{}", .age.as_millis(), because(.last))]
    StaleObservation {
        /// For how long.
        age: Duration,
        /// What failed last, if anything did.
        last: Option<RobotError>,
    },
    /// A camera's image is more than 1 s old.
    #[error("the image of camera {camera} is {} ms old: check its cable", .age.as_millis())]
    StaleFrame {
        /// The camera's name.
        camera: String,
        /// How old.
        age: Duration,
    },
    /// No action came for 3 s, or for 30 s at the start.
    #[error("no action for {:.1} s{}", .age.as_secs_f64(), because(.last))]
    NoAction {
        /// For how long.
        age: Duration,
        /// What failed last in the source of actions, if anything did.
        last: Option<String>,
    },
    /// Five failures in a row, or a fault, which does not get better by being driven on.
    #[error("{count} failures in a row; the last: {last}")]
    Failures {
        /// How many.
        count: u32,
        /// The last one.
        last: RobotError,
    },
    /// The connection is lost, or a joint has let go: no use in waiting.
    #[error("{0}")]
    Lost(RobotError),
    /// Whatever gives the actions has failed for good.
    #[error("{0}")]
    Source(String),
}

fn because<E: std::fmt::Display>(last: &Option<E>) -> String {
    last.as_ref().map(|last| format!("; the last failure: {last}")).unwrap_or_default()
}

/// How much is to be made of a failure.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    /// The next exchange may succeed.
    Passing,
    /// Nothing is to be sent until it is gone.
    Fault,
    /// It does not go away by itself.
    Final,
}

fn gravity(error: &RobotError) -> Gravity {
    match error {
        RobotError::Disconnected(_) | RobotError::NotConnected | RobotError::LetGo { .. } => Gravity::Final,
        RobotError::Fault { .. } => Gravity::Fault,
        _ => Gravity::Passing,
    }
}

/// Judges by what it is told, and by the time it is told: it has no clock.
#[derive(Debug)]
pub(crate) struct Watchdog {
    cameras: Vec<String>,
    joints_read: Instant,
    frames: Vec<Instant>,
    /// When the last action came, or since when one could have come.
    action: Instant,
    acted: bool,
    failures: u32,
    last_failure: Option<RobotError>,
    last_problem: Option<String>,
    unhealthy_since: Option<Instant>,
    state: State,
}

impl Watchdog {
    pub(crate) fn new(cameras: Vec<String>, now: Instant) -> Self {
        Self {
            frames: vec![now; cameras.len()],
            cameras,
            joints_read: now,
            action: now,
            acted: false,
            failures: 0,
            last_failure: None,
            last_problem: None,
            unhealthy_since: None,
            state: State::Running,
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The robot was observed.
    pub(crate) fn observed(&mut self, observation: &Observation) {
        self.joints_read = observation.captured;
        self.frames = observation.frames.iter().map(|frame| frame.captured).collect();
    }

    /// All exchanges of a step succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.last_failure = None;
    }

    /// An exchange with the robot failed. What is graver counts until a step succeeds: noise after a fault is no recovery.
    pub(crate) fn failed(&mut self, error: &RobotError) {
        self.failures += 1;
        if self.last_failure.as_ref().is_none_or(|last| gravity(error) >= gravity(last)) {
            self.last_failure = Some(error.clone());
        }
    }

    /// The source gave an action that could be sent.
    pub(crate) fn acted(&mut self, now: Instant) {
        self.action = now;
        self.acted = true;
        self.last_problem = None;
    }

    /// The source of actions says what is wrong.
    pub(crate) fn problem(&mut self, text: String) {
        self.last_problem = Some(text);
    }

    /// What the arm is to do now. Judged before the source is asked, and again when it has given an action.
    pub(crate) fn judge(&mut self, now: Instant, hold_asked: bool) -> &State {
        if matches!(self.state, State::TorqueOff(_)) {
            return &self.state;
        }
        let trouble = self.trouble(now);
        let reason = match trouble {
            Some(reason @ Reason::Lost(_)) => {
                self.state = State::TorqueOff(reason);
                return &self.state;
            }
            Some(reason) => {
                let since = *self.unhealthy_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= HOLD_LIMIT {
                    self.state = State::TorqueOff(reason);
                    return &self.state;
                }
                Some(reason)
            }
            None => {
                self.unhealthy_since = None;
                hold_asked.then_some(Reason::Asked)
            }
        };
        // A source that is not asked cannot answer: its time starts anew when it is asked again.
        if hold_asked || reason.as_ref().is_some_and(|reason| !matches!(reason, Reason::NoAction { .. })) {
            self.action = now;
        }
        let since = match &self.state {
            State::Holding { since, .. } => *since,
            State::Running | State::TorqueOff(_) => now,
        };
        self.state = reason.map_or(State::Running, |reason| State::Holding { since, reason });
        &self.state
    }

    fn trouble(&self, now: Instant) -> Option<Reason> {
        let age = |moment: Instant| now.saturating_duration_since(moment);
        if let Some(error) = &self.last_failure {
            let (last, count) = (error.clone(), self.failures);
            match gravity(error) {
                Gravity::Final => return Some(Reason::Lost(last)),
                Gravity::Passing if count < FAILURES => {}
                Gravity::Passing | Gravity::Fault => return Some(Reason::Failures { count, last }),
            }
        }
        let read = age(self.joints_read);
        if read > STALE_OBSERVATION {
            return Some(Reason::StaleObservation { age: read, last: self.last_failure.clone() });
        }
        let mut frames = self.cameras.iter().zip(&self.frames).map(|(camera, taken)| (camera, age(*taken)));
        if let Some((camera, age)) = frames.find(|(_, age)| *age > STALE_FRAME) {
            return Some(Reason::StaleFrame { camera: camera.clone(), age });
        }
        let limit = if self.acted { NO_ACTION } else { NO_FIRST_ACTION };
        let waited = age(self.action);
        (waited > limit).then(|| Reason::NoAction { age: waited, last: self.last_problem.clone() })
    }
}

#[cfg(test)]
mod tests;
