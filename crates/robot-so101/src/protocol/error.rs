use skillweld_robot::RobotError;

use super::Damage;
use crate::joints::{label, labels};

/// What went wrong on the bus. Texts name the servo, or the port and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The port cannot be opened.
    #[error("{port} cannot be opened: {reason}")]
    Open {
        /// The port's path.
        port: String,
        /// What the system says, and what to do.
        reason: String,
    },
    /// The port is gone: unplugged, or its driver gave up. What follows will fail until it is opened again.
    #[error("lost the connection at {port} ({reason}): check the arm's USB cable, then connect again")]
    Lost {
        /// The port's path.
        port: String,
        /// What the system says.
        reason: String,
    },
    /// Servos that do not answer, however often they are asked.
    #[error("no reply from {}: check the cable to the servo and its power supply", labels(.ids))]
    NoReply {
        /// Their ids.
        ids: Vec<u8>,
    },
    /// A servo's replies arrive damaged.
    #[error("damaged reply from {}: {damage}; check the cable to the servo", label(*.id))]
    Damaged {
        /// The servo that was asked.
        id: u8,
        /// What is wrong with them.
        damage: Damage,
    },
    /// A register does not hold what was written to it.
    #[error("{}: {register} is {read} after {wrote} was written", label(*.id))]
    Unverified {
        /// The servo.
        id: u8,
        /// The register's name.
        register: &'static str,
        /// What was written.
        wrote: i32,
        /// What is read.
        read: i32,
    },
    /// A number that the register cannot hold: nothing was sent.
    #[error("{register} cannot hold {value}")]
    Value {
        /// The register's name.
        register: &'static str,
        /// The number.
        value: i32,
    },
    /// A register that cannot be written: nothing was sent.
    #[error("{register} can only be read")]
    ReadOnly {
        /// The register's name.
        register: &'static str,
    },
    /// Torque was turned off, and it could not be seen that it is.
    #[error("torque is not off at {}: hold the arm and switch its power supply off", labels(.ids))]
    TorqueOn {
        /// Their ids.
        ids: Vec<u8>,
    },
}

impl BusError {
    /// Whether nothing will work until the port is opened again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Open { .. })
    }
}

impl From<BusError> for RobotError {
    fn from(error: BusError) -> Self {
        let text = error.to_string();
        match error {
            BusError::Open { .. } => Self::Connect(text),
            BusError::Lost { .. } => Self::Disconnected(text),
            BusError::Value { .. } | BusError::ReadOnly { .. } => Self::Command(text),
            _ => Self::Bus(text),
        }
    }
}
