//! One typed launch a kernel. Every one names its twin: the CPU's code that gives the same values.

mod activation;
mod blocks;
mod copies;
mod expert;
mod expert_persistent;
mod gated_attention;
mod gemm;
mod low_rank;
mod low_rank_split;
mod masked_apply;
mod masks;
mod merge;
mod norm;
mod patches;
mod pieces;
mod plain_attention;
mod plugin_method;
mod precise_trunk;
mod prefill_attention;
mod rope;
mod router;
mod rows;
mod table;
mod threshold;

pub use activation::{add, gelu, swiglu};
pub use blocks::{MergedBlock, StoredBlock, decode_blocks, encode_block, is_block_dtype};
pub use copies::{copy_columns, copy_rows, gather_rows};
pub use expert::{
    ActionExpert, ExpertKeys, ExpertLayer, ExpertLinear, ExpertNorm, ExpertOperands, ExpertShape,
};
pub use gated_attention::{AttentionGroup, GatedAttention, GatedShape, RotaryTable};
pub use gemm::{Linear, LinearScratch, LinearThen, linear};
pub use low_rank::{LowRank, LowRankExpert, LowRankMatrix};
pub use masked_apply::{MaskedApply, MaskedTensor, TaskOutput};
pub use masks::{ExpertMask, MaskCounts, MaskRule, MaskedVectors, count_masks, make_masks};
pub use merge::{MergeRule, MergeTensor, MergeVotes, Merging, Thin, ZeroSum, merge};
pub use norm::{layer_norm, rms_norm};
pub use patches::{PatchShape, patches};
pub use plain_attention::{GroupView, plain_attention, plain_gated_attention};
pub use plugin_method::{PluginBlock, PluginKernel, PluginOutput, run_plugin};
pub use precise_trunk::{precise_layer_norm, precise_linear, precise_read};
pub use prefill_attention::{AttentionShape, ColumnsView, prefill_attention, prefill_attention_takes};
pub use rope::{RopePairs, rope};
pub use router::{RouterScores, RouterSubspace};
pub use rows::{RowsView, RowsViewMut, padded};
pub use table::Table;
pub use threshold::{ExactThresholds, SearchCourse, TaskVectors, Threshold, TrimScope};
