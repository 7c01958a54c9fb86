//! One typed launch a kernel. Every one names its twin: the CPU's code that gives the same values.

mod blocks;
mod gemm;
mod masked_apply;
mod masks;
mod pieces;
mod plugin_method;
mod table;

pub use blocks::{MergedBlock, StoredBlock, decode_blocks, encode_block, is_block_dtype};
pub use gemm::{Linear, LinearScratch, LinearThen, linear};
pub use masked_apply::{MaskedApply, MaskedTensor, TaskOutput};
pub use masks::{ExpertMask, MaskCounts, MaskRule, MaskedVectors, count_masks, make_masks};
pub use plugin_method::{PluginBlock, PluginKernel, PluginOutput, run_plugin};
pub use table::Table;
