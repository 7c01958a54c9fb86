use crate::{Robot, RobotError};

/// Turns torque off when it goes out of scope, whatever the reason: the end, an error, a panic.
pub(super) struct TorqueGuard<'a> {
    robot: &'a mut dyn Robot,
    off: bool,
}

impl<'a> TorqueGuard<'a> {
    pub(super) fn new(robot: &'a mut dyn Robot) -> Self {
        Self { robot, off: false }
    }

    pub(super) fn robot(&mut self) -> &mut dyn Robot {
        self.robot
    }

    /// Turns torque off, once more if that fails: a bus that has just been disturbed may answer the second time.
    pub(super) fn off(mut self) -> Result<(), RobotError> {
        self.off = true;
        self.stop()
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        self.robot.stop().or_else(|_| self.robot.stop())
    }
}

impl Drop for TorqueGuard<'_> {
    fn drop(&mut self) {
        if !self.off {
            // Nobody is left to be told.
            let _ = self.stop();
        }
    }
}
