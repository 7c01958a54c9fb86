//! A merged checkpoint on disk, read: pretrained weights, merged task vector, masks, expert heads, router, statistics.
//!
//! Two layouts end in one type, [`MergedCheckpoint`]: Skillweld's own (`skillweld.json`, see [`layout`]) and the one that
//! the published MergeVLA code writes (`task2idx.pt`, `tall_masks.pt`, one action head of all tasks). Opening reads
//! headers; tensors stay in their mapped files until somebody looks at them.
//!
//! ```text
//! MergedCheckpoint::open ─▶ task_weight(task, key) ─▶ TaskWeight::decode_block: Θ₀ + rescaler · M ⊙ τ
//!                        ├▶ shared_part, own_part: action expert and projectors under the expert's own names
//!                        └▶ router, statistics
//! ```
//!
//! This crate knows no recipe, no plugin and no merge: whoever runs a merged checkpoint needs nothing else of Skillweld
//! than `store` and `tensor`. It writes nothing and starts no threads.

mod check;
mod checkpoint;
mod error;
pub mod layout;
mod mask;
mod official;
mod own;
mod parts;
mod statistics;
mod weight;

pub use checkpoint::{ACTION_QUERIES, MergedCheckpoint, Role};
pub use error::MergedError;
pub use mask::Mask;
pub use own::read_json;
pub use parts::{ExpertPart, RouterSubspace};
pub use statistics::is_one_data_set;
pub use weight::{Scratch, TaskVector, TaskWeight, Weight};
