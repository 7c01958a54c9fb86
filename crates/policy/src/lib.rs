//! From observations to action chunks: image and text preprocessing, the Prismatic/MergeVLA forward, task switching and
//! sessions that route.
//!
//! [`Model`] is the forward. Its code is written once over the operations of [`backend::Backend`]; [`Cpu`] runs them on
//! the processor. Weights come from a [`Source`] (an expert's files, a merged checkpoint seen through one task's mask),
//! lie on the backend once, and can be rewritten in place.

pub mod backend;
mod config;
mod cpu;
mod error;
pub mod expert;
mod forward;
pub mod image;
mod language;
mod projector;
mod rope;
mod source;
pub mod statistics;
pub mod text;
mod vision;
mod weights;

pub use config::{Config, LanguageConfig, TowerConfig};
pub use cpu::{Cpu, CpuMatrix, CpuTrunk, CpuWeight, Precision};
pub use error::PolicyError;
pub use forward::{Forward, Inputs, Latency, Model, ModelOptions, Perception};
pub use language::{LanguageModel, Slices};
pub use projector::Projector;
pub use rope::{Rope, RopePrecision};
pub use source::ExpertSource;
pub use vision::VisionTower;
pub use weights::{Device, Plan, Source, WeightId, Weights};
