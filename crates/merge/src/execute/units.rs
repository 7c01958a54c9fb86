//! How tensors are cut: blocks for the cache, slabs for the threads, lanes for sums.

use std::ops::Range;

use skillweld_merged::layout::{BLOCK, MAX_SHARD_BYTES, SLAB};

/// Where tensors and files are cut. The same everywhere; only tests take other sizes, to see many cuts in small models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Elements handed to a method at once: a few f32 buffers of this size lie in a core's L2 cache. A power of two from
    /// 1024 on, so that a block of any dtype is a whole subtree of BLAKE3.
    pub(crate) block: usize,
    /// Elements one thread takes at once, and writes at once. A multiple of 8 blocks, so that its mask is whole blocks
    /// of bytes.
    pub(crate) slab: usize,
    /// Tensors of more elements are worked on by all threads together, smaller ones by one thread each.
    pub(crate) shared_from: usize,
    /// Elements of whole matrices that are in the works at once, for each thread. A larger one is alone.
    pub(crate) whole_room: usize,
    /// A slab's elements where a GPU merges it: what is on its way to and fro stays in the processor's caches. A multiple of
    /// 8 blocks as well.
    pub(crate) device_slab: usize,
    /// Tensors of fewer elements are not worth the way to a GPU.
    pub(crate) device_from: usize,
    /// Larger models are cut into shards of this size, as Hugging Face does.
    pub(crate) max_shard_bytes: u64,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            block: BLOCK,
            slab: SLAB,
            shared_from: 16 * SLAB,
            whole_room: 8 * SLAB,
            device_slab: 16 * BLOCK,
            device_from: 4 * BLOCK,
            max_shard_bytes: MAX_SHARD_BYTES,
        }
    }
}

/// Partial sums of an `observe` pass. Slab i adds to lane i mod LANES, lanes are added up in order: the result is the
/// same for any number of threads, and that many threads at most can observe at once.
pub(crate) const LANES: usize = 16;

/// A part of one job: the unit of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Index of the job.
    pub(crate) job: usize,
    /// Elements of the flattened tensor.
    pub(crate) range: Range<usize>,
}

/// Fewest elements that a block shows to a pass that is content with a sample.
const MIN_SAMPLE: usize = 512;

impl Cut {
    /// Blocks and slabs of whole rows, as many as fit, but at least `step` elements: some rows, and a multiple of 8.
    pub(crate) fn between_rows(self, step: usize) -> Self {
        let fit = |size: usize, step: usize| (size / step).max(1) * step;
        let block = fit(self.block, step);
        Self { block, slab: fit(self.slab, block), ..self }
    }

    /// Number of slabs of a tensor; an empty tensor has one, so that it is written (with nothing in it) too.
    fn slab_count(self, numel: usize, whole: bool) -> usize {
        if whole { 1 } else { numel.div_ceil(self.slab).max(1) }
    }

    /// All slabs of a job, in order. `whole`: one slab, for methods that want whole tensors.
    pub(crate) fn slabs(self, job: usize, numel: usize, whole: bool) -> impl Iterator<Item = Unit> {
        let step = if whole { numel.max(1) } else { self.slab };
        let unit = move |i: usize| Unit { job, range: i * step..((i + 1) * step).min(numel) };
        (0..self.slab_count(numel, whole)).map(unit)
    }

    /// The blocks of a slab, in order; the same step as [`slabs`](Self::slabs) for whole tensors.
    pub(crate) fn blocks(
        self,
        slab: &Range<usize>,
        whole: bool,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = if whole { slab.len().max(1) } else { self.block };
        let end = slab.end;
        slab.clone().step_by(step).map(move |start| start..(start + step).min(end))
    }
}

/// The part of a block that a pass sees for which one element of `sample` is enough.
pub(crate) fn sampled(block: &Range<usize>, sample: usize) -> Range<usize> {
    block.start..block.end.min(block.start + (block.len() / sample).max(MIN_SAMPLE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slabs_and_blocks_tile_the_tensor(numel in 0..5 * Cut::default().slab, whole in any::<bool>()) {
            let cut = Cut::default();
            let mut next = 0;
            for unit in cut.slabs(3, numel, whole) {
                prop_assert_eq!((unit.job, unit.range.start), (3, next));
                for block in cut.blocks(&unit.range, whole) {
                    prop_assert_eq!(block.start, next);
                    prop_assert!(whole || block.len() <= cut.block && block.start % cut.block == 0);
                    next = block.end;
                }
                prop_assert_eq!(unit.range.end, next);
            }
            prop_assert_eq!(next, numel);
        }
    }

    proptest! {
        #[test]
        fn blocks_between_rows_hold_whole_rows(rows in 1usize..70, row in 1usize..40_000, large: bool) {
            let cut = Cut::default();
            let shape = if large { vec![rows * row] } else { vec![rows, row] };
            let (numel, row) = (rows * row, skillweld_tensor::row_len(&shape));
            let cut = cut.between_rows(skillweld_tensor::row_step(&shape));
            let mut next = 0;
            for unit in cut.slabs(0, numel, false) {
                for block in cut.blocks(&unit.range, false) {
                    prop_assert_eq!((block.start, block.start % 8, block.len() % row), (next, 0, 0));
                    prop_assert!(block.len() <= Cut::default().block.max(8 * row));
                    next = block.end;
                }
            }
            prop_assert_eq!(next, numel);
        }
    }

    #[test]
    fn a_sample_is_the_head_of_a_block_and_of_a_short_one_all() {
        assert_eq!(sampled(&(5..5 + 65_536), 32), 5..5 + 2048);
        assert_eq!(sampled(&(5..5 + 16_384), 1000), 5..5 + 512);
        assert_eq!(sampled(&(5..305), 32), 5..305);
    }

    #[test]
    fn an_empty_tensor_is_one_empty_unit() {
        let cut = Cut::default();
        assert_eq!(cut.slabs(0, 0, false).collect::<Vec<_>>(), [Unit { job: 0, range: 0..0 }]);
        assert_eq!(cut.blocks(&(0..0), false).count(), 0);
    }
}
