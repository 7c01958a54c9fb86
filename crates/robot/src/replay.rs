use crate::agreement::same_joints;
use crate::approach::Approach;
use crate::source::{ActionSource, Moment, Next};
use crate::{Description, Disagreement, Event, Origin, RobotError, Unit};

/// A list of actions, one a control step, for example of a recorded episode. The arm goes slowly to where the next of them is
/// before they are played, at the start and after a hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    actions: Vec<Vec<f64>>,
    names: Option<Vec<String>>,
    units: Option<Vec<Unit>>,
    next: usize,
    approach: Approach,
}

impl Replay {
    /// `actions` are N × D; names and units of the D numbers are checked against the robot's, if they are known.
    pub fn new(actions: Vec<Vec<f64>>, names: Option<Vec<String>>, units: Option<Vec<Unit>>) -> Self {
        Self { actions, names, units, next: 0, approach: Approach::default() }
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
        self.interrupt();
        Ok(())
    }

    fn next(&mut self, moment: &Moment<'_>, events: &mut Vec<Event>) -> Next {
        let Some(action) = self.actions.get(self.next) else { return Next::Finished };
        let (goal, arrived) = self.approach.towards(action.clone(), moment, events);
        self.next += usize::from(arrived);
        Next::Act(goal, Origin::Replay)
    }

    fn interrupt(&mut self) {
        self.approach = Approach::default();
    }
}
