//! LeRobot's calibration files: what each encoder shows where, the same file for LeRobot and for us.
//!
//! `{"shoulder_pan": {"id": 1, "drive_mode": 0, "homing_offset": -709, "range_min": 43, "range_max": 1335}, …}`: the servo
//! takes `homing_offset` off what its encoder shows, and may then move between `range_min` and `range_max`.

mod file;
mod paths;

use crate::joints::{IDS, JOINTS};
use crate::protocol::{Bus, BusError};
use crate::registers::{HOMING_OFFSET, MAX_POSITION, MIN_POSITION};
use crate::torque_off;

pub use file::CalibrationError;
pub use paths::{Role, find, path, root};

/// The largest position that an encoder shows.
pub const MAX_TICKS: i32 = 4095;
/// The largest homing offset, up or down.
pub const MAX_OFFSET: i32 = 2047;

/// One motor's entry in a calibration file, with LeRobot's names in LeRobot's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MotorCalibration {
    /// What the servo answers to: the joint's.
    pub id: u8,
    /// 1: positions grow the other way. Counts for −100 … 100 and 0 … 100, not for degrees, as in LeRobot.
    pub drive_mode: u8,
    /// In ticks, −2047 … 2047.
    pub homing_offset: i32,
    /// In ticks, 0 … 4095, below `range_max`.
    pub range_min: i32,
    /// In ticks, 0 … 4095.
    pub range_max: i32,
}

/// The calibration of a whole arm, in the order of the joints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibration {
    /// One entry a joint.
    pub motors: [MotorCalibration; 6],
}

impl Calibration {
    /// What the motors have in their registers. They know no drive mode; it is 0 then, as LeRobot has it.
    ///
    /// # Errors
    /// Those of [`Bus::read`].
    pub fn read_from(bus: &mut Bus) -> Result<Self, BusError> {
        let mut motors =
            [MotorCalibration { id: 0, drive_mode: 0, homing_offset: 0, range_min: 0, range_max: 0 }; 6];
        for (motor, joint) in motors.iter_mut().zip(JOINTS) {
            *motor = MotorCalibration {
                id: joint.id,
                drive_mode: 0,
                homing_offset: bus.read(joint.id, &HOMING_OFFSET)?,
                range_min: bus.read(joint.id, &MIN_POSITION)?,
                range_max: bus.read(joint.id, &MAX_POSITION)?,
            };
        }
        Ok(Self { motors })
    }

    /// Makes it the motors', for good. Torque goes off first: what the servos hold to is somewhere else afterwards.
    ///
    /// # Errors
    /// Those of [`torque_off`] and [`Bus::settle_registers`].
    pub fn write_to(&self, bus: &mut Bus) -> Result<(), BusError> {
        torque_off(bus, &IDS)?;
        for motor in &self.motors {
            bus.settle_registers(
                motor.id,
                &[
                    (&HOMING_OFFSET, motor.homing_offset),
                    (&MIN_POSITION, motor.range_min),
                    (&MAX_POSITION, motor.range_max),
                ],
            )?;
        }
        Ok(())
    }

    /// Names of the joints whose motors are calibrated otherwise than `motors` says.
    pub fn differing(&self, motors: &Self) -> Vec<&'static str> {
        let same = |a: &MotorCalibration, b: &MotorCalibration| {
            (a.homing_offset, a.range_min, a.range_max) == (b.homing_offset, b.range_min, b.range_max)
        };
        let pairs = self.motors.iter().zip(&motors.motors).zip(JOINTS);
        pairs.filter(|((a, b), _)| !same(a, b)).map(|(_, joint)| joint.name).collect()
    }
}
