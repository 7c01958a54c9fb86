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
    for k in (0..block.experts()).filter(|&k| (0.0..1.0).contains(&block.expert_number("density", k))) {
        open |= quest(block, scope, k).count(pass, block.expert(k), sums);
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

/// A threshold in the form that loops take: magnitudes above `above`, and those equal to it whose number is below
/// `equal_below`.
#[derive(Debug, Clone, Copy)]
pub struct Largest {
    above: f32,
    equal_below: u32,
}

impl From<Threshold> for Largest {
    fn from(threshold: Threshold) -> Self {
        match threshold.equal_below {
            Some(equal_below) => Self { above: threshold.magnitude, equal_below },
            // What is at least T is above T's neighbour; nothing is above NaN.
            None => Self { above: threshold.magnitude.next_down(), equal_below: 0 },
        }
    }
}

impl Largest {
    /// Everything is among them, but for NaN.
    pub const ALL: Self = Self { above: -1.0, equal_below: 0 };

    /// Whether any number decides.
    pub const fn draws(self) -> bool {
        self.equal_below > 0
    }

    /// Whether an entry of this magnitude, and of this number of [`AMONG_EQUALS`], is among them.
    #[inline(always)]
    pub fn has(self, magnitude: f32, number: u32) -> bool {
        (magnitude > self.above) | ((magnitude == self.above) & (number < self.equal_below))
    }
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
    let found = quest(block, scope, k).find()?;
    Ok(Some(match scope {
        Scope::Tensor => found,
        Scope::Global => Threshold { equal_below: None, ..found },
    }))
}

/// The largest entries of expert `k`. A tensor keeps ⌊density · n⌋ but at least one, as mergekit does; a whole task
/// vector ⌊density · n⌋ + 1, because the published code keeps the (n − ⌊density · n⌋)-th smallest.
fn quest<'a>(block: &'a Block<'_>, scope: Scope, k: usize) -> Quest<'a, impl Fn(f64) -> f64> {
    let density = block.expert_number("density", k);
    let rank = move |count: f64| match scope {
        Scope::Tensor => (density * count).floor().max(1.0),
        Scope::Global => (density * count).floor() + 1.0,
    };
    Quest { totals: block.totals(), index: k, of: block.experts(), share: density, rank }
}

/// Looks for the K-th largest of any magnitudes, an expert's or such as a method computes, in [`PASSES`] passes that it
/// may share with others like it: their sums are as long as [`sums_len`] says for so many.
#[derive(Debug, Clone, Copy)]
pub struct Quest<'a, R> {
    /// [`Block::totals`] from the first of these passes on.
    pub totals: &'a [f64],
    /// Which this is of those that share the passes.
    pub index: usize,
    /// How many share the passes.
    pub of: usize,
    /// About what share K is of all magnitudes, where to look first; 0: nothing is kept.
    pub share: f64,
    /// K, from the number of magnitudes. Below 1: nothing is kept.
    pub rank: R,
}

impl<R: Fn(f64) -> f64> Quest<'_, R> {
    /// Counts a block's magnitudes for a pass, in its part of the pass's sums; false when there is nothing left to find.
    pub fn count(&self, pass: usize, values: &[f32], sums: &mut [f64]) -> bool {
        let table_len = sums.len() / self.of;
        let table = &mut sums[self.index * table_len..][..table_len];
        match self.search(pass) {
            Search::Open(_) if pass == 0 => count_sample(values, table),
            Search::Open(interval) => count_within(values, interval, table),
            Search::Found { .. } | Search::Nothing => return false,
        }
        true
    }

    /// The threshold. Where more entries equal it than there is room for among the K, it says which of them are kept;
    /// where there are not K, it is NaN, so that nothing is kept.
    ///
    /// # Errors
    /// When passes did not see the same values: a mistake of the host.
    pub fn find(&self) -> Result<Threshold> {
        match self.search(PASSES) {
            // A random choice does not favour the first rows of a matrix, as the first of all equals would.
            Search::Found { bits, rank, count } => Ok(Threshold {
                magnitude: f32::from_bits(bits),
                equal_below: (rank < count).then_some((rank / count * 4_294_967_296.0) as u32),
            }),
            Search::Nothing => Ok(Threshold { magnitude: f32::NAN, equal_below: None }),
            Search::Open(_) => Err(format!(
                "threshold {} was not where earlier passes had counted it; every pass must see the same values with the \
                 same parameters",
                self.index
            )
            .into()),
        }
    }

    /// How far the first `passes` passes have come.
    fn search(&self, passes: usize) -> Search {
        if self.share == 0.0 {
            return Search::Nothing;
        }
        let Some((samples, mut totals)) = self.totals.split_at_checked(BINS.sample * self.of) else {
            return Search::Open(Interval::ALL);
        };
        let mut interval = Interval::guess(&samples[self.index * BINS.sample..][..BINS.sample], self.share);
        for _ in 1..passes {
            let (tables, later) = totals.split_at(BINS.interval * self.of);
            totals = later;
            match interval.narrow(&tables[self.index * BINS.interval..][..BINS.interval], &self.rank) {
                Search::Open(next) => interval = next,
                end => return end,
            }
        }
        Search::Open(interval)
    }
}
