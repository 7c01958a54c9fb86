use super::SetupError;
use crate::calibration::{Calibration, MAX_OFFSET, MAX_TICKS, MotorCalibration};
use crate::joints::{IDS, JOINTS, WRIST_ROLL};
use crate::protocol::{Bus, BusError};
use crate::registers::{HOMING_OFFSET, MAX_POSITION, MIN_POSITION, OPERATING_MODE, PRESENT_POSITION};
use crate::torque_off;

/// First step of a calibration: torque is off, and somebody moves all joints to the middle of their ranges.
#[derive(Debug)]
pub struct Centring(());

impl Centring {
    /// Turns torque off. Nothing else is changed yet.
    ///
    /// # Errors
    /// Those of [`torque_off`] and [`Bus::settle_registers`].
    pub fn start(bus: &mut Bus) -> Result<Self, BusError> {
        torque_off(bus, &IDS)?;
        for id in IDS {
            bus.settle_registers(id, &[(&OPERATING_MODE, 0)])?;
        }
        Ok(Self(()))
    }

    /// Where the joints stand becomes the middle of their turns, 2047, in the motors; their limits are lifted.
    ///
    /// # Errors
    /// Those of the bus. Calibrating can start anew then.
    pub fn centred(self, bus: &mut Bus) -> Result<Sweep, BusError> {
        for id in IDS {
            let lifted = [(&HOMING_OFFSET, 0), (&MIN_POSITION, 0), (&MAX_POSITION, MAX_TICKS)];
            bus.settle_registers(id, &lifted)?;
        }
        let here = bus.sync_read(&PRESENT_POSITION, &IDS)?;
        let mut offsets = [0; 6];
        for ((offset, &position), id) in offsets.iter_mut().zip(&here).zip(IDS) {
            // 4095 − 2047 is one more than an offset can be.
            *offset = (position - MAX_TICKS / 2).clamp(-MAX_OFFSET, MAX_OFFSET);
            bus.settle_registers(id, &[(&HOMING_OFFSET, *offset)])?;
        }
        let mut sweep = Sweep { offsets, ranges: [Range { min: 0, now: 0, max: 0 }; 6] };
        let here = bus.sync_read(&PRESENT_POSITION, &IDS)?;
        for (range, position) in sweep.ranges.iter_mut().zip(here) {
            *range = Range { min: position, now: position, max: position };
        }
        Ok(sweep)
    }
}

/// How far a joint has been moved, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The least position so far.
    pub min: i32,
    /// The position now.
    pub now: i32,
    /// The largest position so far.
    pub max: i32,
}

/// Second step: somebody moves each joint through its whole range, while it is sampled over and over.
#[derive(Debug)]
pub struct Sweep {
    offsets: [i32; 6],
    ranges: [Range; 6],
}

impl Sweep {
    /// Reads all positions once. Fast joints want 20 samples a second or more.
    ///
    /// # Errors
    /// Those of [`Bus::sync_read`]; sampling can go on then.
    pub fn sample(&mut self, bus: &mut Bus) -> Result<&[Range; 6], BusError> {
        let positions = bus.sync_read(&PRESENT_POSITION, &IDS)?;
        for (range, now) in self.ranges.iter_mut().zip(positions) {
            *range = Range { min: range.min.min(now), now, max: range.max.max(now) };
        }
        Ok(&self.ranges)
    }

    /// What the calibration comes to; it is the caller's to [write to the motors](Calibration::write_to) and to
    /// [save](Calibration::save). The wrist's roll has no ends: its range is the whole turn.
    ///
    /// # Errors
    /// [`SetupError::NotMoved`] with the joints that were not moved; the sweep can go on then.
    pub fn finish(&self) -> Result<Calibration, SetupError> {
        let still: Vec<&str> = (0..6)
            .filter(|&i| i != WRIST_ROLL && self.ranges[i].min >= self.ranges[i].max)
            .map(|i| JOINTS[i].name)
            .collect();
        if !still.is_empty() {
            return Err(SetupError::NotMoved(still));
        }
        let motors = std::array::from_fn(|i| {
            let (range_min, range_max) =
                if i == WRIST_ROLL { (0, MAX_TICKS) } else { (self.ranges[i].min, self.ranges[i].max) };
            MotorCalibration {
                id: JOINTS[i].id,
                drive_mode: 0,
                homing_offset: self.offsets[i],
                range_min,
                range_max,
            }
        });
        Ok(Calibration { motors })
    }
}
