use crate::protocol::{Bus, BusError};
use crate::registers::{GOAL_TIME, TORQUE_ENABLE};

/// How often servos are told to let go before it is said that they may not have.
const ATTEMPTS: usize = 5;

/// Turns torque off and reads back that it is off, several times if need be. Servos that are not there count as torque on: it
/// cannot be seen that they let go.
///
/// # Errors
/// [`BusError::TorqueOn`] with those that were not seen to let go, [`BusError::Lost`].
pub fn torque_off(bus: &mut Bus, ids: &[u8]) -> Result<(), BusError> {
    let mut on = ids.to_vec();
    for _ in 0..ATTEMPTS {
        // One packet that needs no answer comes first: of all packets it is the likeliest to get through a bad line.
        let values: Vec<(u8, i32)> = on.iter().map(|&id| (id, 0)).collect();
        bus.sync_write(&TORQUE_ENABLE, &values)?;
        let mut still_on = Vec::new();
        for id in on {
            match is_off(bus, id) {
                Ok(true) => {}
                Err(error) if error.is_lost() => return Err(error),
                Ok(false) | Err(_) => still_on.push(id),
            }
        }
        on = still_on;
        if on.is_empty() {
            return Ok(());
        }
    }
    Err(BusError::TorqueOn { ids: on })
}

/// Reads more than the one byte: no other request is answered by so many, so that a late reply to another one cannot be
/// taken for the word that torque is off.
fn is_off(bus: &mut Bus, id: u8) -> Result<bool, BusError> {
    let count = GOAL_TIME.address - TORQUE_ENABLE.address + 1;
    Ok(bus.read_block(id, TORQUE_ENABLE.address, count)?[0] == 0)
}
