use std::io::{self, Read, Write};
use std::time::Duration;

use crate::Servos;

/// A port in memory, in virtual time: reading lets the time pass that it takes until the next reply, at most the timeout.
pub struct Loopback {
    servos: Servos,
    timeout: Duration,
    /// What was due and did not fit into the reader's buffer.
    rest: Vec<u8>,
}

impl Loopback {
    /// Opens the line, at 1,000,000 baud and with a timeout of 10 ms.
    ///
    /// # Errors
    /// `NotFound` while the cable is pulled.
    pub fn open(servos: &Servos) -> io::Result<Self> {
        let mut line = servos.lock();
        if !line.plugged {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        line.baud = 1_000_000;
        line.discard();
        drop(line);
        Ok(Self { servos: servos.clone(), timeout: Duration::from_millis(10), rest: Vec::new() })
    }

    /// How much virtual time a read waits.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Changes the port's baud rate: only servos that are set to it hear what follows.
    pub fn set_baud(&mut self, baud: u32) {
        self.servos.lock().baud = baud;
    }

    /// Forgets what has come and was not read.
    pub fn clear_input(&mut self) {
        self.rest.clear();
        let mut line = self.servos.lock();
        while line.take_due().is_some() {}
    }
}

impl Read for Loopback {
    /// # Errors
    /// `TimedOut` if nothing came in time; `BrokenPipe` once the cable is pulled.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut line = self.servos.lock();
        if !line.plugged {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        if self.rest.is_empty() {
            let limit = line.now + self.timeout;
            let until = line.next_due().map_or(limit, |due| due.min(limit));
            line.advance_to(until);
            while let Some(bytes) = line.take_due() {
                self.rest.extend(bytes);
            }
        }
        if self.rest.is_empty() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        Ok(length)
    }
}

impl Write for Loopback {
    /// # Errors
    /// `BrokenPipe` once the cable is pulled.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = self.servos.lock();
        if !line.plugged {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        line.receive(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
