use crate::{Description, Observation, Robot, RobotError};

/// A robot that is observed and never told to move: what would be sent is only counted.
///
/// The robot is connected, so its torque comes on where it stands. As it never moves, the limit on the step from where it is
/// acts sooner than it would on a robot that follows.
#[derive(Debug)]
pub struct DryRun<R> {
    robot: R,
    report: DryRunReport,
}

/// What would have been sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DryRunReport {
    /// How many commands.
    pub commands: u64,
    /// Each joint's part, in the order of the description; empty if there was no command.
    pub joints: Vec<DryRunJoint>,
}

/// What one joint would have been told, in its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRunJoint {
    /// The joint's name.
    pub name: String,
    /// The first goal.
    pub first: f64,
    /// The last goal.
    pub last: f64,
    /// The least goal.
    pub least: f64,
    /// The largest goal.
    pub largest: f64,
    /// The largest change from one goal to the next.
    pub largest_change: f64,
}

impl<R: Robot> DryRun<R> {
    /// Nothing sent so far.
    pub fn new(robot: R) -> Self {
        Self { robot, report: DryRunReport::default() }
    }

    /// What would have been sent.
    pub fn report(&self) -> &DryRunReport {
        &self.report
    }
}

impl<R: Robot> Robot for DryRun<R> {
    fn describe(&self) -> &Description {
        self.robot.describe()
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        self.robot.connect()
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        self.robot.observe()
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        let DryRunReport { commands, joints } = &mut self.report;
        *commands += 1;
        if joints.is_empty() {
            let names = self.robot.describe().joints.iter().map(|joint| joint.name.clone());
            let first = names.zip(positions).map(|(name, goal)| DryRunJoint {
                name,
                first: *goal,
                last: *goal,
                least: *goal,
                largest: *goal,
                largest_change: 0.0,
            });
            *joints = first.collect();
        }
        for (joint, goal) in joints.iter_mut().zip(positions) {
            joint.largest_change = joint.largest_change.max((goal - joint.last).abs());
            joint.least = joint.least.min(*goal);
            joint.largest = joint.largest.max(*goal);
            joint.last = *goal;
        }
        Ok(())
    }

    fn hold(&mut self) -> Result<(), RobotError> {
        Ok(())
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        self.robot.stop()
    }
}
