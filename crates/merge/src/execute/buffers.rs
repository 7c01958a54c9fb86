//! What one worker computes in. Taken from a pool, so that many short sweeps do not fault the same pages in again.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, PoisonError};

use skillweld_tensor::LowRank;

/// Scratch of one worker. Everything grows to what is needed and keeps its size.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
}

impl Buffers {
    /// Gives back what is larger than `len` elements, as one huge matrix leaves it.
    pub(crate) fn shrink(&mut self, len: usize) {
        let Inputs { base, experts, statistics, products, rows, factors } = &mut self.inputs;
        *factors = None;
        let outputs = [&mut self.outputs.merged, &mut self.outputs.scratch];
        let all = [base, rows].into_iter().chain(experts).chain(statistics).chain(products).chain(outputs);
        all.filter(|buffer| buffer.len() > len).for_each(|buffer| *buffer = Vec::new());
    }
}

/// A block of all models, decoded.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    /// Θ₀ of the block.
    pub(crate) base: Vec<f32>,
    /// One buffer an expert: task vectors or weights of the block.
    pub(crate) experts: Vec<Vec<f32>>,
    /// One buffer an expert: its statistics for the block, or for a whole matrix all of them.
    pub(crate) statistics: Vec<Vec<f32>>,
    /// One buffer an adapter: its product over the slab.
    pub(crate) products: Vec<Vec<f32>>,
    /// Whole rows of a product, before they are cut.
    pub(crate) rows: Vec<f32>,
    /// Decoded factors of the adapters, one an expert, of the tensor with this key.
    pub(crate) factors: Option<(String, Vec<Option<LowRank>>)>,
}

/// What comes out.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// What the method gives for the block.
    pub(crate) merged: Vec<f32>,
    /// What the method asked for.
    pub(crate) scratch: Vec<f32>,
    /// Bytes of the slab for the disk.
    pub(crate) bytes: Vec<u8>,
    /// Mask bits of the slab, one buffer a task.
    pub(crate) masks: Vec<Vec<u8>>,
}

/// Makes room for `len` values and gives exactly those; old content stays where it was.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Bytes that `range` of a buffer takes, within a slab that starts at `slab_start`.
pub(crate) fn byte_range(range: &Range<usize>, slab_start: usize, bits: usize) -> Range<usize> {
    (range.start - slab_start) * bits / 8..((range.end - slab_start) * bits).div_ceil(8)
}

/// Buffers between uses.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Buffers>>);

impl Pool {
    /// Takes used buffers, or new ones; they come back when the guard is dropped.
    pub(crate) fn take(&self) -> Pooled<'_> {
        let buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Pooled { pool: self, buffers }
    }
}

/// Buffers in use.
#[derive(Debug)]
pub(crate) struct Pooled<'a> {
    pool: &'a Pool,
    buffers: Buffers,
}

impl Deref for Pooled<'_> {
    type Target = Buffers;
    fn deref(&self) -> &Buffers {
        &self.buffers
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut Buffers {
        &mut self.buffers
    }
}

impl Drop for Pooled<'_> {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut self.buffers);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
    }
}
