use skillweld_robot::{Joint, RobotError};

use crate::arm::{ArmOptions, Opener, connect};
use crate::calibration::Role;
use crate::joints::IDS;
use crate::protocol::{Bus, BusError};
use crate::registers::{OPERATING_MODE, PRESENT_POSITION, RETURN_DELAY};
use crate::torque_off;

/// The arm that a hand moves, to be followed: its joints in the follower's units, torque always off.
pub struct So101Leader {
    options: ArmOptions,
    joints: Vec<Joint>,
    open: Opener,
    bus: Option<Bus>,
}

impl So101Leader {
    /// An arm at a serial port, not connected yet.
    ///
    /// # Errors
    /// [`RobotError::Connect`] if the calibration cannot be an arm's.
    pub fn new(options: ArmOptions) -> Result<Self, RobotError> {
        let open = options.opener();
        Self::with_opener(options, open)
    }

    /// An arm on a bus that `open` gives.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_opener(options: ArmOptions, open: Opener) -> Result<Self, RobotError> {
        options.check()?;
        // Nothing commands it: it may move as fast as the hand.
        let joints = options.body.joints(&options.calibration, f64::INFINITY);
        Ok(Self { options, joints, open, bus: None })
    }

    /// Names, units and ranges of what [`read`](Self::read) gives.
    pub fn joints(&self) -> &[Joint] {
        &self.joints
    }

    /// Opens the connection, checks that this is the arm, and turns its torque off.
    ///
    /// # Errors
    /// [`RobotError::Connect`] with what is missing or differs, and the command that mends it.
    pub fn connect(&mut self) -> Result<(), RobotError> {
        let mut bus = (self.open)()?;
        self.options.verify(&mut bus, Role::Leader)?;
        torque_off(&mut bus, &IDS).map_err(connect)?;
        for id in IDS {
            bus.settle_registers(id, &[(&RETURN_DELAY, 0), (&OPERATING_MODE, 0)]).map_err(connect)?;
        }
        self.bus = Some(bus);
        Ok(())
    }

    /// Where the hand holds the arm, in the order of the joints.
    ///
    /// # Errors
    /// [`RobotError`] that names the joint or the cable.
    pub fn read(&mut self) -> Result<Vec<f64>, RobotError> {
        let bus = self.bus.as_mut().ok_or(RobotError::NotConnected)?;
        let ticks = bus.sync_read(&PRESENT_POSITION, &IDS).map_err(|error: BusError| {
            if error.is_lost() {
                self.bus = None;
            }
            RobotError::from(error)
        })?;
        let motors = ticks.iter().zip(&self.options.calibration.motors).enumerate();
        Ok(motors.map(|(i, (&ticks, motor))| self.options.body.from_ticks(i, motor, ticks)).collect())
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.bus = None;
    }
}
