//! The exact trim threshold: the K-th largest |τ| of a task vector, by radix selection, and which of the entries that
//! equal it are among the K.
//!
//! Magnitudes compare like their bits. Three passes count the upper 11, the next 10 and the last 10 of the 31 bits, each
//! only among the entries that share what the passes before have settled: tables this small stay in the first cache,
//! and counts are whole numbers, which f64 adds exactly in any order.

use skillweld_plugin_sdk::{Block, Random, Result, pack_bits, vectorize};

/// Over what a threshold is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Tensor,
    Global,
}

/// Passes over the data.
pub(crate) const PASSES: usize = 3;
/// Lowest bit of each pass's digit, and the digit's number of values.
const DIGITS: [(u32, usize); PASSES] = [(20, 1 << 11), (10, 1 << 10), (0, 1 << 10)];

/// Length of each pass's sums: one table an expert.
pub(crate) fn sums_len(experts: usize) -> [usize; PASSES] {
    DIGITS.map(|(_, bins)| bins * experts)
}

/// Counts one digit of every expert that is trimmed.
pub(crate) fn observe(block: &Block<'_>, scope: Scope, pass: usize, sums: &mut [f64]) -> Result {
    let (shift, bins) = DIGITS[pass];
    for (k, counts) in sums.chunks_exact_mut(bins).enumerate() {
        if !(0.0..1.0).contains(&block.expert_number("density", k)) {
            continue;
        }
        if pass == 0 {
            count_upper(block.expert(k), counts);
        } else if let Some(settled) = narrow(block, scope, k, pass)? {
            count_within(block.expert(k), counts, shift, settled.bits);
        }
    }
    Ok(())
}

/// What a trimmed expert keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    /// The smallest magnitude kept.
    pub(crate) magnitude: f32,
    /// Of the entries of that magnitude those are kept whose random number is below this; `None`: all.
    pub(crate) equal_below: Option<u32>,
}

/// Decides which of equal entries are kept, by their place in the tensor alone: equal experts keep the same ones, and
/// neither the order of the experts nor a seed matters.
pub(crate) const AMONG_EQUALS: Random = Random::new(0, 0);

/// What expert `k` keeps; `None` when it keeps everything.
pub(crate) fn threshold(block: &Block<'_>, scope: Scope, k: usize) -> Result<Option<Threshold>> {
    if block.expert_number("density", k) >= 1.0 {
        return Ok(None);
    }
    let Some(Narrowed { bits, rank, count }) = narrow(block, scope, k, PASSES)? else {
        // Nothing is at least NaN: density 0 keeps nothing.
        return Ok(Some(Threshold { magnitude: f32::NAN, equal_below: None }));
    };
    // A random choice does not favour the first rows of a matrix, as the first of all equals would.
    let some = scope == Scope::Tensor && rank < count;
    let equal_below = some.then_some((rank / count * 4_294_967_296.0) as u32);
    Ok(Some(Threshold { magnitude: f32::from_bits(bits), equal_below }))
}

/// What some passes settle of an expert's threshold.
#[derive(Debug, Clone, Copy, Default)]
struct Narrowed {
    /// Its upper bits, lower ones zero.
    bits: u32,
    /// Its rank from above among the entries with these bits: so many of them are kept.
    rank: f64,
    /// How many entries have these bits.
    count: f64,
}

/// What the first `passes` passes settle. `None` when nothing is kept.
fn narrow(block: &Block<'_>, scope: Scope, k: usize, passes: usize) -> Result<Option<Narrowed>> {
    let mut totals = block.totals();
    let mut settled = Narrowed::default();
    for (pass, (shift, bins)) in DIGITS.into_iter().enumerate().take(passes) {
        let (tables, later) = totals.split_at(bins * block.experts());
        totals = later;
        let groups = group_sums(&tables[k * bins..][..bins]);
        if pass == 0 {
            match rank(groups.iter().sum(), block.expert_number("density", k), scope) {
                Some(rank) => settled.rank = rank,
                None => return Ok(None),
            }
        }
        let counts = &tables[k * bins..][..bins];
        let found = select(&groups, settled.rank).and_then(|(group, rank)| {
            let (bin, rank) = select(&counts[group * GROUP..][..GROUP], rank)?;
            Some((group * GROUP + bin, rank))
        });
        let Some((bin, rank)) = found else {
            return Err(format!(
                "pass {pass} counted fewer entries of expert {k} than were settled on before; every pass must see the \
                 same values with the same `density`"
            )
            .into());
        };
        settled = Narrowed { bits: settled.bits | (bin as u32) << shift, rank, count: counts[bin] };
    }
    Ok(Some(settled))
}

