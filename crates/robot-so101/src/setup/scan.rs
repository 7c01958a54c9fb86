use crate::protocol::{Bus, BusError, Retries};
use crate::registers::{FIRMWARE_MAJOR, FIRMWARE_MINOR, MODEL_NUMBER};

/// A servo that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// At which baud rate.
    pub baud: u32,
    /// To which id.
    pub id: u8,
    /// 777 is an STS3215.
    pub model: i32,
    /// Before and after the point.
    pub firmware: (i32, i32),
}

/// Asks every id at every baud rate, about 7 ms each; `asked` is told before each, and the bus has the last rate then.
///
/// # Errors
/// [`BusError::Lost`]; a servo that answers its ping and nothing else is an error too.
pub fn scan(
    bus: &mut Bus,
    bauds: &[u32],
    ids: &[u8],
    mut asked: impl FnMut(u32, u8),
) -> Result<Vec<Found>, BusError> {
    let mut found = Vec::new();
    for &baud in bauds {
        bus.set_baud(baud)?;
        for &id in ids {
            asked(baud, id);
            let before = bus.set_retries(Retries::PROBE);
            let answer = bus.ping(id);
            bus.set_retries(before);
            match answer {
                Ok(()) => {
                    let model = bus.read(id, &MODEL_NUMBER)?;
                    let firmware = (bus.read(id, &FIRMWARE_MAJOR)?, bus.read(id, &FIRMWARE_MINOR)?);
                    found.push(Found { baud, id, model, firmware });
                }
                Err(error) if error.is_lost() => return Err(error),
                // Silence, or the noise of a servo at another rate.
                Err(_) => {}
            }
        }
    }
    Ok(found)
}
