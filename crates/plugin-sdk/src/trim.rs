//! What a trimmed expert keeps: entries above the threshold, the K-th largest |τ|, and as many of those that equal it as
//! there is room for among the K.
//!
//! For methods with a number `density` an expert, the share of entries that it keeps. They ask for [`sums_len`] as their
//! first passes, hand these to [`observe`], and find each expert's [`threshold`] in the totals, exactly:
//!
//! ```
//! use skillweld_plugin_sdk::trim::{self, Scope};
//! use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods};
//!
//! /// The large entries of the first expert.
//! pub struct Large;
//!
//! impl MergeMethod for Large {
//!     fn spec() -> Spec {
//!         Spec::new("large", "the large entries").param(Param::number("density").range(0.0..=1.0).per_expert())
//!     }
//!
//!     fn plan(params: &Params<'_>) -> Result<Plan> {
//!         Ok(Scope::Tensor.plan(trim::sums_len(params.experts())).sample(0, trim::SAMPLE))
//!     }
//!
//!     fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
//!         trim::observe(block, Scope::Tensor, pass, sums)
//!     }
//!
//!     fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
//!         let threshold = trim::threshold(block, Scope::Tensor, 0)?;
//!         for (out, &value) in out.iter_mut().zip(block.expert(0)) {
//!             *out = if threshold.is_none_or(|kept| value.abs() >= kept.magnitude) { value } else { 0.0 };
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_methods!(merge: [Large]);
//! # fn main() {
//! use skillweld_plugin_sdk::trial::Trial;
//! assert_eq!(Trial::of::<Large>().experts(&[&[1.0, -4.0, 3.0, 2.0]]).set("density", 0.5).merge(), [0.0, -4.0, 3.0, 0.0]);
//! # }
//! ```

mod search;

use crate::{Block, Params, Plan, Random, Result};
use search::{BINS, Interval, Search, count_sample, count_within};

/// Over what a threshold is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each tensor by itself.
    Tensor,
    /// All tensors of the merge together.
    Global,
}

impl Scope {
    /// What the choice `scope` (`tensor` or `global`) says.
    pub fn of(params: &Params<'_>) -> Self {
        if params.choice("scope") == "global" { Self::Global } else { Self::Tensor }
    }

    /// Passes of these lengths whose sums run over this.
    pub fn plan(self, sums: impl Into<Vec<usize>>) -> Plan {
        match self {
            Self::Tensor => Plan::per_tensor(sums),
            Self::Global => Plan::global(sums),
        }
    }
}

/// Passes over the data: a sample, a guess that it misled, and four that find every threshold there is.
pub const PASSES: usize = 6;
/// One element of so many makes the sample.
pub const SAMPLE: usize = 32;

/// Length of the sums of each of the [`PASSES`]: one table an expert.
pub fn sums_len(experts: usize) -> [usize; PASSES] {
    let mut len = [BINS.interval * experts; PASSES];
    len[0] = BINS.sample * experts;
    len
}

/// Counts for one pass the entries of every expert that is trimmed and whose threshold is not found yet.
///
/// # Errors
/// None; as [`MergeMethod::observe`](crate::MergeMethod::observe) wants it.
pub fn observe(block: &Block<'_>, scope: Scope, pass: usize, sums: &mut [f64]) -> Result {
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
pub struct Threshold {
    /// The smallest magnitude kept.
    pub magnitude: f32,
    /// Of the entries of that magnitude those are kept whose random number is below this; `None`: all.
    pub equal_below: Option<u32>,
}

/// Decides which of equal entries are kept, by their place in the tensor alone: equal experts keep the same ones, and
/// neither the order of the experts nor a seed matters.
pub const AMONG_EQUALS: Random = Random::new(0, 0);

/// What expert `k` keeps; `None` when it keeps everything.
///
/// # Errors
/// When passes did not see the same values: a mistake of the host.
pub fn threshold(block: &Block<'_>, scope: Scope, k: usize) -> Result<Option<Threshold>> {
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
