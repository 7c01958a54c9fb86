//! From a recipe to one merged checkpoint.
//!
//! ```text
//! Recipe::read ─▶ Models::open ─▶ Plan::new ─▶ Plan::run ─▶ merged checkpoint + Report
//!    (YAML)         (mmap)       (every key)   (streaming)        │
//!                                                     MergedCheckpoint::open ─▶ inspect, materialize
//! ```
//!
//! The plan accounts for every tensor of every input before anything is computed; the executor streams tensors through
//! the plugins with bounded memory; the output appears complete or not at all.
//!
//! What is written is read back by the crate `merged`.
//!
//! This crate knows no merge method: those live in plugins. It prints nothing; progress goes through [`Control`].

mod base_files;
mod block_distances;
mod error;
mod execute;
mod inspect;
mod materialize;
mod measure;
mod models;
mod output;
mod output_guard;
mod plan;
pub mod recipe;
mod report;
mod router;
mod run;
mod side_files;
mod source;
mod stages;
mod statistics;

pub use base_files::{BaseMode, KeptBase};
pub use error::{MergeError, Mixed};
pub use execute::{Control, DeviceReport};
pub use inspect::{
    AdapterInfo, Alias, CheckpointKind, Inspection, MergedInfo, MergedTask, SideFile, TensorInfo, Totals,
    inspect, inspect_with_base,
};
pub use materialize::{MaterializeReport, materialize};
pub use models::Models;
pub use output_guard::{Inputs, guard_output};
pub use plan::{ActionKind, Part, Plan, PlanLine, PlanSummary, TensorGroup, Total};
pub use report::{BlockDistances, LayerReport, MaskReport, Report};
pub use run::{RunOptions, Written};
pub use stages::{Check, StageState, Stages, model_files};
