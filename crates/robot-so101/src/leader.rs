use std::time::Instant;

use skillweld_robot::{Description, Observation, Robot, RobotError};

use crate::arm::{ArmOptions, Opener, connect};
use crate::calibration::Role;
use crate::joints::IDS;
use crate::protocol::{Bus, BusError};
use crate::registers::{OPERATING_MODE, PRESENT_POSITION, RETURN_DELAY};
use crate::units::from_ticks;
use crate::{torque_off, units};

/// The arm that a hand moves, to be followed: a [`Robot`] that is only observed, its joints in the follower's units, torque
/// always off.
pub struct So101Leader {
    options: ArmOptions,
    description: Description,
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
        let joints = units::joints(options.body, &options.calibration, f64::INFINITY);
        let description = Description { kind: "so101_leader".into(), joints, cameras: Vec::new() };
        Ok(Self { options, description, open, bus: None })
    }
}

impl Robot for So101Leader {
    fn describe(&self) -> &Description {
        &self.description
    }

    /// Torque goes off, not on.
    fn connect(&mut self) -> Result<(), RobotError> {
        if self.bus.is_some() {
            return Ok(());
        }
        let mut bus = (self.open)()?;
        self.options.verify(&mut bus, Role::Leader)?;
        torque_off(&mut bus, &IDS).map_err(connect)?;
        for id in IDS {
            bus.settle_registers(id, &[(&RETURN_DELAY, 0), (&OPERATING_MODE, 0)]).map_err(connect)?;
        }
        self.bus = Some(bus);
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        let bus = self.bus.as_mut().ok_or(RobotError::NotConnected)?;
        let ticks = bus.sync_read(&PRESENT_POSITION, &IDS).map_err(|error: BusError| {
            if error.is_lost() {
                self.bus = None;
            }
            RobotError::from(error)
        })?;
        let motors = self.options.calibration.motors.iter().zip(&self.description.joints);
        let positions = motors.zip(ticks).map(|((motor, joint), ticks)| from_ticks(joint.unit, motor, ticks));
        let positions = positions.collect();
        let captured = Instant::now();
        Ok(Observation { captured, positions, frames: Vec::new(), problems: Vec::new() })
    }

    fn act(&mut self, _positions: &[f64]) -> Result<(), RobotError> {
        Err(RobotError::Command("a leader arm is moved by hand, and told nothing".into()))
    }

    /// Torque was never on.
    fn stop(&mut self) -> Result<(), RobotError> {
        self.bus = None;
        Ok(())
    }
}
