use std::time::Duration;

use crate::{Durations, Reason, RobotError, Scheduling};

/// How a run went.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Why it ended: [`Reason::Over`] and [`Reason::Stopped`] are as people wished, all others are failures.
    pub end: Reason,
    /// Why torque may still be on; none if it is off.
    pub torque_may_be_on: Option<RobotError>,
    /// How long it ran, from the first step to the last.
    pub duration: Duration,
    /// Control steps that ran.
    pub steps: u64,
    /// Steps that were left out, because those before took too long.
    pub skipped: u64,
    /// Steps whose work was not done at the next deadline.
    pub overruns: u64,
    /// How the system woke the loop.
    pub scheduling: Scheduling,
    /// By how much steps began later than at their deadlines.
    pub lateness: Durations,
    /// How long each part of a step took.
    pub sections: Sections,
    /// Steps in which the source should have had an action and had none.
    pub starved: u64,
    /// Steps in which the source had no action yet, at the start and after interruptions.
    pub waited: u64,
    /// Steps in which the arm held.
    pub held: u64,
    /// Steps in which a person led the arm.
    pub interventions: u64,
    /// Actions that were not sent.
    pub refused: u64,
    /// Exchanges with the robot that failed.
    pub failures: u64,
    /// In how many steps each joint's goal was changed by a limit, in the order of the description.
    pub clamped: Vec<(String, u64)>,
    /// How long inferences took; none if the source does none.
    pub inference: Option<Durations>,
}

/// How long each part of a control step took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sections {
    /// Reading joints and taking images.
    pub observe: Durations,
    /// Asking the source, applying limits.
    pub decide: Durations,
    /// Sending goals, without the time between those of one step.
    pub act: Durations,
    /// Telling observers.
    pub report: Durations,
}

impl Sections {
    /// By name, in the order in which they run.
    pub fn named(&self) -> [(&'static str, &Durations); 4] {
        [("observe", &self.observe), ("decide", &self.decide), ("act", &self.act), ("report", &self.report)]
    }

    /// Counts a step's times, in the order in which they ran; gives the section that took longest, with how long.
    pub(crate) fn record(&mut self, took: [Duration; 4]) -> (&'static str, Duration) {
        let sections = [&mut self.observe, &mut self.decide, &mut self.act, &mut self.report];
        sections.into_iter().zip(took).for_each(|(section, took)| section.record(took));
        let names = self.named().map(|(name, _)| name);
        // Of equals the first.
        names.into_iter().zip(took).rev().max_by_key(|(_, took)| *took).unwrap_or_default()
    }

    /// The section that took longest in any step, with how long.
    pub fn worst(&self) -> (&'static str, Duration) {
        let longest = self.named().map(|(name, took)| (name, took.max()));
        longest.into_iter().max_by_key(|(_, took)| *took).unwrap_or_default()
    }
}

impl Summary {
    pub(crate) fn new(joints: impl Iterator<Item = String>) -> Self {
        Self {
            end: Reason::Over,
            torque_may_be_on: None,
            duration: Duration::ZERO,
            steps: 0,
            skipped: 0,
            overruns: 0,
            scheduling: Scheduling::Ordinary,
            lateness: Durations::default(),
            sections: Sections::default(),
            starved: 0,
            waited: 0,
            held: 0,
            interventions: 0,
            refused: 0,
            failures: 0,
            clamped: joints.map(|joint| (joint, 0)).collect(),
            inference: None,
        }
    }

    /// Whether it ended as people wished, with torque off.
    pub fn is_success(&self) -> bool {
        matches!(self.end, Reason::Over | Reason::Stopped) && self.torque_may_be_on.is_none()
    }
}
