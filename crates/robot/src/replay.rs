use crate::agreement::same_joints;
use crate::source::{ActionSource, Moment, Next};
use crate::{Description, Disagreement, Event, Origin, RobotError, Unit};

/// A list of actions, one a control step, for example of a recorded episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    actions: Vec<Vec<f64>>,
    names: Option<Vec<String>>,
    units: Option<Vec<Unit>>,
    next: usize,
}

impl Replay {
    /// `actions` are N × D; names and units of the D numbers are checked against the robot's, if they are known.
    pub fn new(actions: Vec<Vec<f64>>, names: Option<Vec<String>>, units: Option<Vec<Unit>>) -> Self {
        Self { actions, names, units, next: 0 }
    }
}

impl ActionSource for Replay {
    fn agree(&self, robot: &Description) -> Result<(), Disagreement> {
        let wrong = self.actions.iter().map(Vec::len).find(|length| *length != robot.joints.len());
        let count = wrong.unwrap_or(robot.joints.len());
        same_joints("the recording", count, self.names.as_deref(), self.units.as_deref(), robot)
    }

    fn start(&mut self) -> Result<(), RobotError> {
        self.next = 0;
        Ok(())
    }

    fn next(&mut self, _moment: &Moment<'_>, _events: &mut Vec<Event>) -> Next {
        let action = self.actions.get(self.next);
        self.next += 1;
        action.map_or(Next::Finished, |action| Next::Act(action.clone(), Origin::Replay))
    }
}
