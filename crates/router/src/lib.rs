//! The training-free task router of MergeVLA (arXiv 2511.18810): which task does this observation belong to?
//!
//! - [`top_right_singular_vectors`]: the subspace P_k of an expert's projection, made when experts are merged.
//! - [`score`]: how much of the hidden states lies in the subspaces of a task.
//! - [`Calibration`]: where a task's own observations lie in its subspaces, so that tasks compare.
//! - [`Rule`] and [`Decision`]: scores → softmax, margin, the task to run, or the fallback when nobody is sure.
//!
//! Pure functions on matrices: this crate reads no file, runs no model and does not know what a task is beyond its
//! name.

mod calibration;
mod decision;
mod score;
mod subspace;

pub use calibration::{Calibration, projections};
pub use decision::{Candidate, Decision, Outcome, Rule, RuleError, softmax};
pub use score::score;
pub use subspace::{SubspaceError, top_right_singular_vectors};
