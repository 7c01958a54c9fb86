//! What benches time on a GPU: each a piece of real work of full size with its floor, so that a time can be read as a ratio.

mod blocks;
mod expert;
mod gated_attention;
mod gemm;
mod low_rank;
mod masked_apply;
mod masks;
mod merge;
mod plugins;
mod policy;
mod random_memory;
mod router;

use skillweld_gpu::{Device, Result};

/// What is timed: it asks the device for the work once.
pub type Work = Box<dyn FnMut() -> Result<()>>;

/// A piece of work to time.
pub struct Case {
    /// Kernel, then shape: the same name as its peer's in `benches/peers/torch_gpu.py`, if it has one.
    pub name: &'static str,
    /// Bytes that must cross the memory bus: each input read once, each output written once.
    pub bytes: f64,
    /// Floating-point operations that matrix units do.
    pub matrix_flop: f64,
    /// Fills the GPU's memory and gives what is to be timed. Sets of operands are rotated where they would fit in the L2.
    pub prepare: fn(&Device) -> Result<Work>,
}

/// Every case.
pub fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(masked_apply::cases());
    all.extend(masks::cases());
    all.extend(merge::cases());
    all.extend(gemm::cases());
    all.extend(low_rank::cases());
    all.extend(gated_attention::cases());
    all.extend(expert::cases());
    all.extend(router::cases());
    all.extend(policy::cases());
    all.extend(blocks::cases());
    all.extend(plugins::cases());
    all
}
