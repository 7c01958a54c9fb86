//! What a merge did, in numbers: how much each task keeps, how far masks agree, how far experts are apart.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use skillweld_simd::vectorize;
use skillweld_tensor::{count_both, count_ones};

/// Counts over the masks of one tensor, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MaskCounts {
    /// Elements.
    pub(crate) numel: u64,
    /// Elements kept, for each task.
    pub(crate) kept: Vec<u64>,
    /// Elements kept by both, for each pair of tasks in the order of [`pairs`].
    pub(crate) both: Vec<u64>,
    /// Elements kept by exactly one task.
    pub(crate) selfish: u64,
    /// Elements kept by no task.
    pub(crate) none: u64,
}

/// Every unordered pair of `0..count`, the first index slowest.
pub(crate) fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |i| (i + 1..count).map(move |j| (i, j)))
}

impl MaskCounts {
    /// Counts `len` elements; one packed mask a task, bits past the end zero.
    pub(crate) fn of(len: usize, masks: &[Vec<u8>]) -> Self {
        let kept: Vec<u64> = masks.iter().map(|mask| count_ones(mask) as u64).collect();
        let both = pairs(masks.len()).map(|(i, j)| count_both(&masks[i], &masks[j]) as u64).collect();
        // Bits seen at least once, and at least twice.
        let mut once = vec![0; masks.first().map_or(0, Vec::len)];
        let mut twice = once.clone();
        masks.iter().for_each(|mask| tally(&mut once, &mut twice, mask));
        let (once, twice) = (count_ones(&once) as u64, count_ones(&twice) as u64);
        debug_assert!(once <= len as u64, "bits past the end of a mask");
        Self { numel: len as u64, kept, both, selfish: once - twice, none: len as u64 - once }
    }

    /// Adds another tensor's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.numel += other.numel;
        self.selfish += other.selfish;
        self.none += other.none;
        for (mine, theirs) in [(&mut self.kept, &other.kept), (&mut self.both, &other.both)] {
            mine.resize(theirs.len().max(mine.len()), 0);
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
    }
}

vectorize! {
    fn tally(once: &mut [u8], twice: &mut [u8], mask: &[u8]) {
        for ((once, twice), mask) in once.iter_mut().zip(twice).zip(mask) {
            *twice |= *once & mask;
            *once |= mask;
        }
    }

    /// (Σ a², Σ (a − b)²) in f64, over eight interleaved partial sums.
    fn squares(a: &[f32], b: &[f32]) -> [f64; 2] {
        let mut sums = [[0.0f64; 8]; 2];
        for (a, b) in a.chunks(8).zip(b.chunks(8)) {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                let (a, d) = (f64::from(*a), f64::from(*a) - f64::from(*b));
                sums[0][i] += a * a;
                sums[1][i] += d * d;
            }
        }
        sums.map(|partial| partial.iter().sum())
    }
}

/// Squared distances between experts beside their squared norms, over some elements.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Distances {
    /// \[Σ (θ_i − θ_j)², Σ θ_i², Σ θ_j²\] for each pair in the order of [`pairs`]; `None` for two that cannot be compared.
    /// Norms by pair: those of two experts count what both have in one shape, and nothing else.
    pairs: Vec<Option<[f64; 3]>>,
}

impl Distances {
    /// Of equally long vectors, one an expert.
    pub(crate) fn between(experts: &[&[f32]]) -> Self {
        Self::among(&experts.iter().copied().map(Some).collect::<Vec<_>>())
    }

    /// Of equally long vectors, of some of the experts.
    pub(crate) fn among(experts: &[Option<&[f32]>]) -> Self {
        let norms: Vec<_> = experts.iter().map(|x| x.map(|x| squares(x, x)[0])).collect();
        let pair = |(i, j): (usize, usize)| {
            let [_, distance] = squares(experts[i]?, experts[j]?);
            Some([distance, norms[i]?, norms[j]?])
        };
        Self { pairs: pairs(experts.len()).map(pair).collect() }
    }

    /// Adds other elements.
    pub(crate) fn add(&mut self, other: &Self) {
        self.pairs.resize(other.pairs.len().max(self.pairs.len()), None);
        for (mine, theirs) in self.pairs.iter_mut().zip(&other.pairs) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b),
                (mine @ None, theirs) => *mine = *theirs,
                (Some(_), None) => {}
            }
        }
    }

    /// True when some two experts could not be compared.
    pub(crate) fn is_partial(&self) -> bool {
        self.pairs.contains(&None)
    }

    /// ‖θ_i − θ_j‖ / ½(‖θ_i‖ + ‖θ_j‖) for each pair: 0 for equal experts, about 1.4 for unrelated ones, 2 for opposite ones.
    pub(crate) fn relative(&self) -> Vec<Option<f64>> {
        let relative = |[distance, a, b]: [f64; 3]| {
            let norm = (a.sqrt() + b.sqrt()) / 2.0;
            if norm == 0.0 { 0.0 } else { distance.sqrt() / norm }
        };
        self.pairs.iter().map(|pair| pair.map(relative)).collect()
    }
}

