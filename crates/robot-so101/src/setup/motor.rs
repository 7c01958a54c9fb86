use super::{SetupError, scan};
use crate::arm::MODELS;
use crate::joints::{JOINTS, label};
use crate::protocol::{BAUD, Bus, BusError};
use crate::registers::{BAUD_RATE, BAUD_RATES, ID, LOCK, TORQUE_ENABLE};

/// The joints in the order in which their servos get their ids: from the gripper down, as LeRobot does it, each plugged in
/// alone.
pub const SETUP_ORDER: [usize; 6] = [5, 4, 3, 2, 1, 0];

/// New servos have id 1; those of an arm up to 6. Others are looked for only if none of these answers.
const LIKELY: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// Gives the one servo that is plugged in a joint's id, and 1,000,000 baud, for good. `joint` is a place in
/// [`JOINTS`]. Returns the baud rate and id that it had.
///
/// # Errors
/// [`SetupError::Motor`] if none or several answer, or one of another model; [`SetupError::Bus`] if it does not take them.
pub fn setup_motor(bus: &mut Bus, joint: usize) -> Result<(u32, u8), SetupError> {
    let name = JOINTS[joint].name;
    let found = find_single(bus, name)?;
    bus.set_baud(found.0)?;
    let (old, new) = (found.1, JOINTS[joint].id);
    bus.write_verified(old, &TORQUE_ENABLE, 0)?;
    bus.write_verified(old, &LOCK, 0)?;
    if old != new {
        // Which of its ids the servo answers with depends on its firmware; what counts is that the new one answers.
        certain(bus.write(old, &ID, i32::from(new)))?;
        bus.ping(new)?;
    }
    if found.0 != BAUD {
        certain(bus.write(new, &BAUD_RATE, 0))?;
        bus.set_baud(BAUD)?;
    }
    bus.write_verified(new, &LOCK, 1)?;
    let kept = (bus.read(new, &ID)?, bus.read(new, &BAUD_RATE)?);
    if kept == (i32::from(new), 0) {
        Ok(found)
    } else {
        Err(SetupError::Motor(format!("{} did not keep its new id: try again", label(new))))
    }
}

/// A reply that is missing says nothing here; a port that is missing does.
fn certain(written: Result<(), BusError>) -> Result<(), BusError> {
    match written {
        Err(error) if error.is_lost() => Err(error),
        _ => Ok(()),
    }
}

fn find_single(bus: &mut Bus, name: &str) -> Result<(u32, u8), SetupError> {
    let unlikely: Vec<u8> = (0..=253).filter(|id| !LIKELY.contains(id)).collect();
    for (bauds, ids) in [(&BAUD_RATES[..], &LIKELY[..]), (&BAUD_RATES[..1], &unlikely[..])] {
        let found = scan(bus, bauds, ids, |_, _| {})?;
        match found[..] {
            [] => {}
            [one] if MODELS.contains(&one.model) => return Ok((one.baud, one.id)),
            [one] => {
                return Err(SetupError::Motor(format!(
                    "the servo that is plugged in is of model {}, and not an STS3215 (777)",
                    one.model
                )));
            }
            _ => {
                let ids: Vec<String> = found.iter().map(|one| one.id.to_string()).collect();
                return Err(SetupError::Motor(format!(
                    "several servos answer, with ids {}: plug in only that of {name}",
                    ids.join(", ")
                )));
            }
        }
    }
    Err(SetupError::Motor(format!(
        "no servo answers: plug in that of {name}, and only that, and switch the power supply on"
    )))
}
