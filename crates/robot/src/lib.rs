//! What moves an arm: a [`Robot`] is observed and told where to go; everything between a policy's chunks and its motors.
//!
//! - [`drive`]: the control loop. It asks an [`ActionSource`] for every step's action, brings it within the limits, sends it,
//!   and tells an [`Observer`]; a [`StopSwitch`] stops it.
//! - [`ChunkExecutor`]: chunks of actions from a [`ChunkSource`], computed on a thread of their own while the arm moves;
//!   [`Leader`], [`WithLeader`] and [`Replay`] are the other sources.
//! - [`WithCameras`] adds cameras to an arm, [`DryRun`] takes its commands away.
//!
//! Safety is always on: every command keeps to its limits ([`Clamp`], [`Refusal`]), and a watchdog makes the arm hold, then let
//! go, for any [`Reason`].
//!
//! This crate knows no policy, no model, no wire protocol and no file format: drivers are crates of their own
//! (`robot-so101`, `robot-sim`), and whoever has chunks of actions hands them over behind a trait.

mod agreement;
mod approach;
mod camera;
mod chunk;
mod clock;
mod drive;
mod dry_run;
mod durations;
mod error;
mod executor;
mod joint;
mod leader;
mod limits;
mod observation;
mod observer;
mod pace;
mod replay;
mod robot;
mod scheduling;
mod source;
mod summary;
mod switch;
mod watchdog;
mod with_cameras;

pub use agreement::{Disagreement, agree};
pub use camera::Camera;
pub use chunk::{ActionSpace, Chunk, ChunkError, ChunkRequest, ChunkSource, Expectation, Prompt, Routing};
pub use clock::Clock;
pub use drive::{DriveError, DriveOptions, drive, drive_by_clock};
pub use dry_run::{DryRun, DryRunJoint, DryRunReport};
pub use durations::Durations;
pub use error::RobotError;
pub use executor::{ChunkExecutor, Overlap};
pub use joint::{BodyUnit, Joint, Unit};
pub use leader::{Leader, WithLeader};
pub use limits::{Clamp, Clamped, Refusal};
pub use observation::{CameraStream, Frame, MAX_SIDE, Observation};
pub use observer::{Event, Observer, Origin, Tick};
pub use replay::Replay;
pub use robot::{Description, Robot};
pub use scheduling::Scheduling;
pub use source::{ActionSource, Moment, Next};
pub use summary::{Sections, Summary};
pub use switch::StopSwitch;
pub use watchdog::{Reason, State};
pub use with_cameras::WithCameras;
