//! One typed launch a kernel. Every one names its twin: the CPU's code that gives the same values.

mod expert;
mod expert_persistent;
mod gated_attention;
mod masked_apply;
mod pieces;

pub use expert::{
    ActionExpert, ExpertKeys, ExpertLayer, ExpertLinear, ExpertNorm, ExpertOperands, ExpertShape,
};
pub use gated_attention::{AttentionGroup, GatedAttention, GatedShape, RotaryTable};
pub use masked_apply::{MaskedApply, MaskedTensor, TaskOutput};
