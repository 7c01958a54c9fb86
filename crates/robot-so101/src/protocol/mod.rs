//! Feetech's serial protocol: packets as bytes, and a bus that asks and waits.
//!
//! A request is `FF FF id length instruction params… sum`, a reply `FF FF id length status params… sum`; `length` counts what
//! follows it, `sum` is the complement of the sum of all bytes after the header. Words have their low byte first.
//!
//! The line must be free of echo: what the host sends must not come back to it. All boards made for these servos see to
//! that. An echo could not be told from a reply, for a ping's echo is, byte for byte, a reply that reports low voltage.

mod bus;
mod error;
mod packet;
mod status;
mod transport;

pub use bus::{BAUD, Bus, Retries};
pub use error::BusError;
pub use packet::Damage;
pub use status::Status;
pub use transport::{SerialTransport, Transport};
