//! RETAIN (arXiv 2512.08333): a policy keeps what it could before it was finetuned, because the finetuned weights are only
//! followed part of the way.
//!
//! ```text
//! Θ̃ = (1 − α) Θ_pre + α Θ_ft            α by modality: vision, language, action
//! Θ̃_n = (1 − α) Θ̃_{n−1} + α Θ_ft,n      skill after skill; Θ_ft,n was finetuned from Θ̃_{n−1}
//! ```
//!
//! - [`Interpolation`]: α, the curve (straight, slerp, DARE), and what to do with statistics.
//! - [`Pair`]: a pretrained and a finetuned policy, opened; [`Step`]: what will happen to each of their tensors, and how to
//!   do it.
//! - [`State`]: a folder with a [`Ledger`] and the current checkpoint, in which skills are added, replayed and undone.
//!
//! Every step is a recipe for the crate `merge`, whose planner and executor do the work: one plan of every tensor, everything
//! in f32 and rounded once, the same bytes for any number of threads. What comes out is a plain checkpoint, as training
//! leaves one: the next skill is finetuned from it.

mod contents;
mod error;
mod folder;
mod interpolation;
mod ledger;
mod pair;
mod parts;
mod recipe;
mod started_from;
mod state;
mod statistics;
mod step;

pub use contents::Contents;
pub use error::{Change, RetainError};
pub use interpolation::{Alphas, Interpolation, Method};
pub use ledger::{Ledger, Policy, Skill};
pub use pair::Pair;
pub use started_from::{StartedFrom, Verdict};
pub use state::{Addition, NewSkill, State, Undo, Watch};
pub use statistics::Keep;
pub use step::{Done, Step};
