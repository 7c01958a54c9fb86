//! Bytes of one model on their way to a GPU.

use std::ops::Range;

use skillweld_gpu::ops::is_block_dtype;
use skillweld_gpu::{Array, GpuError, Staging, Target};
use skillweld_tensor::{Dtype, TensorView};

use super::super::buffers::{Inputs, byte_range};
use crate::MergeError;

/// How elements go to the GPU: as they are stored, or as f32.
pub(super) fn uploaded_as(stored: Dtype) -> Dtype {
    if is_block_dtype(stored) { stored } else { Dtype::F32 }
}

/// Bytes of one model on their way up.
pub(super) struct Operand<T: Target> {
    staging: T::Staging,
    pub(super) stored: Array<T::Memory>,
}

impl<T: Target> Operand<T> {
    /// Room for so many bytes.
    pub(super) fn new(target: &T, bytes: usize) -> Result<Self, GpuError> {
        Ok(Self { staging: target.stage(bytes)?, stored: target.array(Dtype::U8, bytes)? })
    }

    /// Sends a slab as it is stored, block by block through the cache.
    pub(super) fn send(
        &mut self,
        target: &T,
        view: &TensorView<'_>,
        slab: &Range<usize>,
        blocks: impl Iterator<Item = Range<usize>>,
        hash: impl Fn(&Range<usize>),
    ) -> Result<(), GpuError> {
        let bits = view.dtype().bits();
        let staged = self.staging.bytes_mut()?;
        for block in blocks {
            hash(&block);
            staged[byte_range(&block, slab.start, bits)]
                .copy_from_slice(&view.bytes()[byte_range(&block, 0, bits)]);
        }
        let bytes = byte_range(slab, slab.start, bits);
        target.upload_staged(self.stored.memory_mut(), 0, &mut self.staging, bytes)
    }

    /// Sends a slab as the CPU decodes it.
    pub(super) fn send_decoded(
        &mut self,
        target: &T,
        slab: &Range<usize>,
        blocks: impl Iterator<Item = Range<usize>>,
        inputs: &mut Inputs,
        load: impl Fn(&Range<usize>, &mut Inputs) -> Result<(), MergeError>,
        loaded: impl Fn(&Inputs) -> &Vec<f32>,
    ) -> Result<(), MergeError> {
        let staged = self.staging.bytes_mut()?;
        for block in blocks {
            load(&block, inputs)?;
            let place = staged[byte_range(&block, slab.start, 32)].chunks_exact_mut(4);
            place.zip(loaded(inputs)).for_each(|(place, value)| place.copy_from_slice(&value.to_le_bytes()));
        }
        let bytes = byte_range(slab, slab.start, 32);
        Ok(target.upload_staged(self.stored.memory_mut(), 0, &mut self.staging, bytes)?)
    }
}
