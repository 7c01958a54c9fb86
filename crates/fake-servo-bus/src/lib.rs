//! A pseudo terminal that behaves like an arm of Feetech STS3215 servos, for tests without hardware.
//!
//! [`Servos`] are the servos: registers with factory values, an EEPROM lock, shafts that follow their goals, faults that a
//! test injects, and a record of everything that was asked of them. They are reached in two ways:
//!
//! - [`ServoBus`] serves them at a path that any program opens as a serial port, in real time: a reply is not written before
//!   its bytes, and those of the request, would have passed on the wire;
//! - [`Loopback`] is `Read + Write` in memory, in virtual time: thousands of short runs a second.
//!
//! What the servos do is written from the memory tables that Feetech and its dealers publish, and independently of the
//! driver in `robot-so101`, which must not be tested against its own idea of the protocol; `tests/python/` lets
//! Feetech's own Python SDK talk to it. Where the tables are silent, the choice is written at the place.

mod fault;
mod line;
mod loopback;
mod memory;
mod plant;
mod pty;
mod servo;
mod servos;
mod wire;

pub use fault::{Fault, Schedule};
pub use line::{GoalWrite, Packet};
pub use loopback::Loopback;
pub use memory::address;
pub use plant::{Drive, FirstOrder, Plant, Shaft};
pub use pty::{ServoBus, ServoBusError};
pub use servos::Servos;
