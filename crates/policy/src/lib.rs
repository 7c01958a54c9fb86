//! From observations to action chunks: image and text preprocessing, the Prismatic/MergeVLA forward, task switching and
//! sessions that route.
//!
//! ```text
//! Observation ─▶ image, text ─▶ Model::perceive ─▶ hidden states ─▶ router: which task? ─▶ Model::act ─▶ statistics ─▶ actions
//!                                   ▲                                    │
//!                                   └── ActiveTasks: Θ₀ + rescaler · M ⊙ τ, in place ◀──┘
//! ```
//!
//! [`Policy`] is a checkpoint ready to answer, [`Session`] one episode with it. [`Model`] is the forward. Its code is
//! written once over the operations of [`backend::Backend`]; [`Cpu`] runs them on the processor. Weights come from a
//! [`Source`] (an expert's files, or a merged checkpoint seen through one task's mask: [`TaskSource`]), lie on the
//! backend once, and can be rewritten in place.

mod action_space;
mod active;
pub mod backend;
mod batch;
mod calibration;
mod config;
mod cpu;
mod error;
pub mod expert;
mod forward;
mod gpu;
pub mod image;
mod language;
mod observation;
mod policy;
mod pool;
mod projector;
mod rope;
mod routing;
mod session;
mod source;
pub mod statistics;
mod task_source;
pub mod text;
mod vision;
mod weights;

pub use action_space::{ActionKind, ActionSpace};
pub use calibration::write_calibrations;
pub use config::{Config, LanguageConfig, TowerConfig};
pub use cpu::{Cpu, CpuMatrix, CpuTrunk, CpuWeight, Precision};
pub use error::PolicyError;
pub use forward::{Forward, Inputs, Latency, Model, ModelOptions, Perception};
pub use gpu::{Gpu, GpuMatrix, GpuTrunk, GpuWeight};
pub use language::{LanguageModel, Slices};
pub use observation::Observation;
pub use policy::{Policy, PolicyOptions, Shape};
pub use projector::Projector;
pub use rope::{Rope, RopePrecision};
pub use session::{Forwards, Reason, Routing, Session, Step, StepLatency};
pub use skillweld_router::{Calibration, Candidate, Decision, Outcome, Rule};
pub use source::ExpertSource;
pub use task_source::TaskSource;
pub use vision::VisionTower;
pub use weights::{Device, Plan, Source, SourceTensor, WeightId, Weights};
