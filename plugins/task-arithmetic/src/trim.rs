//! What a trimmed expert keeps: entries above the threshold, the K-th largest |τ|, and as many of those that equal it as
//! there is room for among the K.

use skillweld_plugin_sdk::{Block, Random, Result};

use crate::search::{BINS, Interval, Search, count_sample, count_within};

/// Over what a threshold is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Tensor,
    Global,
}

/// Passes over the data: a sample, a guess that it misled, and four that find every threshold there is.
pub(crate) const PASSES: usize = 6;
/// One element of so many makes the sample.
pub(crate) const SAMPLE: usize = 32;

/// Length of each pass's sums: one table an expert.
pub(crate) fn sums_len(experts: usize) -> [usize; PASSES] {
    let mut len = [BINS.interval * experts; PASSES];
    len[0] = BINS.sample * experts;
    len
}

/// Counts for one pass the entries of every expert that is trimmed and whose threshold is not found yet.
pub(crate) fn observe(block: &Block<'_>, scope: Scope, pass: usize, sums: &mut [f64]) -> Result {
    let mut open = false;
    let table_len = sums.len() / block.experts();
    for (k, table) in sums.chunks_exact_mut(table_len).enumerate() {
        if !(0.0..1.0).contains(&block.expert_number("density", k)) {
            continue;
        }
        if pass == 0 {
            open = true;
            count_sample(block.expert(k), table);
        } else if let Search::Open(interval) = search(block, scope, k, pass) {
            open = true;
            count_within(block.expert(k), interval, table);
        }
    }
    if !open {
        block.settled();
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
    let (bits, rank, count) = match search(block, scope, k, PASSES) {
        Search::Found { bits, rank, count } => (bits, rank, count),
        // Nothing is at least NaN.
        Search::Nothing => return Ok(Some(Threshold { magnitude: f32::NAN, equal_below: None })),
        Search::Open(_) => {
            return Err(format!(
                "the threshold of expert {k} was not where earlier passes had counted it; every pass must see the same \
                 values with the same `density`"
            )
            .into());
        }
    };
    // A random choice does not favour the first rows of a matrix, as the first of all equals would.
    let some = scope == Scope::Tensor && rank < count;
    let equal_below = some.then_some((rank / count * 4_294_967_296.0) as u32);
    Ok(Some(Threshold { magnitude: f32::from_bits(bits), equal_below }))
}

/// How far the first `passes` passes have come.
fn search(block: &Block<'_>, scope: Scope, k: usize, passes: usize) -> Search {
    let density = block.expert_number("density", k);
    if density == 0.0 {
        return Search::Nothing;
    }
    let (samples, mut totals) = block.totals().split_at(BINS.sample * block.experts());
    let mut interval = Interval::guess(&samples[k * BINS.sample..][..BINS.sample], density);
    for _ in 1..passes {
        let (tables, later) = totals.split_at(BINS.interval * block.experts());
        totals = later;
        match interval.narrow(&tables[k * BINS.interval..][..BINS.interval], |n| rank(n, density, scope)) {
            Search::Open(next) => interval = next,
            end => return end,
        }
    }
    Search::Open(interval)
}

/// How many of `count` entries are kept, `density` < 1. A tensor keeps ⌊density · n⌋ but at least one, as mergekit
/// does; a whole task vector ⌊density · n⌋ + 1, because the published code keeps the (n − ⌊density · n⌋)-th smallest.
fn rank(count: f64, density: f64, scope: Scope) -> f64 {
    match scope {
        Scope::Tensor => (density * count).floor().max(1.0),
        Scope::Global => (density * count).floor() + 1.0,
    }
}
