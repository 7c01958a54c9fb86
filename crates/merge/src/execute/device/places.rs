//! How much room a slab needs on its way, and where its results stand.

use std::ops::Range;

use skillweld_tensor::{BitMask, Dtype};

use super::super::units::Cut;
use super::Job;
use super::operand::uploaded_as;

/// Where kernels may take arrays to begin.
const ALIGNED: usize = 16;

/// The room that a lane needs: the most of everything, over all tensors that come through it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LaneSize {
    /// Elements of a slab, in whole groups of 8.
    pub(super) numel: usize,
    pub(super) experts: usize,
    masks: usize,
    /// Bytes of a stored element.
    pub(super) stored_bytes: usize,
    /// Bytes of an element of the output.
    out_bytes: usize,
}

impl LaneSize {
    pub(super) fn of(jobs: &[Job<'_>], cut: Cut) -> Self {
        let mut size = Self::default();
        for Job { work, mask, .. } in jobs {
            let inputs = &work.merge.inputs;
            let stored = inputs.iter().map(|input| match input.source.is_adapted() {
                true => Dtype::F32,
                false => input.source.stored().dtype(),
            });
            for dtype in stored.chain(work.merge.base.map(|base| base.dtype())) {
                size.stored_bytes = size.stored_bytes.max(uploaded_as(dtype).bits() / 8);
            }
            size.numel = size.numel.max(work.tensor.numel().min(cut.slab).next_multiple_of(8));
            size.experts = size.experts.max(inputs.len());
            size.masks = size.masks.max(if mask.is_some() { inputs.len() } else { 0 });
            size.out_bytes = size.out_bytes.max(work.tensor.dtype.bits() / 8);
        }
        size
    }

    /// What a lane takes of the GPU's memory, but for tables.
    pub(super) fn bytes(&self) -> usize {
        self.numel * ((self.experts + 1) * (self.stored_bytes + 4) + 4) + self.results().end
    }

    /// The places of the largest results there can be.
    pub(super) fn results(&self) -> Results {
        Results::new(self.experts, self.numel, self.out_bytes, self.masks)
    }
}

/// Where things stand among the results of a slab, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Results {
    /// U32: one an expert, one for the base, one for the output.
    pub(super) flags: usize,
    pub(super) out: usize,
    pub(super) out_end: usize,
    pub(super) masks: usize,
    /// From one expert's mask to the next.
    pub(super) mask_stride: usize,
    pub(super) mask_bytes: usize,
    pub(super) end: usize,
}

impl Results {
    fn new(experts: usize, len: usize, out_bytes: usize, masks: usize) -> Self {
        let flags = experts + 2;
        let out = (4 * flags).next_multiple_of(ALIGNED);
        let out_end = out + len * out_bytes;
        let mask_bytes = BitMask::byte_len(len);
        let (start, mask_stride) = (out_end.next_multiple_of(ALIGNED), mask_bytes.next_multiple_of(ALIGNED));
        let end = if masks == 0 { out_end } else { start + masks * mask_stride };
        Self { flags, out, out_end, masks: start, mask_stride, mask_bytes, end }
    }

    pub(super) fn of(job: &Job<'_>, len: usize) -> Self {
        let experts = job.work.merge.inputs.len();
        let masks = if job.mask.is_some() { experts } else { 0 };
        Self::new(experts, len, job.work.tensor.dtype.bits() / 8, masks)
    }

    pub(super) fn mask(&self, k: usize) -> Range<usize> {
        let start = self.masks + k * self.mask_stride;
        start..start + self.mask_bytes
    }
}
