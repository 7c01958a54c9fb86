//! The tensor core: what a checkpoint's numbers are, without knowing where they are kept or who computes with them.
//!
//! - [`Dtype`]: every element type that safetensors names, as a run-time enum.
//! - [`TensorView`]: borrowed bytes with dtype and shape; [`convert`] decodes blocks of it to f32 and encodes them back.
//! - [`LowRank`]: a matrix kept as its factors B·A, as LoRA experts come.
//! - [`BitMask`]: one bit an element, packed little-endian, as task masks are stored.
//!
//! This crate does no IO and starts no threads. Compute is f32; dtypes are what things are stored in.

mod bitmask;
pub mod convert;
mod dtype;
mod error;
mod low_rank;
pub mod rounding;
mod view;

pub use bitmask::{
    BitMask, apply as apply_mask, apply_bf16 as apply_mask_bf16, apply_bf16_narrow as apply_mask_bf16_narrow,
    count_both, count_ones, pack as pack_flags,
};
pub use dtype::Dtype;
pub use error::TensorError;
pub use low_rank::LowRank;
pub use view::{TensorView, numel, row_len, row_step};
