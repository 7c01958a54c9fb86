//! Ticks of the encoders to the units of policies and datasets, and back, as LeRobot computes them.
//!
//! With `min` and `max` of the joint's calibration, t ticks are
//!
//! - in degrees (t − (min + max)/2) · 360/4095: neither cut nor turned round by the drive mode;
//! - centred (t − min)/(max − min) · 200 − 100, t cut to the range first; the sign is turned by drive mode 1;
//! - in percent (t − min)/(max − min) · 100, t cut to the range first; 100 less that by drive mode 1.
//!
//! Back, percent and centred are cut to their range first, and fractions of ticks are dropped towards zero.

use skillweld_robot::{BodyUnit, Joint, Unit};

use crate::calibration::{Calibration, MAX_TICKS, MotorCalibration};
use crate::joints::JOINTS;

/// Ticks as a number of a unit.
pub fn from_ticks(unit: Unit, motor: &MotorCalibration, ticks: i32) -> f64 {
    let (min, max) = (f64::from(motor.range_min), f64::from(motor.range_max));
    let flipped = motor.drive_mode == 1;
    let within = (f64::from(ticks).clamp(min, max) - min) / (max - min);
    match unit {
        Unit::Percent => {
            let percent = within * 100.0;
            if flipped { 100.0 - percent } else { percent }
        }
        Unit::Centred => {
            let centred = within * 200.0 - 100.0;
            if flipped { -centred } else { centred }
        }
        _ => (f64::from(ticks) - (min + max) / 2.0) * 360.0 / f64::from(MAX_TICKS),
    }
}

/// A finite number of a unit as ticks. Degrees may lead out of the joint's range.
pub fn to_ticks(unit: Unit, motor: &MotorCalibration, value: f64) -> i32 {
    let (min, max) = (f64::from(motor.range_min), f64::from(motor.range_max));
    let flipped = motor.drive_mode == 1;
    let ticks = match unit {
        Unit::Percent => {
            let percent = if flipped { 100.0 - value } else { value };
            percent.clamp(0.0, 100.0) / 100.0 * (max - min) + min
        }
        Unit::Centred => {
            let centred = if flipped { -value } else { value };
            (centred.clamp(-100.0, 100.0) + 100.0) / 200.0 * (max - min) + min
        }
        _ => value * f64::from(MAX_TICKS) / 360.0 + (min + max) / 2.0,
    };
    // Saturates, where Python would go on counting.
    ticks as i32
}

