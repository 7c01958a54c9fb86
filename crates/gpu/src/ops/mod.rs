//! One typed launch a kernel. Every one names its twin: the CPU's code that gives the same values.

mod activation;
mod copies;
mod gemm;
mod masked_apply;
mod norm;
mod patches;
mod pieces;
mod plain_attention;
mod precise_trunk;
mod prefill_attention;
mod rope;
mod rows;

pub use activation::{add, gelu, swiglu};
pub use copies::{copy_columns, copy_rows, gather_rows};
pub use gemm::{Linear, LinearScratch, LinearThen, linear};
pub use masked_apply::{MaskedApply, MaskedTensor, TaskOutput};
pub use norm::{layer_norm, rms_norm};
pub use patches::{PatchShape, patches};
pub use plain_attention::{GroupView, plain_attention, plain_gated_attention};
pub use precise_trunk::{precise_layer_norm, precise_linear, precise_read};
pub use prefill_attention::{AttentionShape, ColumnsView, prefill_attention, prefill_attention_takes};
pub use rope::{RopePairs, rope};
pub use rows::{RowsView, RowsViewMut, padded};
