use std::time::{Duration, Instant};

use crate::{Observation, RobotError};

/// When the arm stops following actions. On by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogOptions {
    /// Joints that were read longer ago than this are not acted on. 300 ms by default.
    pub stale_observation: Duration,
    /// Images older than this are not acted on. 1 s by default: USB cameras pause.
    pub stale_frame: Duration,
    /// After so long without an action the arm holds. 3 s by default.
    pub no_action: Duration,
    /// The same before the first action of a run: policies take longer then. 30 s by default.
    pub no_first_action: Duration,
    /// After so many failed exchanges in a row the arm holds; at least 1. 5 by default.
    pub failures: u32,
    /// After holding for so long for any of these reasons, torque goes off. 5 s by default.
    pub hold_limit: Duration,
}

impl Default for WatchdogOptions {
    fn default() -> Self {
        Self {
            stale_observation: Duration::from_millis(300),
            stale_frame: Duration::from_secs(1),
            no_action: Duration::from_secs(3),
            no_first_action: Duration::from_secs(30),
            failures: 5,
            hold_limit: Duration::from_secs(5),
        }
    }
}

/// Whether the arm follows actions.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It does.
    Running,
    /// It stays where it is, with torque, and goes on when the reason is gone.
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
    /// Joints were not read for too long.
    #[error("the joints were last read {} ms ago{}", .age.as_millis(), because(.last))]
    StaleObservation {
        /// For how long.
        age: Duration,
        /// What failed last, if anything did.
        last: Option<RobotError>,
    },
    /// A camera's image is too old.
    #[error("the image of camera {camera} is {} ms old: check its cable", .age.as_millis())]
    StaleFrame {
        /// The camera's name.
        camera: String,
        /// How old.
        age: Duration,
    },
    /// No action came for too long.
    #[error("no action for {:.1} s{}", .age.as_secs_f64(), because(.last))]
    NoAction {
        /// For how long.
        age: Duration,
        /// What failed last in the source of actions, if anything did.
        last: Option<String>,
    },
    /// Too many failures in a row.
    #[error("{count} failures in a row; the last: {last}")]
    Failures {
        /// How many.
        count: u32,
        /// The last one.
        last: RobotError,
    },
    /// The connection is lost, or the robot refuses all commands: no use in waiting.
    #[error("{0}")]
    Lost(RobotError),
}

fn because<E: std::fmt::Display>(last: &Option<E>) -> String {
    last.as_ref().map(|last| format!("; the last failure: {last}")).unwrap_or_default()
}

/// Judges by what it is told, and by the time it is told: it has no clock.
#[derive(Debug)]
pub(crate) struct Watchdog {
    options: WatchdogOptions,
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
    pub(crate) fn new(options: &WatchdogOptions, cameras: Vec<String>, now: Instant) -> Self {
        Self {
            options: options.clone(),
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

    /// An exchange with the robot failed.
    pub(crate) fn failed(&mut self, error: &RobotError) {
        self.failures += 1;
        self.last_failure = Some(error.clone());
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
                if now.saturating_duration_since(since) >= self.options.hold_limit {
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
            match error {
                RobotError::Disconnected(_) | RobotError::NotConnected => return Some(Reason::Lost(last)),
                // A servo that protects itself does not get better by being driven on.
                RobotError::Fault { .. } => return Some(Reason::Failures { count, last }),
                _ if count >= self.options.failures => return Some(Reason::Failures { count, last }),
                _ => {}
            }
        }
        let read = age(self.joints_read);
        if read > self.options.stale_observation {
            return Some(Reason::StaleObservation { age: read, last: self.last_failure.clone() });
        }
        let mut frames = self.cameras.iter().zip(&self.frames).map(|(camera, taken)| (camera, age(*taken)));
        if let Some((camera, age)) = frames.find(|(_, age)| *age > self.options.stale_frame) {
            return Some(Reason::StaleFrame { camera: camera.clone(), age });
        }
        let limit = if self.acted { self.options.no_action } else { self.options.no_first_action };
        let waited = age(self.action);
        (waited > limit).then(|| Reason::NoAction { age: waited, last: self.last_problem.clone() })
    }
}

#[cfg(test)]
mod tests;
