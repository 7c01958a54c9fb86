//! Checkpoints that look like real ones from outside — names, shapes, dtypes, shards, side files — and hold random
//! numbers inside.
//!
//! - [`PrismaticSpec`]: a vision-language-action base and its experts, as MergeVLA's authors publish them.
//! - [`write_observation`]: what a robot's cameras and joints say at one moment.
//! - [`PolicySpec`]: flow-matching policies (π0, π0.5, SmolVLA, GR00T) by their published names.
//! - [`Qwen2Spec`]: a plain language model and its fine-tunes, at any size up to gigabytes.
//!
//! Values come from a counter-based generator ([`Noise`]): the same spec gives the same bytes on every machine, any part
//! of a tensor can be made without the rest, and gigabytes stream to disk through one buffer. The safetensors files are
//! written here, not by `skillweld-store`, so that what our reader accepts is not only what our writer writes.

mod action_expert;
mod embodiment;
mod expert;
mod metadata;
mod noise;
mod observation;
mod param;
mod policy_spec;
mod prismatic;
mod qwen2;
mod safetensors_file;

pub use embodiment::Embodiment;
pub use expert::{ExpertForm, Written};
pub use noise::Noise;
pub use observation::write_observation;
pub use policy_spec::{PolicyFamily, PolicySpec};
pub use prismatic::{PrismaticSpec, VitSpec};
pub use qwen2::{LanguageModel, Qwen2Spec};
