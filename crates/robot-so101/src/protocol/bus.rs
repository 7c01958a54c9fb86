use std::io;
use std::time::{Duration, Instant};

use super::packet::{BROADCAST, Damage, Instruction, Scan, encode, scan};
use super::{BusError, SerialTransport, Status, Transport};
use crate::registers::{LOCK, Memory, Register};

/// The baud rate of SO-100 and SO-101 arms.
pub const BAUD: u32 = 1_000_000;

/// How long and how often the bus waits for a reply. An exchange takes at most `attempts` × (wire time + `patience` + 1 ms),
/// and 10 ms more for each attempt on a line that is never silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often a request is sent before it has failed; at least once.
    pub attempts: u32,
    /// Time for a reply beside that of the bytes on the wire: the servo's return delay (0.5 ms at most), the USB adapter and
    /// the system.
    pub patience: Duration,
}

impl Retries {
    /// For arms that work: three attempts, 15 ms each.
    pub const STEADY: Self = Self { attempts: 3, patience: Duration::from_millis(15) };
    /// For servos that are probably not there: one attempt, 6 ms.
    pub const PROBE: Self = Self { attempts: 1, patience: Duration::from_millis(6) };
}

/// How long the line is silent before it counts as silent.
const SILENCE: Duration = Duration::from_millis(1);
/// An adapter that never falls silent ends this.
const NOISE: usize = 1024;

/// Asks servos, and waits for their replies.
///
/// The policy: requests that are not answered, or not with a whole reply, are sent again. Reading twice does no harm, nor
/// does writing the same number twice; what must be certain is read back ([`write_verified`](Self::write_verified)).
/// [`sync_write`](Self::sync_write) is not answered by anybody and not verified: goals are sent anew every period. After a
/// failure the line is listened to until it is silent, so that a late reply is not taken for the next one.
pub struct Bus {
    line: Box<dyn Transport>,
    port: String,
    baud: u32,
    retries: Retries,
    input: Vec<u8>,
    /// Whether replies to earlier requests may still be under way.
    unsettled: bool,
    alarms: Vec<(u8, Status)>,
}

impl Bus {
    /// Opens a serial port.
    ///
    /// # Errors
    /// [`BusError::Open`], with what to do.
    pub fn open(port: &str, baud: u32) -> Result<Self, BusError> {
        let open = |error: io::Error| BusError::Open { port: port.into(), reason: reason(&error) };
        Ok(Self::over(Box::new(SerialTransport::open(port, baud).map_err(open)?), port, baud))
    }

    /// Speaks over a line that is open already; `port` is its name in messages.
    pub fn over(line: Box<dyn Transport>, port: &str, baud: u32) -> Self {
        Self {
            line,
            port: port.into(),
            baud,
            retries: Retries::STEADY,
            input: Vec::new(),
            unsettled: true,
            alarms: Vec::new(),
        }
    }

    /// Changes how long and how often replies are waited for, and says how it was before.
    pub fn set_retries(&mut self, retries: Retries) -> Retries {
        std::mem::replace(&mut self.retries, retries)
    }

    /// Changes the port's baud rate.
    ///
    /// # Errors
    /// [`BusError::Lost`] if the port cannot have it.
    pub fn set_baud(&mut self, baud: u32) -> Result<(), BusError> {
        self.line.set_baud(baud).map_err(|error| self.lost(&error))?;
        self.baud = baud;
        self.unsettled = true;
        Ok(())
    }

