//! What a merge did, in numbers and as a page.
//!
//! ```text
//! MergedCheckpoint ─▶ Report::measure ─▶ Report (JSON) ─▶ Report::to_html ─▶ one page, no script, no network
//! two checkpoints  ─▶ Comparison::of ──▶ what differs, key by key
//! ```
//!
//! Checkpoints are read in slabs by all threads; sums are added in fixed places, so that the bytes of a report depend on
//! nothing but its inputs. This crate knows no recipe beyond what `skillweld.json` says, no plugin, and merges nothing.

mod control;
mod diff;
mod error;
mod experts;
mod inputs;
mod layers;
mod masks;
mod measure;
mod page;
mod router;
mod spectrum;
mod tensor;
mod vectors;

pub use control::Control;
pub use diff::{Comparison, Difference, Group, KeyDifference, Operand};
pub use error::ReportError;
pub use experts::{ExpertVectors, LayerExperts};
pub use inputs::{Input, InputState};
pub use masks::{LayerMasks, MaskShares};
pub use measure::{Block, LeftOut, Options, Report};
pub use router::{Overlap, PairOfTasks};
pub use spectrum::Spectrum;
pub use vectors::{LayerVectors, TaskVectors};