/// What the arm is made of: ranges from the calibration, one limit of velocity for all joints.
pub fn joints(body: BodyUnit, calibration: &Calibration, max_velocity_deg_s: f64) -> Vec<Joint> {
    let units = body.of_joints(JOINTS.len());
    let motors = calibration.motors.iter().zip(JOINTS).zip(units);
    let joint = |((motor, joint), unit): ((&MotorCalibration, crate::Motor), Unit)| {
        let (a, b) = (from_ticks(unit, motor, motor.range_min), from_ticks(unit, motor, motor.range_max));
        let ticks = f64::from(motor.range_max - motor.range_min);
        let max_velocity = max_velocity_deg_s * f64::from(MAX_TICKS) / 360.0 * (b - a).abs() / ticks;
        Joint { name: joint.name.into(), unit, min: a.min(b), max: a.max(b), max_velocity }
    };
    motors.map(joint).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::joints::GRIPPER;

    const PAN: MotorCalibration =
        MotorCalibration { id: 1, drive_mode: 0, homing_offset: 0, range_min: 43, range_max: 1335 };
    const FLIPPED: MotorCalibration = MotorCalibration { drive_mode: 1, ..PAN };

    /// Numbers that LeRobot 0.4.4's `_normalize` gives for this calibration.
    #[test]
    fn golden_values_of_observations() {
        let degrees = |ticks| from_ticks(Unit::Degrees, &PAN, ticks);
        assert_eq!(degrees(689), 0.0);
        assert_eq!(degrees(43), -56.791_208_791_208_79);
        assert_eq!(degrees(2000), 115.252_747_252_747_25);
        assert_eq!(from_ticks(Unit::Degrees, &FLIPPED, 2000), degrees(2000));
        let centred = |motor, ticks| from_ticks(Unit::Centred, motor, ticks);
        assert_eq!(centred(&PAN, 43), -100.0);
        assert_eq!(centred(&PAN, 366), -50.0);
        assert_eq!(centred(&PAN, 2000), 100.0);
        assert_eq!(centred(&FLIPPED, 366), 50.0);
        let percent = |motor, ticks| from_ticks(Unit::Percent, motor, ticks);
        assert_eq!(percent(&PAN, 366), 25.0);
        assert_eq!(percent(&PAN, 0), 0.0);
        assert_eq!(percent(&FLIPPED, 366), 75.0);
    }

    /// Numbers that LeRobot 0.4.4's `_unnormalize` gives: fractions are dropped towards zero, also below it.
    #[test]
    fn golden_values_of_actions() {
        let degrees = |value| to_ticks(Unit::Degrees, &PAN, value);
        assert_eq!([degrees(0.0), degrees(10.0), degrees(-10.0)], [689, 802, 575]);
        assert_eq!([degrees(-60.62), degrees(-60.66)], [0, -1]);
        let centred = |motor, value| to_ticks(Unit::Centred, motor, value);
        assert_eq!([centred(&PAN, -50.0), centred(&PAN, 0.1), centred(&PAN, 250.0)], [366, 689, 1335]);
        assert_eq!([centred(&FLIPPED, -50.0), centred(&FLIPPED, 250.0)], [1012, 43]);
        let percent = |motor, value| to_ticks(Unit::Percent, motor, value);
        assert_eq!([percent(&PAN, 25.0), percent(&PAN, 33.3), percent(&PAN, -1.0)], [366, 473, 43]);
        assert_eq!(percent(&FLIPPED, 25.0), 1012);
        assert_eq!(degrees(1e300), i32::MAX);
    }

    #[test]
    fn joints_have_the_calibrations_ranges() {
        let mut motors = [PAN; 6];
        motors[GRIPPER].drive_mode = 1;
        let joints = joints(BodyUnit::Degrees, &Calibration { motors }, 90.0);
        let (pan, gripper) = (&joints[0], &joints[GRIPPER]);
        assert_eq!((pan.name.as_str(), pan.unit), ("shoulder_pan", Unit::Degrees));
        assert!((pan.max - 56.791_208_791_208_79).abs() < 1e-12 && (pan.max + pan.min).abs() < 1e-12);
        assert!((pan.max_velocity - 90.0).abs() < 1e-9);
        assert_eq!((gripper.unit, gripper.min, gripper.max), (Unit::Percent, 0.0, 100.0));
        // 90° are 1023.75 ticks, of 1292 that are 100 %.
        assert!((gripper.max_velocity - 1023.75 / 12.92).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn there_and_back_is_within_a_tick(
            joint in 0..6_usize,
            centred: bool,
            drive_mode in 0..2_u8,
            min in 0..4095_i32,
            width in 1..4096_i32,
            place in 0.0..=1.0_f64,
        ) {
            let max = (min + width).min(MAX_TICKS);
            let motor = MotorCalibration { drive_mode, range_min: min, range_max: max, ..PAN };
            let body = if centred { BodyUnit::Centred } else { BodyUnit::Degrees };
            let unit = body.of_joints(JOINTS.len())[joint];
            let ticks = min + (place * f64::from(max - min)).round() as i32;
            let value = from_ticks(unit, &motor, ticks);
            let back = to_ticks(unit, &motor, value);
            prop_assert!((back - ticks).abs() <= 1, "{ticks} {value} {back}");
        }
    }
}
