//! The K-th largest magnitude, exactly, in few passes: an interval that holds it is narrowed down.
//!
//! Magnitudes compare like their bits. The first pass counts the upper bits of a sample; from these an interval is guessed
//! that most likely holds the threshold. Every pass after it counts what lies below the interval, above it, and in each of
//! its bins, these in two halves: entries that equal the bin's lower edge, and the rest. A threshold among the former is
//! found: task vectors of bf16 weights have few magnitudes, and these many zero bits, so that the first interval is mostly
//! the last. A threshold among the rest makes that bin the next interval. A guess that missed is followed by the interval
//! of all magnitudes, which cannot.

use skillweld_simd::between::keep_between;
use skillweld_simd::vectorize;

/// Lengths of the tables of one expert.
pub(super) struct Bins {
    /// Of the sample's pass.
    pub(super) sample: usize,
    /// Of all others: two halves a bin, the number below the interval, the number above.
    pub(super) interval: usize,
}

pub(super) const BINS: Bins = Bins { sample: SAMPLE_BINS, interval: HALVES + 2 };

/// Lowest of the bits that a sample is counted by: exponent and three bits of mantissa.
const SAMPLE_SHIFT: u32 = 20;
const SAMPLE_BINS: usize = 1 << (31 - SAMPLE_SHIFT);
const INTERVAL_BITS: u32 = 9;
const HALVES: usize = 2 << INTERVAL_BITS;
/// Bins that a search skips at once.
const GROUP: usize = 64;
/// How many standard deviations of a sample's rank a guess allows for. Neighbouring entries resemble each other, so that
/// a sample says less than its size.
const DOUBT: f64 = 6.0;

/// Magnitudes `low..low + (2^INTERVAL_BITS << shift)` as bits, in bins of 2^shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    low: u32,
    shift: u32,
}

/// What is known of a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Search {
    /// It lies in this interval, or so it seems.
    Open(Interval),
    /// It is this.
    Found {
        /// Its bits.
        bits: u32,
        /// So many of the entries that equal it are among the K.
        rank: f64,
        /// So many entries equal it.
        count: f64,
    },
    /// There are fewer than K entries, or K is none.
    Nothing,
}

impl Interval {
    /// All magnitudes.
    pub(super) const ALL: Self = Self { low: 0, shift: 31 - INTERVAL_BITS };

    /// Where a sample puts the threshold above which lies the share `density` of all entries.
    pub(super) fn guess(sample: &[f64], density: f64) -> Self {
        let groups = group_sums(sample);
        let count: f64 = groups.iter().sum();
        let (rank, doubt) = (density * count, DOUBT * (count * density * (1.0 - density)).sqrt() + 1.0);
        let edge = |rank: f64| select(&groups, sample, rank.clamp(1.0, count.max(1.0)));
        let (Some((high, _)), Some((low, _))) = (edge(rank - doubt), edge(rank + doubt)) else {
            return Self::ALL;
        };
        let bins = (high + 1 - low).next_power_of_two();
        Self { low: (low as u32) << SAMPLE_SHIFT, shift: SAMPLE_SHIFT + bins.ilog2() - INTERVAL_BITS }
    }

    /// What the table counted over the interval says of the `rank(n)`-th largest of n entries.
    pub(super) fn narrow(self, table: &[f64], rank: impl FnOnce(f64) -> f64) -> Search {
        let (halves, outside) = table.split_at(HALVES);
        let (below, above) = (outside[0], outside[1]);
        let groups = group_sums(halves);
        let count = below + above + groups.iter().sum::<f64>();
        let rank = rank(count);
        if rank > count || rank < 1.0 {
            return Search::Nothing;
        }
        // From the interval's upper end on.
        let Some((half, rank)) = (rank > above).then(|| select(&groups, halves, rank - above)).flatten()
        else {
            return Search::Open(Self::ALL);
        };
        let low = self.low + ((half as u32 / 2) << self.shift);
        if half % 2 == 0 {
            return Search::Found { bits: low, rank, count: halves[half] };
        }
        Search::Open(Self { low, shift: self.shift.saturating_sub(INTERVAL_BITS) })
    }
}

/// The bin that holds the `rank`-th entry from above, and the entry's rank within it. `groups` are the sums of
/// [`GROUP`] bins each.
fn select(groups: &[f64], counts: &[f64], rank: f64) -> Option<(usize, f64)> {
    let (group, rank) = select_in(groups, rank)?;
    let (bin, rank) = select_in(&counts[group * GROUP..][..GROUP], rank)?;
    Some((group * GROUP + bin, rank))
}

fn select_in(counts: &[f64], mut rank: f64) -> Option<(usize, f64)> {
    for (bin, &count) in counts.iter().enumerate().rev() {
        if rank <= count {
            return Some((bin, rank));
        }
        rank -= count;
    }
    None
}

