//! `della` and `della_linear`: drop at random, small entries more often than large ones, then join.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Random, Result, Spec, laws, vectorize};

use crate::join::{Join, TILE, Thin, merge, weigh};
use crate::rescale;

/// Consensus of task vectors thinned by magnitude; where they cancel the sign is +.
///
/// An entry of a row of n is kept with the chance p = density − ε + 2ε · r / (n − 1), r being its rank by magnitude in the
/// row, from 0 for the smallest; equal entries share their mean rank. (ε is mergekit's; the paper's is twice that, the width
/// of the range.) No row is sorted for it: r / (n − 1) is the chance that another entry of the row, taken at random, is
/// smaller, or as large and loses the toss; so one random number either settles the matter (below density − ε, above
/// density + ε) or names the entry to compare with.
///
/// A row is what lies under one index of the first axis; a vector is one row. (mergekit ranks tensors of more axes along the
/// second axis alone, and fails on rows of one entry, which here are kept with the chance `density`.)
///
/// With `rescale` what is kept of a tensor is scaled back to the Σ|τ| that it had, as mergekit does; with `rescale_by:
/// density` each entry kept is divided by its own chance p, as in the paper, for which rows are sorted.
pub struct Della;

/// Sum of task vectors thinned by magnitude as in [`Della`].
pub struct DellaLinear;

impl MergeMethod for Della {
    fn spec() -> Spec {
        spec("della", "sign consensus of task vectors thinned at random by magnitude", true)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        plan(params)
    }

    fn observe(block: &Block<'_>, _: usize, sums: &mut [f64]) -> Result {
        rescale::observe(block, &Prune::new(block, &vec![1.0; block.experts()], false), sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Prune::rescaled(block), Join::Consensus { zero_sum: 1.0 }, out);
        Ok(())
    }
}

impl MergeMethod for DellaLinear {
    fn spec() -> Spec {
        spec("della_linear", "sum of task vectors thinned at random by magnitude", false)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        plan(params)
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        Della::observe(block, pass, sums)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Prune::rescaled(block), Join::Sum, out);
        Ok(())
    }
}

fn spec(id: &'static str, summary: &'static str, normalize: bool) -> Spec {
    crate::spec(id, summary, normalize)
        .citation("Deep et al., DELLA-Merging, 2024, arXiv 2406.11617")
        .param(
            Param::number("density")
                .default(1.0)
                .range(0.0..=1.0)
                .per_expert()
                .describe("mean chance of a row's elements to be kept"),
        )
        .param(
            Param::number("epsilon")
                .default(0.15)
                .range(0.0..=0.5)
                .per_expert()
                .describe("how far below it the chance of a row's smallest element lies, and above it the largest's"),
        )
        .param(Param::boolean("rescale").default(true).describe("make up for what is dropped"))
        .param(Param::choice("rescale_by", &["norm", "density"]).default("norm").describe(
            "norm: back to each tensor's Σ|τ|, as in mergekit; density: divide each element by its own chance, as in the paper",
        ))
        .rows()
        .random()
        .laws(laws::HOMOGENEOUS | laws::ZERO)
}

fn plan(params: &Params<'_>) -> Result<Plan> {
    let both = params.expert_numbers("density").iter().zip(params.expert_numbers("epsilon"));
    for (k, (&density, &epsilon)) in both.enumerate().filter(|(_, (density, _))| is_thinned(**density)) {
        if density - epsilon <= 0.0 || density + epsilon >= 1.0 {
            return Err(format!(
                "expert {k}: density {density} ± epsilon {epsilon} must lie between 0 and 1; choose an epsilon below {}",
                density.min(1.0 - density)
            )
            .into());
        }
    }
    let drops = params.expert_numbers("density").iter().any(|&density| density < 1.0);
    if drops && params.boolean("rescale") && params.choice("rescale_by") == "norm" {
        return Ok(Plan::per_tensor([rescale::sums_len(params.experts())]));
    }
    Ok(Plan::default())
}

/// Else nothing is random: all or nothing is kept.
fn is_thinned(density: f64) -> bool {
    0.0 < density && density < 1.0
}

/// Keeps an entry as its random number says, and perhaps another entry of its row.
struct Prune<'a> {
    block: &'a Block<'a>,
    row_len: usize,
    experts: Vec<Draw>,
}

struct Draw {
    weight: f32,
    kept: Kept,
}

enum Kept {
    All,
    Nothing,
    Some {
        random: Random,
        bounds: Bounds,
        /// Weight over chance of every element of the block; empty: the weight is the same for all.
        weights: Vec<f32>,
    },
}

/// How random numbers decide.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Below it an entry is kept.
    low: u32,
    /// From it on an entry is dropped.
    high: u32,
    /// Numbers between the two, times this, are places among the others of the row, in 2^−shift.
    places: u64,
    /// As large as the product has room for.
    shift: u32,
}

