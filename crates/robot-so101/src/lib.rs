//! SO-100 and SO-101 arms: six Feetech STS3215 servos on one half-duplex serial line.
//!
//! - [`protocol`]: packets, the bus with its deadlines and retries;
//! - [`registers`]: the servo's memory by name;
//! - [`calibration`]: LeRobot's calibration files, shared with LeRobot so that nobody calibrates twice;
//! - [`units`]: ticks of the encoders to degrees and percent, as LeRobot computes them;
//! - [`So101Follower`] is moved, [`So101Leader`] is moved by hand and read;
//! - [`setup`]: what prepares an arm: ports, ids, calibration, a look at its registers;
//! - [`guard`]: a second process that turns torque off when this one is killed or hangs.
//!
//! # What happens to the arm when the program ends
//! [`stop`](skillweld_robot::Robot::stop) and dropping the follower turn torque off and read back that it is off. A process
//! that is killed can do neither, and then *the arm keeps its last goal with torque*: an STS3215 has no time-out of its own.
//! Nothing in its memory table makes it let go when the host falls silent; its protections (overload, current, heat) look
//! at the motor only. For this there is the guardian: a process that holds the other end of a pipe and turns torque off when
//! the pipe breaks, or when nothing comes through it any more.
//!
//! # Why a protocol of its own
//! The crate `rustypot` (1.13.1) speaks to these servos too. Its plain dependencies are, besides `serialport`, `clap`,
//! `env_logger`, `signal-hook`, `num_enum` and `paste` (read from its entry in the index): a driver should bring neither
//! a parser of command lines nor a logger. Its errors are boxed and not `Send`, so that nothing can be decided by them; a
//! robot must tell a servo that is silent from a cable that is out. The protocol is seven instructions. It is the
//! cross-check of ours: in the tests both ask the same fake servos (`tests/rustypot.rs`), and both have the same table of
//! registers. Feetech's own Python SDK checks the fake servos (`fake-servo-bus`, `tests/python/`).

pub mod calibration;
pub mod guard;
pub mod protocol;
pub mod registers;
pub mod setup;
pub mod units;

mod arm;
mod follower;
mod health;
mod joints;
mod leader;
mod torque;

pub use arm::{ArmOptions, Opener};
pub use follower::{FollowerOptions, So101Follower};
pub use health::Health;
pub use joints::{JOINTS, Motor, label};
pub use leader::So101Leader;
pub use torque::torque_off;
