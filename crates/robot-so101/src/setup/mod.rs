//! What prepares an arm: finding its port, giving ids to servos, calibrating, looking at registers. Nothing here prints or
//! asks; commands and their texts are elsewhere.

mod calibrate;
mod monitor;
mod motor;
mod ports;
mod scan;

use crate::protocol::BusError;

pub use calibrate::{Centring, Range, Sweep};
pub use monitor::{JointReadout, monitor};
pub use motor::{SETUP_ORDER, setup_motor};
pub use ports::{PortInfo, find_ports, unplugged};
pub use scan::{Found, scan};

/// Why an arm cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The bus fails.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The system does not tell its ports.
    #[error("cannot list serial ports: {0}")]
    Ports(String),
    /// It cannot be told which port the arm was at.
    #[error("{0}")]
    Unplugged(String),
    /// Not the one servo that should be there.
    #[error("{0}")]
    Motor(String),
    /// Joints that were not moved.
    #[error("{} did not move: move each joint through its whole range", .0.join(", "))]
    NotMoved(Vec<&'static str>),
}