    /// How long so many bytes take on the wire: ten bits each.
    pub fn wire_time(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 10.0 / f64::from(self.baud.max(1)))
    }

    /// What servos have complained about in their replies since this was asked last: one entry a servo.
    pub fn take_alarms(&mut self) -> Vec<(u8, Status)> {
        std::mem::take(&mut self.alarms)
    }

    /// Whether a servo answers.
    ///
    /// # Errors
    /// [`BusError::NoReply`], [`BusError::Damaged`] or [`BusError::Lost`].
    pub fn ping(&mut self, id: u8) -> Result<(), BusError> {
        self.ask(id, Instruction::Ping, &[], 0).map(drop)
    }

    /// The number in a register.
    ///
    /// # Errors
    /// [`BusError::NoReply`], [`BusError::Damaged`] or [`BusError::Lost`].
    pub fn read(&mut self, id: u8, register: &Register) -> Result<i32, BusError> {
        Ok(register.decode(&self.read_block(id, register.address, register.size)?))
    }

    /// `count` bytes of a servo's memory.
    ///
    /// # Errors
    /// [`BusError::NoReply`], [`BusError::Damaged`] or [`BusError::Lost`].
    pub fn read_block(&mut self, id: u8, address: u8, count: u8) -> Result<Vec<u8>, BusError> {
        self.ask(id, Instruction::Read, &[address, count], usize::from(count))
    }

    /// Writes a register and waits for the servo's word that it has the request.
    ///
    /// # Errors
    /// [`BusError::Value`] and [`BusError::ReadOnly`] before anything is sent, else those of reading.
    pub fn write(&mut self, id: u8, register: &Register, value: i32) -> Result<(), BusError> {
        self.ask(id, Instruction::Write, &write_params(register, value)?, 0).map(drop)
    }

    /// Writes a register until it holds the number, as often as requests are repeated.
    ///
    /// # Errors
    /// [`BusError::Unverified`] if it does not, else those of writing.
    pub fn write_verified(&mut self, id: u8, register: &Register, value: i32) -> Result<(), BusError> {
        let mut read = 0;
        for _ in 0..self.retries.attempts.max(1) {
            self.write(id, register, value)?;
            read = self.read(id, register)?;
            if read == value {
                return Ok(());
            }
        }
        Err(BusError::Unverified { id, register: register.name, wrote: value, read })
    }

    /// Makes registers hold numbers for good, and says whether any was changed. What holds its number already is not written:
    /// an EEPROM wears out. What needs it is written with `Lock` = 0, and the servo is locked again whatever happens.
    ///
    /// # Errors
    /// Those of [`write_verified`](Self::write_verified).
    pub fn settle_registers(&mut self, id: u8, values: &[(&Register, i32)]) -> Result<bool, BusError> {
        let mut differing = Vec::new();
        for &(register, value) in values {
            if self.read(id, register)? != value {
                differing.push((register, value));
            }
        }
        let kept = differing.iter().any(|(register, _)| register.memory != Memory::Sram);
        let unlocked = if kept { self.write_verified(id, &LOCK, 0) } else { Ok(()) };
        let written = unlocked.and_then(|()| {
            differing.iter().try_for_each(|&(register, value)| self.write_verified(id, register, value))
        });
        let locked = if kept { self.write_verified(id, &LOCK, 1) } else { Ok(()) };
        written.and(locked).map(|()| !differing.is_empty())
    }

    /// One register of several servos in one exchange, in the order of the ids.
    ///
    /// # Errors
    /// [`BusError::NoReply`] with all that are silent, [`BusError::Damaged`] or [`BusError::Lost`].
    pub fn sync_read(&mut self, register: &Register, ids: &[u8]) -> Result<Vec<i32>, BusError> {
        let mut params = vec![register.address, register.size];
        params.extend_from_slice(ids);
        let size = usize::from(register.size);
        let request = encode(BROADCAST, Instruction::SyncRead, &params);
        let mut values = Vec::new();
        let mut damage = None;
        for _ in 0..self.retries.attempts.max(1) {
            // All of one moment, or none: a reply with another servo's id leaves its own place empty.
            values = vec![None; ids.len()];
            self.send(&request)?;
            let deadline = self.deadline(request.len() + ids.len() * (size + 6));
            damage = self.collect(size, deadline, |id, params| {
                if let Some(i) = ids.iter().position(|&wanted| wanted == id) {
                    values[i] = Some(register.decode(params));
                }
                values.iter().all(Option::is_some)
            })?;
            if values.iter().all(Option::is_some) {
                return Ok(values.into_iter().flatten().collect());
            }
        }
        let silent: Vec<u8> =
            ids.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(&id, _)| id).collect();
        Err(match (&silent[..], damage) {
            (&[id], Some(damage)) => BusError::Damaged { id, damage },
            _ => BusError::NoReply { ids: silent },
        })
    }

    /// Writes one register of several servos at once. Nobody answers: that it arrived is not known.
    ///
    /// # Errors
    /// [`BusError::Value`] and [`BusError::ReadOnly`] before anything is sent, [`BusError::Lost`].
    pub fn sync_write(&mut self, register: &Register, values: &[(u8, i32)]) -> Result<(), BusError> {
        let mut params = vec![register.address, register.size];
        for &(id, value) in values {
            params.push(id);
            params.extend_from_slice(&write_params(register, value)?[1..]);
        }
        self.send(&encode(BROADCAST, Instruction::SyncWrite, &params))
    }

    /// Asks one servo until it answers.
    fn ask(
        &mut self,
        id: u8,
        instruction: Instruction,
        params: &[u8],
        replied: usize,
    ) -> Result<Vec<u8>, BusError> {
        let request = encode(id, instruction, params);
        let mut failed = None;
        for _ in 0..self.retries.attempts.max(1) {
            self.send(&request)?;
            let mut answer = None;
            let mut stranger = None;
            let deadline = self.deadline(request.len() + replied + 6);
            let damage = self.collect(replied, deadline, |from, params| {
                if from == id {
                    answer = Some(params.to_vec());
                } else {
                    stranger = Some(Damage::WrongId { got: from });
                }
                answer.is_some()
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
            failed = stranger.or(damage).or(failed);
        }
        Err(match failed {
            Some(damage) => BusError::Damaged { id, damage },
            None => BusError::NoReply { ids: vec![id] },
        })
    }

    fn send(&mut self, request: &[u8]) -> Result<(), BusError> {
        if self.unsettled {
            self.settle()?;
        }
        self.input.clear();
        self.line.send(request).map_err(|error| self.lost(&error))
    }

    /// Listens until nothing comes any more.
    fn settle(&mut self) -> Result<(), BusError> {
        self.line.discard().map_err(|error| self.lost(&error))?;
        self.input.clear();
        while self.input.len() < NOISE {
            let deadline = Instant::now() + SILENCE;
            if !self.line.receive(&mut self.input, deadline).map_err(|error| self.lost(&error))? {
                break;
            }
        }
        self.unsettled = false;
        Ok(())
    }

    fn deadline(&self, bytes: usize) -> Instant {
        Instant::now() + self.wire_time(bytes) + self.retries.patience
    }

    /// Hands every whole reply to `accept` until it has enough, or the deadline is over; then what was damaged, if anything.
    fn collect(
        &mut self,
        params: usize,
        deadline: Instant,
        mut accept: impl FnMut(u8, &[u8]) -> bool,
    ) -> Result<Option<Damage>, BusError> {
        let mut from = 0;
        loop {
            let damage = match scan(&self.input[from..], params) {
                Scan::Reply(reply, end) => {
                    from += end;
                    let (id, status) = (reply.id, reply.status);
                    let enough = accept(id, reply.params);
                    self.note(id, status);
                    if enough {
                        return Ok(None);
                    }
                    continue;
                }
                Scan::Nothing(damage) => damage,
            };
            // After the deadline too: what has come while this program was not running counts. But a port that never falls
            // silent must not be listened to for ever.
            let heard = self.input.len() < NOISE
                && self.line.receive(&mut self.input, deadline).map_err(|error| self.lost(&error))?;
            if !heard {
                self.unsettled = true;
                let rest = self.input.len() - from;
                return Ok(damage.or((rest > 0).then_some(Damage::Short { bytes: rest })));
            }
        }
    }

    /// Remembers what a servo complains about, once.
    fn note(&mut self, id: u8, status: Status) {
        if status.is_ok() {
            return;
        }
        match self.alarms.iter_mut().find(|(of, _)| *of == id) {
            Some((_, known)) => known.0 |= status.0,
            None => self.alarms.push((id, status)),
        }
    }

    fn lost(&self, error: &io::Error) -> BusError {
        BusError::Lost { port: self.port.clone(), reason: error.to_string() }
    }
}

fn write_params(register: &Register, value: i32) -> Result<Vec<u8>, BusError> {
    if !register.writable {
        return Err(BusError::ReadOnly { register: register.name });
    }
    let mut params = vec![register.address];
    params.extend(register.encode(value)?);
    Ok(params)
}

/// What keeps people from opening a port, and what to do.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such port; plug the arm in, and look which port it is at".into()
        }
        io::ErrorKind::PermissionDenied => {
            "you may not use it; on Linux `sudo usermod -aG dialout $USER`, then log in again".into()
        }
        io::ErrorKind::ResourceBusy => "another program uses it; end that one first".into(),
        _ => error.to_string(),
    }
}
