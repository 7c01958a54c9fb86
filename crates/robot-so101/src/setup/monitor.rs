use crate::joints::JOINTS;
use crate::protocol::{Bus, BusError, Status};
use crate::registers::{
    GOAL_POSITION, MOVING, PRESENT_CURRENT, PRESENT_LOAD, PRESENT_POSITION, PRESENT_TEMPERATURE,
    PRESENT_VELOCITY, PRESENT_VOLTAGE, STATUS, TORQUE_ENABLE,
};

/// What one servo shows.
#[derive(Debug, Clone, PartialEq)]
pub struct JointReadout {
    /// The joint's name.
    pub joint: &'static str,
    /// Whether the servo turns and holds the joint.
    pub torque: bool,
    /// Where it should be.
    pub goal_ticks: i32,
    /// Where it is.
    pub position_ticks: i32,
    /// How fast it turns.
    pub velocity_ticks_s: i32,
    /// −100 … 100: how much of the supply the motor gets.
    pub load_percent: f64,
    /// Through the motor.
    pub current_ma: f64,
    /// The supply.
    pub voltage_v: f64,
    /// Inside the servo.
    pub temperature_c: i32,
    /// What it complains about.
    pub status: Status,
    /// Whether it says that it moves.
    pub moving: bool,
}

/// Reads every joint once, in six exchanges. A servo that does not answer leaves its error in its place.
///
/// # Errors
/// [`BusError::Lost`].
pub fn monitor(bus: &mut Bus) -> Result<Vec<Result<JointReadout, BusError>>, BusError> {
    let from = TORQUE_ENABLE.address;
    let count = PRESENT_CURRENT.address + PRESENT_CURRENT.size - from;
    let mut readouts = Vec::new();
    for joint in JOINTS {
        let block = match bus.read_block(joint.id, from, count) {
            Ok(block) => block,
            Err(error) if error.is_lost() => return Err(error),
            Err(error) => {
                readouts.push(Err(error));
                continue;
            }
        };
        readouts.push(Ok(JointReadout {
            joint: joint.name,
            torque: TORQUE_ENABLE.within(&block, from) == 1,
            goal_ticks: GOAL_POSITION.within(&block, from),
            position_ticks: PRESENT_POSITION.within(&block, from),
            velocity_ticks_s: PRESENT_VELOCITY.within(&block, from),
            load_percent: f64::from(PRESENT_LOAD.within(&block, from)) / 10.0,
            current_ma: f64::from(PRESENT_CURRENT.within(&block, from)) * 6.5,
            voltage_v: f64::from(PRESENT_VOLTAGE.within(&block, from)) / 10.0,
            temperature_c: PRESENT_TEMPERATURE.within(&block, from),
            status: Status(STATUS.within(&block, from) as u8),
            moving: MOVING.within(&block, from) != 0,
        }));
    }
    Ok(readouts)
}