/// Measurements of all planned tensors, filled in by workers.
#[derive(Debug)]
pub(crate) struct Measures {
    masks: Vec<Mutex<MaskCounts>>,
    /// By first element of the slab: added up in that order, whoever measured it.
    distances: Vec<Mutex<Vec<(usize, Distances)>>>,
    /// By which way a method computed, where it says so.
    paths: Vec<Mutex<Option<String>>>,
}

impl Measures {
    /// For `count` planned tensors.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            masks: (0..count).map(|_| Mutex::default()).collect(),
            distances: (0..count).map(|_| Mutex::default()).collect(),
            paths: (0..count).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts the masks of `len` elements of tensor `index`.
    pub(crate) fn count_masks(&self, index: usize, len: usize, masks: &[Vec<u8>]) {
        if !masks.is_empty() {
            let counts = MaskCounts::of(len, masks);
            self.masks[index].lock().unwrap_or_else(PoisonError::into_inner).add(&counts);
        }
    }

    /// Keeps by which way tensor `index` was computed.
    pub(crate) fn add_path(&self, index: usize, path: String) {
        *self.paths[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }

    /// Tensors by the way in which methods computed them, as far as they said so.
    pub(crate) fn paths(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for path in &self.paths {
            let path = path.lock().unwrap_or_else(PoisonError::into_inner).clone();
            path.into_iter().for_each(|path| *counts.entry(path).or_default() += 1);
        }
        counts
    }

    /// Keeps the distances of the slab of tensor `index` that begins at element `start`.
    pub(crate) fn add_distances(&self, index: usize, start: usize, distances: Distances) {
        self.distances[index].lock().unwrap_or_else(PoisonError::into_inner).push((start, distances));
    }

    /// The mask counts of tensor `index`; `None` when it has no masks.
    pub(crate) fn mask_counts(&self, index: usize) -> Option<MaskCounts> {
        let counts = self.masks[index].lock().unwrap_or_else(PoisonError::into_inner);
        (!counts.kept.is_empty()).then(|| counts.clone())
    }

    /// The distances over tensor `index`; `None` when nothing was measured.
    pub(crate) fn distances(&self, index: usize) -> Option<Distances> {
        let mut parts = self.distances[index].lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.sort_by_key(|(start, _)| *start);
        let mut parts = parts.into_iter().map(|(_, distances)| distances);
        let mut all = parts.next()?;
        parts.for_each(|part| all.add(&part));
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use proptest::prelude::*;
    use skillweld_tensor::BitMask;

    proptest! {
        #[test]
        fn counts_equal_those_by_element(rows in proptest::collection::vec(proptest::array::uniform3(any::<bool>()), 0..100)) {
            let column = |k: usize| rows.iter().map(|row| row[k]).collect::<Vec<_>>();
            let masks: Vec<Vec<u8>> = (0..3).map(|k| BitMask::from_bools(&column(k)).as_bytes().to_vec()).collect();
            let counts = MaskCounts::of(rows.len(), &masks);
            let sum = |row: &[bool; 3]| row.iter().filter(|&&b| b).count();
            let count = |f: &dyn Fn(&[bool; 3]) -> bool| rows.iter().filter(|row| f(row)).count() as u64;
            prop_assert_eq!(counts.selfish, count(&|row| sum(row) == 1));
            prop_assert_eq!(counts.none, count(&|row| sum(row) == 0));
            prop_assert_eq!(&counts.kept, &(0..3).map(|k| count(&|row| row[k])).collect::<Vec<_>>());
            prop_assert_eq!(&counts.both, &pairs(3).map(|(i, j)| count(&|row| row[i] && row[j])).collect::<Vec<_>>());
        }

        #[test]
        fn distances_equal_the_definition(values in proptest::collection::vec((-3f32..3.0, -3f32..3.0), 1..60)) {
            let (a, b): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let expected = norm(&mut a.iter().zip(&b).map(|(a, b)| f64::from(*a) - f64::from(*b)))
                / ((norm(&mut a.iter().map(|&x| x.into())) + norm(&mut b.iter().map(|&x| x.into()))) / 2.0);
            let relative = Distances::between(&[&a, &b]).relative();
            prop_assert!((relative[0].unwrap() - expected).abs() <= 1e-12 * expected.max(1.0));
        }
    }
}
