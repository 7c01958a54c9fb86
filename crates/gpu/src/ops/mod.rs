//! One typed launch a kernel. Every one names its twin: the CPU's code that gives the same values.

mod expert;
mod expert_persistent;
mod gated_attention;
mod gemm;
mod join;
mod low_rank;
mod low_rank_split;
mod masked_apply;
mod masks;
mod pieces;
mod thresholds;

pub use expert::{
    ActionExpert, ExpertKeys, ExpertLayer, ExpertLinear, ExpertNorm, ExpertOperands, ExpertShape,
};
pub use gated_attention::{AttentionGroup, GatedAttention, GatedShape, RotaryTable};
pub use gemm::{Linear, LinearScratch, LinearThen, linear};
pub use join::{Join, JoinTensor, Thinning, elect, join};
pub use low_rank::{LowRank, LowRankExpert, LowRankMatrix};
pub use masked_apply::{MaskedApply, MaskedTensor, TaskOutput};
pub use masks::{ExpertMask, MaskCounts, MaskRule, MaskedVectors, count_masks, make_masks};
pub use thresholds::{ThresholdScope, Thresholds};
