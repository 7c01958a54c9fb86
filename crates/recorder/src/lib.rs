//! Episodes as LeRobotDataset v3.0: [`Recorder`] writes them, safe against crashes and full disks; [`Dataset`] reads and
//! checks them. What it writes, the `lerobot` package trains on as it is.
//!
//! A dataset is a folder: `meta/info.json` says what is in it, `meta/tasks.parquet` has the texts of tasks,
//! `meta/episodes` a row an episode with its statistics, `meta/stats.json` those of all, `data` the frames with their images
//! as PNG. With the feature `mp4`, images may be videos instead ([`Spec::video`]): an mp4 file an episode and camera in `videos`.
//! Each episode has a data file and a metadata file of its own, so that none is ever written to again.
//!
//! This crate knows no robot and no policy: it takes numbers and images.

mod atomic;
mod check;
mod column;
mod data_file;
mod dataset;
#[cfg(feature = "mp4")]
mod encoder;
mod episode;
mod episode_file;
mod error;
mod folder;
mod image;
mod info;
mod journal;
mod layout;
mod mp4;
mod recorder;
mod spec;
mod statistics;
mod table;
mod task_file;

pub use check::{Images, Problem, Report, TOLERANCE_S};
pub use dataset::{Dataset, Episode, Frames, RecordedFrame};
pub use episode::NewFrame;
pub use error::RecorderError;
pub use folder::is_free;
pub use image::{RecordedImage, Rgb};
pub use info::{Feature, Info};
pub use recorder::{Finished, Recorder, Saved};
pub use spec::{Extra, ExtraKind, ExtraValue, Spec};