impl Bounds {
    fn new(density: f64, epsilon: f64, row_len: usize) -> Self {
        // There is nothing to compare with in a row of one.
        let epsilon = if row_len > 1 { epsilon } else { 0.0 };
        let number = |chance: f64| (chance * 4_294_967_296.0) as u32;
        let (low, high) = (number(density - epsilon), number(density + epsilon));
        let others = row_len.saturating_sub(1) as u64;
        // The number of others fills the upper bits: it is at least 1, or the bounds are equal.
        let shift = others.max(1).leading_zeros();
        Self { low, high, places: (others << shift) / u64::from(high - low).max(1), shift }
    }
}

impl<'a> Prune<'a> {
    fn new(block: &'a Block<'a>, weights: &[f64], by_density: bool) -> Self {
        let row_len = (block.row_len() as usize).max(1);
        let draw = |(k, &weight): (usize, &f64)| {
            let (density, epsilon) = (block.expert_number("density", k), block.expert_number("epsilon", k));
            let kept = if density >= 1.0 {
                Kept::All
            } else if !is_thinned(density) {
                Kept::Nothing
            } else {
                let weights = match by_density {
                    true => over_chances(block.expert(k), row_len, weight, (density, epsilon)),
                    false => Vec::new(),
                };
                Kept::Some {
                    random: block.random(k),
                    bounds: Bounds::new(density, epsilon, row_len),
                    weights,
                }
            };
            Draw { weight: weight as f32, kept }
        };
        Self { block, row_len, experts: weights.iter().enumerate().map(draw).collect() }
    }

    /// With the experts' weights as the parameters say.
    fn rescaled(block: &'a Block<'a>) -> Self {
        let weights = block.expert_numbers("weight");
        if block.totals().is_empty() {
            let by_density = block.boolean("rescale") && block.choice("rescale_by") == "density";
            return Self::new(block, weights, by_density);
        }
        let factors = rescale::factors(block.totals());
        let weights: Vec<f64> = weights.iter().zip(factors).map(|(weight, factor)| weight * factor).collect();
        Self::new(block, &weights, false)
    }
}

/// The weight over each entry's own chance to be kept.
fn over_chances(expert: &[f32], row_len: usize, weight: f64, (density, epsilon): (f64, f64)) -> Vec<f32> {
    let others = (row_len - 1).max(1) as f64;
    let mut weights = vec![0.0; expert.len()];
    let mut order: Vec<(u32, u32)> = Vec::with_capacity(row_len);
    for (row, weights) in expert.chunks(row_len).zip(weights.chunks_mut(row_len)) {
        order.clear();
        order.extend(row.iter().map(|x| x.abs().to_bits()).zip(0..));
        order.sort_unstable();
        let mut smaller = 0;
        for equals in order.chunk_by(|a, b| a.0 == b.0) {
            let rank = smaller as f64 + (equals.len() - 1) as f64 / 2.0;
            let share = if row_len > 1 { rank / others } else { 0.5 };
            let chance = density - epsilon + 2.0 * epsilon * share;
            equals.iter().for_each(|&(_, i)| weights[i as usize] = (weight / chance) as f32);
            smaller += equals.len();
        }
    }
    weights
}

impl Thin for Prune<'_> {
    fn thin(&self, k: usize, start: usize, values: &mut [f32]) {
        let (expert, draw) = (self.block.expert(k), &self.experts[k]);
        let (random, bounds, weights) = match &draw.kept {
            Kept::All => return weigh(values, &expert[start..], draw.weight),
            Kept::Nothing => return values.fill(0.0),
            Kept::Some { random, bounds, weights } => (random, *bounds, weights),
        };
        let mut numbers = [0; TILE];
        random.fill(self.block.offset() + start as u64, &mut numbers[..values.len()]);
        let mut done = 0;
        while done < values.len() {
            let (row, place) = ((start + done) / self.row_len, (start + done) % self.row_len);
            let len = (self.row_len - place).min(values.len() - done);
            let part = done..done + len;
            let row = &expert[row * self.row_len..][..self.row_len];
            prune(&mut values[part.clone()], row, place, &numbers[part.clone()], bounds);
            done = part.end;
        }
        match weights.get(start..start + values.len()) {
            Some(weights) => multiply(values, weights),
            None => scale(values, draw.weight),
        }
    }
}

vectorize! {
    /// Those of the entries from `place` on of a row that are kept, zero for the others.
    fn prune(values: &mut [f32], row: &[f32], place: usize, numbers: &[u32], bounds: Bounds) {
        let Bounds { low, high, places, shift } = bounds;
        for (i, ((value, &own), &number)) in values.iter_mut().zip(&row[place..]).zip(numbers).enumerate() {
            let at = u64::from(number.wrapping_sub(low)).wrapping_mul(places);
            let other = (at >> shift) as usize;
            // Places beyond the row are those of numbers for which it does not matter.
            let other = row.get(other + usize::from(other >= place + i)).copied().unwrap_or(0.0).abs();
            let wins = (own.abs() > other) | ((own.abs() == other) & (at >> (shift - 1) & 1 == 0));
            let keep = (number < low) | ((number < high) & wins);
            *value = if keep { own } else { 0.0 };
        }
    }

    fn multiply(values: &mut [f32], weights: &[f32]) {
        values.iter_mut().zip(weights).for_each(|(value, weight)| *value *= weight);
    }

    fn scale(values: &mut [f32], weight: f32) {
        values.iter_mut().for_each(|value| *value *= weight);
    }
}
