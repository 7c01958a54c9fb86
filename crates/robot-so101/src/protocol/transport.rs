use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serialport::{ClearBuffer, SerialPort};

/// Bytes out, and bytes in until a deadline: what a bus needs of a port.
pub trait Transport: Send {
    /// Sends all of the bytes.
    ///
    /// # Errors
    /// Any: the port is lost then.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Appends what has come, after waiting for the first byte until the deadline at most. False: nothing came in time.
    ///
    /// # Errors
    /// Any: the port is lost then.
    fn receive(&mut self, into: &mut Vec<u8>, deadline: Instant) -> io::Result<bool>;

    /// Forgets what has come and was not read.
    ///
    /// # Errors
    /// Any: the port is lost then.
    fn discard(&mut self) -> io::Result<()>;

    /// Changes the baud rate.
    ///
    /// # Errors
    /// Any: the port cannot have it.
    fn set_baud(&mut self, baud: u32) -> io::Result<()>;
}

/// A serial port of the system, for one program at a time.
pub struct SerialTransport {
    port: Box<dyn SerialPort>,
}

/// How long the system may take to accept a request.
const SEND: Duration = Duration::from_millis(100);

impl SerialTransport {
    /// Opens a port, 8 bits, no parity, one stop bit, exclusively.
    ///
    /// # Errors
    /// Those of the system; `ResourceBusy` if another program has the port.
    pub fn open(path: &str, baud: u32) -> io::Result<Self> {
        let port = serialport::new(path, baud).timeout(SEND).open().map_err(|error| match error.kind() {
            // This is what the crate makes of EBUSY and of a lock that is taken.
            serialport::ErrorKind::NoDevice => {
                io::Error::new(io::ErrorKind::ResourceBusy, error.description.clone())
            }
            _ => error.into(),
        })?;
        port.clear(ClearBuffer::All)?;
        Ok(Self { port })
    }
}

impl Transport for SerialTransport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.port.set_timeout(SEND)?;
        self.port.write_all(bytes)
    }

    fn receive(&mut self, into: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
        let mut buffer = [0; 256];
        self.port.set_timeout(deadline.saturating_duration_since(Instant::now()))?;
        match self.port.read(&mut buffer) {
            // The end of a file that has none: the port hung up.
            Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
            Ok(length) => {
                into.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Instant::now() < deadline),
            Err(error) => Err(error),
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        Ok(self.port.clear(ClearBuffer::Input)?)
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<()> {
        Ok(self.port.set_baud_rate(baud)?)
    }
}
