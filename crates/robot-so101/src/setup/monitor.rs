use crate::Health;
use crate::joints::JOINTS;
use crate::protocol::{Bus, BusError};
use crate::registers::{
    GOAL_POSITION, MOVING, PRESENT_CURRENT, PRESENT_POSITION, PRESENT_VELOCITY, TORQUE_ENABLE,
};

/// What one servo shows.
#[derive(Debug, Clone, PartialEq)]
pub struct JointReadout {
    /// The joint's name.
    pub joint: &'static str,
    /// How the servo feels.
    pub health: Health,
    /// Where it should be.
    pub goal_ticks: i32,
    /// Where it is.
    pub position_ticks: i32,
    /// How fast it turns.
    pub velocity_ticks_s: i32,
    /// Through the motor.
    pub current_ma: f64,
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
            health: Health::of(&block),
            goal_ticks: GOAL_POSITION.within(&block, from),
            position_ticks: PRESENT_POSITION.within(&block, from),
            velocity_ticks_s: PRESENT_VELOCITY.within(&block, from),
            current_ma: f64::from(PRESENT_CURRENT.within(&block, from)) * 6.5,
            moving: MOVING.within(&block, from) != 0,
        }));
    }
    Ok(readouts)
}
