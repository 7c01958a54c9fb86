//! `ties`: trim, elect a sign, merge those that agree.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws, vectorize};

use crate::join::{Join, Thin, for_each_tile, merge, sum_of_signs, weigh};
use crate::trim::{self, Scope};

/// TIES-Merging. `density` of each expert's largest entries are kept; each element takes the sign of the weighted sum;
/// the entries of that sign are averaged, or summed without `normalize`.
///
/// `scope` says over what the threshold and the majority sign are taken: each tensor by itself (as mergekit does) or
/// the whole task vector (as the paper does). Entries equal to the threshold are all kept; mergekit keeps exactly
/// ⌊density · n⌋ and picks among equals in no particular order.
pub struct Ties;

impl MergeMethod for Ties {
    fn spec() -> Spec {
        crate::spec("ties", "trim, elect sign, merge what agrees", true)
            .citation("Yadav et al., TIES-Merging, NeurIPS 2023, arXiv 2306.01708")
            .param(
                Param::number("density")
                    .default(1.0)
                    .range(0.0..=1.0)
                    .per_expert()
                    .describe("share of the entries kept, the largest ones"),
            )
            .param(
                Param::choice("scope", &["tensor", "global"])
                    .default("tensor")
                    .describe("over what the threshold and the majority sign are taken"),
            )
            .param(
                Param::choice("zero_sum", &["auto", "positive", "majority"]).default("auto").describe(
                    "sign where the sum is zero: +, or that of most elements; auto: + for tensor, majority for global",
                ),
            )
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO | laws::SIGN_AGREEMENT)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        let mut sums = Vec::new();
        if trims(params) {
            sums.extend(trim::sums_len(params.experts()));
        }
        if counts_signs(params) {
            sums.push(1);
        }
        Ok(match scope(params) {
            Scope::Tensor => Plan::per_tensor(sums),
            Scope::Global => Plan::global(sums),
        })
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        if trims(block) && pass < trim::PASSES {
            return trim::observe(block, scope(block), pass, sums);
        }
        for_each_tile(block, &Trim::new(block)?, |_, len, rows| sums[0] += sum_of_signs(rows, len));
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let zero_sum = match block.totals() {
            [.., votes] if counts_signs(block) => (*votes > 0.0) as i8 - (*votes < 0.0) as i8,
            _ => 1,
        };
        merge(block, &Trim::new(block)?, Join::Consensus { zero_sum: f32::from(zero_sum) }, out);
        Ok(())
    }
}

fn scope(params: &Params<'_>) -> Scope {
    if params.choice("scope") == "global" { Scope::Global } else { Scope::Tensor }
}

/// Whether any expert is trimmed: else there is no threshold to find.
fn trims(params: &Params<'_>) -> bool {
    params.expert_numbers("density").iter().any(|&density| density < 1.0)
}

/// Whether the majority sign is needed.
fn counts_signs(params: &Params<'_>) -> bool {
    match params.choice("zero_sum") {
        "auto" => scope(params) == Scope::Global,
        choice => choice == "majority",
    }
}

/// Keeps entries of at least the expert's threshold.
struct Trim<'a> {
    block: &'a Block<'a>,
    /// `None`: keep everything.
    thresholds: Vec<Option<f32>>,
}

impl<'a> Trim<'a> {
    fn new(block: &'a Block<'a>) -> Result<Self> {
        let threshold = |k| if trims(block) { trim::threshold(block, scope(block), k) } else { Ok(None) };
        Ok(Self { block, thresholds: (0..block.experts()).map(threshold).collect::<Result<_>>()? })
    }
}

impl Thin for Trim<'_> {
    fn thin(&self, k: usize, start: usize, values: &mut [f32]) {
        let (expert, weight) = (&self.block.expert(k)[start..], self.block.expert_number("weight", k) as f32);
        match self.thresholds[k] {
            Some(threshold) => weigh_large(values, expert, weight, threshold),
            None => weigh(values, expert, weight),
        }
    }
}

vectorize! {
    fn weigh_large(values: &mut [f32], expert: &[f32], weight: f32, threshold: f32) {
        for (value, expert) in values.iter_mut().zip(expert) {
            *value = if expert.abs() >= threshold { weight * expert } else { 0.0 };
        }
    }
}
