use std::time::{Duration, Instant};

use crate::{Description, Disagreement, Durations, Event, Observation, Origin, RobotError};

/// Whatever says, step by step, where the arm is to go: chunks of a policy, a leader arm, a list of actions.
pub trait ActionSource {
    /// Checks that it means the same by an action as the robot, before anything moves.
    ///
    /// # Errors
    /// [`Disagreement`], whose text says what mends it.
    fn agree(&self, robot: &Description) -> Result<(), Disagreement>;

    /// A run begins.
    ///
    /// # Errors
    /// [`RobotError`] if it needs a robot of its own that cannot be had.
    fn start(&mut self) -> Result<(), RobotError>;

    /// The action of this step; must not block.
    fn next(&mut self, moment: &Moment<'_>, events: &mut Vec<Event>) -> Next;

    /// The arm held or was led by someone else: what was planned before is void.
    fn interrupt(&mut self) {}

    /// The run is over.
    fn stop(&mut self) {}

    /// Actions that are planned after this step's; none where nothing is planned ahead.
    fn queued(&self) -> Option<usize> {
        None
    }

    /// How long inferences took; none if there are none.
    fn latencies(&self) -> Option<&Durations> {
        None
    }
}

/// One control step, as a source sees it.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// When it is.
    pub now: Instant,
    /// Length of a control period.
    pub period: Duration,
    /// The robot that is driven.
    pub robot: &'a Description,
    /// What the robot sees and feels.
    pub observation: &'a Observation,
}

/// A source's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// One number a joint, in the robot's units, and where they come from. Limits are applied by the loop.
    Act(Vec<f64>, Origin),
    /// Nothing yet, as it has to be at the start and after an interruption: the arm stays where it is.
    Waiting,
    /// Nothing now, where something should have been: the last command is repeated.
    Starved,
    /// There is nothing more: the run is over.
    Finished,
    /// There is nothing more, and there should be: the run ends as one that failed. Why, in words.
    Broken(String),
}