/// How many of `count` entries are kept, `density` < 1. A tensor keeps ⌊density · n⌋ but at least one, as mergekit
/// does; a whole task vector ⌊density · n⌋ + 1, because the published code keeps the (n − ⌊density · n⌋)-th smallest.
fn rank(count: f64, density: f64, scope: Scope) -> Option<f64> {
    let rank = match scope {
        Scope::Tensor => (density * count).floor().max(1.0),
        Scope::Global => (density * count).floor() + 1.0,
    };
    (density > 0.0 && rank <= count).then_some(rank)
}

/// The bin that holds the `rank`-th entry from above, and the entry's rank within it.
fn select(counts: &[f64], mut rank: f64) -> Option<(usize, f64)> {
    for (bin, &count) in counts.iter().enumerate().rev() {
        if rank <= count {
            return Some((bin, rank));
        }
        rank -= count;
    }
    None
}

const UPPER_BINS: usize = DIGITS[0].1;
const LOWER_BINS: usize = DIGITS[1].1;
/// Bins that a search skips at once.
const GROUP: usize = 64;
/// Tables that neighbouring elements take in turn: equal neighbours would wait for each other's increment.
const TABLES: usize = 4;

#[inline(always)]
fn add_tables<const BINS: usize>(tables: &[[u32; BINS]; TABLES], counts: &mut [f64]) {
    for (bin, count) in counts.iter_mut().enumerate().take(BINS) {
        *count += f64::from(tables.iter().map(|table| table[bin]).sum::<u32>());
    }
}

vectorize! {
    /// Sums of [`GROUP`] bins each, at most [`UPPER_BINS`] in all.
    fn group_sums(counts: &[f64]) -> [f64; UPPER_BINS / GROUP] {
        let mut sums = [0.0; UPPER_BINS / GROUP];
        for (sum, group) in sums.iter_mut().zip(counts.as_chunks::<GROUP>().0) {
            let mut lanes = [0.0; 16];
            for counts in group.as_chunks::<16>().0 {
                lanes.iter_mut().zip(counts).for_each(|(lane, count)| *lane += count);
            }
            *sum = lanes.iter().sum();
        }
        sums
    }

    fn count_upper(values: &[f32], counts: &mut [f64]) {
        let mut tables = [[0; UPPER_BINS]; TABLES];
        let mut digits = [0u16; 64];
        for values in values.chunks(64) {
            for (digit, value) in digits.iter_mut().zip(values) {
                *digit = (value.abs().to_bits() >> DIGITS[0].0) as u16;
            }
            for digits in digits[..values.len()].chunks(TABLES) {
                for (table, &digit) in tables.iter_mut().zip(digits) {
                    table[usize::from(digit) % UPPER_BINS] += 1;
                }
            }
        }
        add_tables(&tables, counts);
    }

    /// Counts the ten bits above `shift` of those values whose bits above these are `settled`'s.
    fn count_within(values: &[f32], counts: &mut [f64], shift: u32, settled: u32) {
        let mut tables = [[0; LOWER_BINS]; TABLES];
        for values in values.chunks(64) {
            let (mut matches, mut bits) = ([false; 64], [0; 8]);
            for (matches, value) in matches.iter_mut().zip(values) {
                *matches = value.abs().to_bits() >> (shift + 10) == settled >> (shift + 10);
            }
            pack_bits(&matches[..values.len()], &mut bits);
            let mut found = u64::from_le_bytes(bits);
            while found != 0 {
                let index = found.trailing_zeros() as usize;
                tables[index % TABLES][(values[index].to_bits() >> shift) as usize % LOWER_BINS] += 1;
                found &= found - 1;
            }
        }
        add_tables(&tables, counts);
    }
}
