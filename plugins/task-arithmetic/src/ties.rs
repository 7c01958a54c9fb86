//! `ties`: trim, elect a sign, merge those that agree.

use skillweld_plugin_sdk::trim::{self, Scope, Threshold};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws, vectorize};

use crate::equals::Numbers;
use crate::join::{Join, TILE, Thin, for_each_tile, merge, sum_of_signs, weigh};
use crate::rescale;

/// TIES-Merging. `density` of each expert's largest entries are kept; each element takes the sign of the weighted sum;
/// the entries of that sign are averaged, or summed without `normalize`. With `rescale` the entries kept of each expert
/// are first scaled back to its Σ|τ|, as in mergekit.
///
/// `scope` says over what the threshold, the norm and the majority sign are taken: each tensor by itself (as mergekit does) or
/// the whole task vector (as the paper does). The difference of two bf16 weights has few magnitudes, so that many entries equal
/// the threshold. `tensor` keeps as many of them as the density asks for, chosen at random by their place; mergekit keeps
/// those that an unstable sort leaves in front. `global` keeps them all, as the paper's code does.
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
                Param::boolean("rescale")
                    .default(false)
                    .describe("scale what is kept of a task vector back to its Σ|τ|"),
            )
            .param(
                Param::choice("scope", &["tensor", "global"])
                    .default("tensor")
                    .describe("over what the threshold, the norm and the majority sign are taken"),
            )
            .param(
                Param::choice("zero_sum", &["auto", "positive", "majority"]).default("auto").describe(
                    "sign where the sum is zero: +, or that of most elements; auto: + for tensor, majority for global",
                ),
            )
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO | laws::SIGN_AGREEMENT)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        let sums: Vec<usize> = passes(params).into_iter().map(|(_, len)| len).collect();
        let plan = Scope::of(params).plan(sums);
        Ok(if trims(params) { plan.sample(0, trim::SAMPLE) } else { plan })
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        match passes(block)[pass].0 {
            Pass::Threshold(pass) => return trim::observe(block, Scope::of(block), pass, sums),
            Pass::Norms => rescale::observe(block, &Trim::new(block, vec![1.0; block.experts()])?, sums),
            Pass::Signs => for_each_tile(block, &Trim::new(block, weights(block))?, |_, len, rows| {
                sums[0] += sum_of_signs(rows, len);
            }),
        }
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let zero_sum = match totals(block, Pass::Signs) {
            Some(&[votes]) => (votes > 0.0) as i8 - (votes < 0.0) as i8,
            _ => 1,
        };
        let join = Join::Consensus { zero_sum: f32::from(zero_sum) };
        merge(block, &Trim::new(block, weights(block))?, join, out);
        Ok(())
    }
}

/// Whether any expert is trimmed: else there is no threshold to find.
fn trims(params: &Params<'_>) -> bool {
    params.expert_numbers("density").iter().any(|&density| density < 1.0)
}

/// Whether the majority sign is needed.
fn counts_signs(params: &Params<'_>) -> bool {
    match params.choice("zero_sum") {
        "auto" => Scope::of(params) == Scope::Global,
        choice => choice == "majority",
    }
}

/// What a pass over the data finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// A step towards the thresholds.
    Threshold(usize),
    /// Σ|τ| before and after trimming.
    Norms,
    /// The majority sign.
    Signs,
}

/// The passes that the parameters make necessary, each with the length of its sums.
fn passes(params: &Params<'_>) -> Vec<(Pass, usize)> {
    let mut passes = Vec::new();
    if trims(params) {
        passes.extend(
            trim::sums_len(params.experts())
                .into_iter()
                .enumerate()
                .map(|(i, len)| (Pass::Threshold(i), len)),
        );
        if params.boolean("rescale") {
            passes.push((Pass::Norms, rescale::sums_len(params.experts())));
        }
    }
    if counts_signs(params) {
        passes.push((Pass::Signs, 1));
    }
    passes
}

/// What `wanted` found; `None` when it is not among the passes.
fn totals<'a>(block: &'a Block<'_>, wanted: Pass) -> Option<&'a [f64]> {
    let mut start = 0;
    for (pass, len) in passes(block) {
        if pass == wanted {
            return block.totals().get(start..start + len);
        }
        start += len;
    }
    None
}

/// The experts' weights, rescaled.
fn weights(block: &Block<'_>) -> Vec<f32> {
    let weights = block.expert_numbers("weight").iter();
    match totals(block, Pass::Norms) {
        Some(norms) => {
            weights.zip(rescale::factors(norms)).map(|(weight, factor)| (weight * factor) as f32).collect()
        }
        None => weights.map(|&weight| weight as f32).collect(),
    }
}

/// Keeps entries above the expert's threshold, and of those that equal it as many as there is room for.
struct Trim<'a> {
    block: &'a Block<'a>,
    weights: Vec<f32>,
    /// `None`: keep everything.
    thresholds: Vec<Option<Threshold>>,
    numbers: Numbers,
}

impl<'a> Trim<'a> {
    fn new(block: &'a Block<'a>, weights: Vec<f32>) -> Result<Self> {
        let threshold = |k| if trims(block) { trim::threshold(block, Scope::of(block), k) } else { Ok(None) };
        let thresholds = (0..block.experts()).map(threshold).collect::<Result<_>>()?;
        Ok(Self { block, weights, thresholds, numbers: Numbers::default() })
    }
}

impl Thin for Trim<'_> {
    fn thin(&self, k: usize, start: usize, values: &mut [f32]) {
        let (expert, weight) = (&self.block.expert(k)[start..], self.weights[k]);
        match self.thresholds[k] {
            Some(Threshold { magnitude, equal_below: Some(below) }) => {
                self.numbers.with_tile(self.block.offset() + start as u64, |numbers| {
                    weigh_some(values, expert, weight, magnitude, numbers, below);
                });
            }
            Some(Threshold { magnitude, equal_below: None }) => {
                weigh_large(values, expert, weight, magnitude);
            }
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

    /// As `weigh_large`, but of the entries equal to the threshold only those whose number is below `below`.
    fn weigh_some(values: &mut [f32], expert: &[f32], weight: f32, threshold: f32, numbers: &[u32; TILE], below: u32) {
        for ((value, expert), &number) in values.iter_mut().zip(expert).zip(numbers) {
            let magnitude = expert.abs();
            let keep = (magnitude > threshold) | ((magnitude == threshold) & (number < below));
            *value = if keep { weight * expert } else { 0.0 };
        }
    }
}
