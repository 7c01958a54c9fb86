//! Policies as sources of chunks for a robot.
//!
//! - [`LocalPolicy`]: a policy in this process, anything that `skillweld_serve::Policy` is implemented for.
//! - [`RemotePolicy`]: a policy behind openpi's websocket protocol: `skillweld serve`, openpi's own server, and others.
//!
//! Both give what the policy says of itself as an [`Expectation`](skillweld_robot::Expectation), so that units and joints
//! are compared before anything moves. This crate knows no model and moves no motor.

mod expectation;
mod local;
mod remote;
mod reply;

pub use local::LocalPolicy;
pub use remote::{ConnectError, RemoteOptions, RemotePolicy};
