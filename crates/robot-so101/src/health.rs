use std::fmt;

use skillweld_robot::RobotError;

use crate::protocol::{Bus, BusError, Status};
use crate::registers::{
    MAX_TEMPERATURE, MIN_VOLTAGE, MOVING, PRESENT_LOAD, PRESENT_TEMPERATURE, PRESENT_VOLTAGE, STATUS,
    TORQUE_ENABLE,
};

/// How a servo feels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Health {
    /// What it complains about.
    pub status: Status,
    /// Whether it turns and holds the joint. After its supply failed for a moment it does not, and says nothing of it.
    pub torque: bool,
    /// −100 … 100: how much of the supply the motor gets.
    pub load_percent: f64,
    /// The supply.
    pub voltage_v: f64,
    /// Inside the servo.
    pub temperature_c: i32,
}

impl Health {
    /// Asks one servo.
    ///
    /// # Errors
    /// Those of [`Bus::read_block`].
    pub fn read(bus: &mut Bus, id: u8) -> Result<Self, BusError> {
        let from = TORQUE_ENABLE.address;
        Ok(Self::of(&bus.read_block(id, from, MOVING.address - from + 1)?))
    }

    /// From a block of memory that starts at [`TORQUE_ENABLE`] and reaches to [`MOVING`] or further.
    pub(crate) fn of(block: &[u8]) -> Self {
        let from = TORQUE_ENABLE.address;
        Self {
            status: Status(STATUS.within(block, from) as u8),
            torque: TORQUE_ENABLE.within(block, from) == 1,
            load_percent: f64::from(PRESENT_LOAD.within(block, from)) / 10.0,
            voltage_v: f64::from(PRESENT_VOLTAGE.within(block, from)) / 10.0,
            temperature_c: PRESENT_TEMPERATURE.within(block, from),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load_percent, voltage_v, temperature_c, .. } = self;
        write!(f, "{temperature_c} °C, {voltage_v:.1} V, load {load_percent:.0} %")
    }
}

/// What a servo's own registers say is too much. The servo may be set not to complain about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    max_temperature_c: i32,
    min_voltage_v: f64,
}

impl Limits {
    pub(crate) fn read(bus: &mut Bus, id: u8) -> Result<Self, BusError> {
        Ok(Self {
            max_temperature_c: bus.read(id, &MAX_TEMPERATURE)?,
            min_voltage_v: f64::from(bus.read(id, &MIN_VOLTAGE)?) / 10.0,
        })
    }

    /// What is wrong with a servo that was switched on, if anything is: a fault, or that it has let go; `reported` is what it
    /// complained about in earlier replies.
    pub(crate) fn fault(&self, joint: &str, health: &Health, reported: Status) -> Option<RobotError> {
        let status = Status(health.status.0 | reported.0);
        let complaint = if !status.is_ok() {
            Some(status.to_string())
        } else if health.temperature_c >= self.max_temperature_c {
            Some("too hot".into())
        } else if health.voltage_v < self.min_voltage_v {
            Some("supply voltage too low".into())
        } else {
            None
        };
        let joint = joint.into();
        if !health.torque {
            let why = complaint.map_or_else(String::new, |complaint| format!(": {complaint}"));
            let remedy = "check the arm's power supply and its plugs, then connect again";
            let problem = format!("torque went off by itself{why} ({health}); {remedy}");
            return Some(RobotError::LetGo { joint, problem });
        }
        let fault = format!("{} ({health}); {}", complaint?, remedy(status));
        Some(RobotError::Fault { joint, fault })
    }
}

fn remedy(status: Status) -> &'static str {
    match status.0 {
        bits if bits & 0x28 != 0 => "free the joint, lighten its load, then switch the arm off and on",
        bits if bits & 0x02 != 0 => {
            "the servo's encoder fails: switch the arm off and on, else replace the servo"
        }
        bits if bits & 0x01 != 0 => "check the arm's power supply and its plugs",
        bits if bits & 0x10 != 0 => "turn the joint into its range by hand, then calibrate it anew",
        _ => "let it cool down, and check the arm's power supply",
    }
}
