//! Torque off when the program that drives the arm is killed.
//!
//! The servos have no time-out. So a second process is started when the arm is connected: it touches nothing and reads from
//! a pipe. When the program stops the arm it says so through the pipe, and the guardian ends. When the pipe breaks without
//! that word, the program is dead; the system has closed its port by then, and the guardian opens it and turns torque off.
//! It does not help against a computer that loses its power or its cable: only the switch of the arm's supply does.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skillweld_robot::RobotError;

use crate::joints::IDS;
use crate::protocol::{BAUD, Bus, BusError};
use crate::torque_off;

/// The word that torque is off already.
const RELEASED: &[u8] = b"released";
/// Time for the system to close what the dead program had open.
const GRACE: Duration = Duration::from_millis(100);
/// How long the guardian tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a guardian is started: a program that calls [`guard`] with its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardianCommand {
    /// The program, most likely this one.
    pub program: PathBuf,
    /// What makes it a guardian, and of which port.
    pub arguments: Vec<OsString>,
}

/// A guardian at work.
pub struct GuardianHandle {
    child: Child,
}

impl GuardianHandle {
    /// Starts the guardian, out of reach of the terminal's Ctrl-C.
    ///
    /// # Errors
    /// [`RobotError::Connect`] if the program cannot be started.
    pub fn start(command: &GuardianCommand) -> Result<Self, RobotError> {
        let mut process = Command::new(&command.program);
        process.args(&command.arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut process, 0);
        let child = process.spawn().map_err(|error| {
            let program = command.program.display();
            RobotError::Connect(format!(
                "cannot start the guardian {program}, which watches over torque: {error}"
            ))
        })?;
        Ok(Self { child })
    }

    /// Tells the guardian that torque is off, and waits until it has ended. One that has died has nothing left to do.
    pub fn release(mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            let _ = pipe.write_all(RELEASED);
        }
        let _ = self.child.wait();
    }
}

/// What a guardian did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// The program turned torque off itself.
    Released,
    /// The program died; torque was turned off, and read back to be off.
    TorqueOff,
}

/// What a guardian does: waits until `pipe` ends, and turns the arm at `port` off if it ended without the right word.
///
/// # Errors
/// [`BusError`] if torque may still be on: the port does not open, or servos do not answer, for ten seconds.
pub fn guard(port: &str, mut pipe: impl Read) -> Result<Guarded, BusError> {
    let mut word = Vec::new();
    loop {
        let mut buffer = [0; 64];
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => word.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A pipe that fails is a pipe that is broken.
            Err(_) => break,
        }
        if word == RELEASED {
            return Ok(Guarded::Released);
        }
    }
    std::thread::sleep(GRACE);
    let end = Instant::now() + PATIENCE;
    loop {
        match Bus::open(port, BAUD).and_then(|mut bus| torque_off(&mut bus, &IDS)) {
            Ok(()) => return Ok(Guarded::TorqueOff),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => std::thread::sleep(GRACE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_word_ends_the_watch() {
        // The port is never opened: there is none.
        assert_eq!(guard("/nowhere", &b"released"[..]), Ok(Guarded::Released));
    }

    #[test]
    fn a_guardian_that_cannot_be_started_is_named() {
        let command = GuardianCommand { program: "/nowhere/guardian".into(), arguments: Vec::new() };
        let error = GuardianHandle::start(&command).err().unwrap().to_string();
        assert!(error.contains("/nowhere/guardian"), "{error}");
    }
}