/// Counts a block for a pass over `interval`.
pub(super) fn count_within(values: &[f32], interval: Interval, table: &mut [f64]) {
    let Interval { low, shift } = interval;
    let end = low.saturating_add(1 << (INTERVAL_BITS + shift));
    let mut tables = [[0; HALVES]; TABLES];
    let mut kept = [0; CHUNK];
    let (mut below, mut within) = (0, 0);
    for values in values.chunks(CHUNK) {
        let (smaller, count) = keep_between(values, low, end, &mut kept);
        tally(&kept[..count], low, shift, &mut tables);
        (below, within) = (below + smaller, within + count);
    }
    let (halves, outside) = table.split_at_mut(HALVES);
    add_tables(&tables, halves);
    outside[0] += below as f64;
    outside[1] += (values.len() - below - within) as f64;
}

/// Values looked at before those within an interval are counted.
const CHUNK: usize = 512;
/// Tables that neighbouring elements take in turn: equal neighbours would wait for each other's increment.
const TABLES: usize = 4;

vectorize! {
    /// Counts the upper bits of a sample. Whole numbers, which f64 adds exactly in any order.
    pub(super) fn count_sample(values: &[f32], counts: &mut [f64]) {
        let mut digits = [0u16; 64];
        for values in values.chunks(64) {
            for (digit, value) in digits.iter_mut().zip(values) {
                *digit = (value.abs().to_bits() >> SAMPLE_SHIFT) as u16;
            }
            for &digit in &digits[..values.len()] {
                counts[usize::from(digit) % SAMPLE_BINS] += 1.0;
            }
        }
    }

    /// Counts magnitudes of an interval by their half of a bin.
    fn tally(kept: &[u32], low: u32, shift: u32, tables: &mut [[u32; HALVES]; TABLES]) {
        let mut halves = [0u16; 64];
        let rest = (1 << shift) - 1;
        for kept in kept.chunks(64) {
            for (half, bits) in halves.iter_mut().zip(kept) {
                let place = bits - low;
                *half = ((place >> shift) * 2 + u32::from(place & rest != 0)) as u16;
            }
            for halves in halves[..kept.len()].chunks(TABLES) {
                for (table, &half) in tables.iter_mut().zip(halves) {
                    table[usize::from(half) % HALVES] += 1;
                }
            }
        }
    }

    fn add_tables(tables: &[[u32; HALVES]; TABLES], halves: &mut [f64]) {
        for (half, count) in halves.iter_mut().enumerate().take(HALVES) {
            *count += f64::from(tables.iter().map(|table| table[half]).sum::<u32>());
        }
    }

    /// Sums of [`GROUP`] bins each, of at most [`SAMPLE_BINS`] in all.
    fn group_sums(counts: &[f64]) -> [f64; SAMPLE_BINS / GROUP] {
        let mut sums = [0.0; SAMPLE_BINS / GROUP];
        for (sum, group) in sums.iter_mut().zip(counts.as_chunks::<GROUP>().0) {
            let mut lanes = [0.0; 16];
            for counts in group.as_chunks::<16>().0 {
                lanes.iter_mut().zip(counts).for_each(|(lane, count)| *lane += count);
            }
            *sum = lanes.iter().sum();
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Magnitudes of all kinds: few distinct ones, neighbours in the last bit, any bits at all.
    fn values() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            3 => (-9i8..=9).prop_map(|x| f32::from(x) / 8.0),
            2 => (0u32..40).prop_map(|ulps| f32::from_bits(0x3f80_0000 + ulps)),
            1 => any::<u32>().prop_map(|bits| f32::from_bits(bits & 0xbfff_ffff)),
        ];
        vec(value, 1..1500)
    }

    proptest! {
        #[test]
        fn finds_the_rank_by_sorting_whatever_the_sample_says(
            values in values(), misled in values(), mislead: bool, density in 0.001f64..1.0,
        ) {
            let mut sample = vec![0.0; BINS.sample];
            count_sample(if mislead { &misled } else { &values }, &mut sample);
            let mut interval = Interval::guess(&sample, density);
            let mut sorted: Vec<u32> = values.iter().map(|x| x.abs().to_bits()).collect();
            sorted.sort_by(|a, b| b.cmp(a));
            let wanted = ((density * values.len() as f64).floor() as usize).max(1);
            let bits = sorted[wanted - 1];
            let larger = sorted.iter().filter(|&&x| x > bits).count();
            let equal = sorted.iter().filter(|&&x| x == bits).count();
            // The sample's pass is not among these.
            for _ in 1..super::super::PASSES {
                let mut table = vec![0.0; BINS.interval];
                values.chunks(700).for_each(|block| count_within(block, interval, &mut table));
                match interval.narrow(&table, |_| wanted as f64) {
                    Search::Open(next) => interval = next,
                    found => {
                        let (rank, count) = ((wanted - larger) as f64, equal as f64);
                        prop_assert_eq!(found, Search::Found { bits, rank, count });
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "not found, still in {interval:?}");
        }
    }

    #[test]
    fn too_few_entries_have_no_threshold() {
        let table = vec![0.0; BINS.interval];
        assert_eq!(Interval::ALL.narrow(&table, |_| 1.0), Search::Nothing);
    }

    #[test]
    fn a_sample_of_nothing_excludes_nothing() {
        assert_eq!(Interval::guess(&vec![0.0; BINS.sample], 0.2), Interval::ALL);
    }
}
