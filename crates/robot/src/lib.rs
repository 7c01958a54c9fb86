//! What moves an arm: a [`Robot`] is observed and told where to go; everything between a policy's chunks and its motors.
//!
//! This crate knows no policy, no model, no wire protocol and no file format: drivers are crates of their own
//! (`robot-so101`, `robot-sim`), and whoever has chunks of actions hands them over behind a trait.

mod camera;
mod error;
mod joint;
mod observation;
mod robot;

pub use camera::Camera;
pub use error::RobotError;
pub use joint::{Joint, Unit};
pub use observation::{CameraStream, Frame, Observation};
pub use robot::{Description, Robot};
