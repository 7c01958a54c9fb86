//! How tensors are cut: blocks for the cache, slabs for the threads, lanes for sums.

use std::ops::Range;

/// Elements handed to a method at once: a few f32 buffers of this size lie in a core's L2 cache. A power of two, so
/// that a block of any dtype is a whole subtree of BLAKE3.
pub(crate) const BLOCK: usize = 16 * 1024;

/// Elements one thread takes at once, and writes at once.
pub(crate) const SLAB: usize = 64 * BLOCK;

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

/// Number of slabs of a tensor; an empty tensor has one, so that it is written (with nothing in it) too.
pub(crate) fn slab_count(numel: usize, whole: bool) -> usize {
    if whole { 1 } else { numel.div_ceil(SLAB).max(1) }
}

/// All slabs of a job, in order. `whole`: one slab, for methods that want whole tensors.
pub(crate) fn slabs(job: usize, numel: usize, whole: bool) -> impl Iterator<Item = Unit> {
    let step = if whole { numel.max(1) } else { SLAB };
    (0..slab_count(numel, whole)).map(move |i| Unit { job, range: i * step..((i + 1) * step).min(numel) })
}

/// The blocks of a slab, in order; the same step as [`slabs`] for whole tensors.
pub(crate) fn blocks(slab: &Range<usize>, whole: bool) -> impl Iterator<Item = Range<usize>> + use<> {
    let step = if whole { slab.len().max(1) } else { BLOCK };
    let end = slab.end;
    slab.clone().step_by(step).map(move |start| start..(start + step).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slabs_and_blocks_tile_the_tensor(numel in 0..5 * SLAB, whole in any::<bool>()) {
            let mut next = 0;
            for unit in slabs(3, numel, whole) {
                prop_assert_eq!((unit.job, unit.range.start), (3, next));
                for block in blocks(&unit.range, whole) {
                    prop_assert_eq!(block.start, next);
                    prop_assert!(whole || block.len() <= BLOCK && block.start % BLOCK == 0);
                    next = block.end;
                }
                prop_assert_eq!(unit.range.end, next);
            }
            prop_assert_eq!(next, numel);
        }
    }

    #[test]
    fn an_empty_tensor_is_one_empty_unit() {
        assert_eq!(slabs(0, 0, false).collect::<Vec<_>>(), [Unit { job: 0, range: 0..0 }]);
        assert_eq!(blocks(&(0..0), false).count(), 0);
    }
}
