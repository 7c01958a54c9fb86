//! Checkpoints for other programs.
//!
//! - [`extract_lora`]: base and fine-tune → a PEFT adapter of given rank, by truncated SVD of τ.
//! - [`export_mergevla`]: one of our merged checkpoints → what the published MergeVLA evaluation loads.
//!
//! Both write a directory that appears complete or not at all. What they write is read back by `store` and `merged`. This
//! crate knows no recipe and no plugin, and prints nothing.

mod error;
mod extract;
mod mergevla;
mod provenance;

pub use error::InterchangeError;
pub use extract::{
    AdaptedTensor, ExtractOptions, ExtractReport, LeftOutTensor, Others, SavedTensor, extract_lora,
    extract_work,
};
pub use mergevla::{MergeVlaReport, export_mergevla, export_work};
