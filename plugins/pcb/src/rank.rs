//! Two entries of given ranks among all of an expert's, exactly, in three passes: keys are counted digit by digit.
//!
//! Simpler than the search that trimming uses, and good for what that is not: values of either sign, and several ranks.

use skillweld_plugin_sdk::Block;

/// Passes of one search.
pub(crate) const PASSES: usize = 3;
/// Bits of a key that each pass counts by, from the upper end.
const BITS: [u32; PASSES] = [11, 11, 10];
/// Entries that are looked for.
const PLACES: usize = 2;

/// Length of each pass's sums: one table an expert, and after the first pass one for each place.
pub(crate) fn sums_len(experts: usize) -> [usize; PASSES] {
    [0, 1, 2].map(|pass| experts * table_len(pass))
}

fn table_len(pass: usize) -> usize {
    let bins = 1 << BITS[pass];
    if pass == 0 { bins } else { PLACES * bins }
}

/// Whole numbers in the order of the values: −∞, …, −0, 0, …, ∞.
#[inline(always)]
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Digits that no entry has before the last pass; after it, they are a NaN's.
const NOWHERE: u32 = u32::MAX;

/// What is known of an entry: upper digits of its key, and its rank (from 0, the smallest) among all that share them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    digits: u32,
    rank: f64,
}

impl Place {
    /// One digit more, from the counts of it.
    fn narrow(self, counts: &[f64]) -> Self {
        if self.digits == NOWHERE {
            return self;
        }
        let mut rank = self.rank;
        for (digit, &count) in counts.iter().enumerate() {
            if rank < count {
                return Self { digits: self.digits * counts.len() as u32 + digit as u32, rank };
            }
            rank -= count;
        }
        // Past the end, as in a tensor without elements.
        Self { digits: NOWHERE, rank }
    }
}

/// The search that starts with total `start`, for expert `k`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    pub(crate) start: usize,
    pub(crate) k: usize,
    /// Ranks of both entries, given how many there are.
    pub(crate) ranks: fn(count: f64, share: f64) -> [f64; PLACES],
    /// Handed to `ranks`.
    pub(crate) share: f64,
}

impl Search {
    /// How far the first `passes` passes have come.
    fn places(&self, block: &Block<'_>, passes: usize) -> [Place; PLACES] {
        let mut places = [Place { digits: 0, rank: 0.0 }; PLACES];
        let mut start = self.start;
        for (pass, bits) in BITS.into_iter().enumerate().take(passes) {
            let table = &block.totals()[start + self.k * table_len(pass)..][..table_len(pass)];
            if pass == 0 {
                let ranks = (self.ranks)(table.iter().sum(), self.share);
                places = ranks.map(|rank| Place { digits: 0, rank }.narrow(table));
            } else {
                for (place, counts) in places.iter_mut().zip(table.chunks_exact(1 << bits)) {
                    *place = place.narrow(counts);
                }
            }
            start += sums_len(block.experts())[pass];
        }
        places
    }

    /// Counts a block's values for pass `pass` into `sums`, those of all experts.
    pub(crate) fn count(&self, block: &Block<'_>, pass: usize, values: &[f32], sums: &mut [f64]) {
        let table = &mut sums[self.k * table_len(pass)..][..table_len(pass)];
        let below: u32 = BITS[pass + 1..].iter().sum();
        let (bits, mask) = (BITS[pass], (1 << BITS[pass]) - 1);
        if pass == 0 {
            values.iter().for_each(|&x| table[(key(x) >> below) as usize] += 1.0);
            return;
        }
        let places = self.places(block, pass);
        for (place, counts) in places.iter().zip(table.chunks_exact_mut(1 << bits)) {
            for &x in values {
                let key = key(x) >> below;
                if key >> bits == place.digits {
                    counts[(key & mask) as usize] += 1.0;
                }
            }
        }
    }

    /// Both entries, once all passes are done.
    pub(crate) fn found(&self, block: &Block<'_>) -> [f32; PLACES] {
        self.places(block, PASSES).map(|place| value(place.digits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_values(a: f32, b: f32) {
            prop_assert_eq!(value(key(a)).to_bits(), a.to_bits());
            prop_assert_eq!(key(a).cmp(&key(b)), a.total_cmp(&b));
        }
    }
}
