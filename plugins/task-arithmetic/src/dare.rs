//! `dare_linear` and `dare_ties`: drop at random, then join.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Random, Result, Spec, laws, vectorize};

use crate::join::{Join, TILE, Thin, merge, weigh};
use crate::rescale;

/// Sum of randomly thinned task vectors.
///
/// With `rescale` what is kept is divided by the density, as in the paper; with `rescale_by: norm` it is scaled so that
/// each tensor gets back the Σ|τ| that it had, as mergekit does. The larger the tensor, the more closely the two agree; the norm takes
/// a pass of its own over the data.
pub struct DareLinear;

/// Consensus of randomly thinned task vectors, rescaled as in [`DareLinear`]; where they cancel the sign is +.
pub struct DareTies;

impl MergeMethod for DareLinear {
    fn spec() -> Spec {
        spec("dare_linear", "sum of randomly thinned task vectors").laws(laws::HOMOGENEOUS | laws::ZERO)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(plan(params))
    }

    fn observe(block: &Block<'_>, _: usize, sums: &mut [f64]) -> Result {
        observe(block, sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Drop::new(block, &weights(block)), Join::Sum, out);
        Ok(())
    }
}

impl MergeMethod for DareTies {
    fn spec() -> Spec {
        spec("dare_ties", "sign consensus of randomly thinned task vectors")
            .laws(laws::HOMOGENEOUS | laws::ZERO)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(plan(params))
    }

    fn observe(block: &Block<'_>, _: usize, sums: &mut [f64]) -> Result {
        observe(block, sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Drop::new(block, &weights(block)), Join::Consensus { zero_sum: 1.0 }, out);
        Ok(())
    }
}

fn spec(id: &'static str, summary: &'static str) -> Spec {
    crate::spec(id, summary, false)
        .citation("Yu et al., Language models are super Mario, ICML 2024, arXiv 2311.03099")
        .param(
            Param::number("density")
                .default(1.0)
                .range(0.0..=1.0)
                .per_expert()
                .describe("chance of each element to be kept"),
        )
        .param(Param::boolean("rescale").default(true).describe("make up for what is dropped"))
        .param(Param::choice("rescale_by", &["density", "norm"]).default("density").describe(
            "density: divide by it, as in the paper; norm: back to each tensor's Σ|τ|, as in mergekit",
        ))
        .random()
}

/// Norms take a pass over each tensor, if anything is dropped.
fn plan(params: &Params<'_>) -> Plan {
    let drops = params.expert_numbers("density").iter().any(|&density| density < 1.0);
    if drops && params.boolean("rescale") && params.choice("rescale_by") == "norm" {
        return Plan::per_tensor([rescale::sums_len(params.experts())]);
    }
    Plan::default()
}

fn observe(block: &Block<'_>, sums: &mut [f64]) {
    rescale::observe(block, &Drop::new(block, &vec![1.0; block.experts()]), sums);
}

/// The experts' weights, rescaled.
fn weights(block: &Block<'_>) -> Vec<f32> {
    let (weights, densities) = (block.expert_numbers("weight"), block.expert_numbers("density"));
    let factors: Vec<f64> = if plan(block).passes() > 0 {
        rescale::factors(block.totals()).collect()
    } else if block.boolean("rescale") {
        densities.iter().map(|&density| if density > 0.0 { 1.0 / density } else { 1.0 }).collect()
    } else {
        vec![1.0; weights.len()]
    };
    weights.iter().zip(factors).map(|(weight, factor)| (weight * factor) as f32).collect()
}

/// Keeps element i of expert k where its own random number is below density · 2³².
struct Drop<'a> {
    block: &'a Block<'a>,
    experts: Vec<Draw>,
}

struct Draw {
    random: Random,
    weight: f32,
    /// `None`: keep everything.
    below: Option<u32>,
}

impl<'a> Drop<'a> {
    fn new(block: &'a Block<'a>, weights: &[f32]) -> Self {
        let draw = |(k, &weight): (usize, &f32)| {
            let density = block.expert_number("density", k);
            // The conversion saturates: a density just below 1 keeps all but one number in 2³².
            let below = (density < 1.0).then_some((density * 4_294_967_296.0) as u32);
            Draw { random: block.random(k), weight, below }
        };
        Self { block, experts: weights.iter().enumerate().map(draw).collect() }
    }
}

impl Thin for Drop<'_> {
    fn thin(&self, k: usize, start: usize, values: &mut [f32]) {
        let (draw, expert) = (&self.experts[k], &self.block.expert(k)[start..]);
        let Some(below) = draw.below else { return weigh(values, expert, draw.weight) };
        let mut numbers = [0; TILE];
        let numbers = &mut numbers[..values.len()];
        draw.random.fill(self.block.offset() + start as u64, numbers);
        weigh_below(values, expert, draw.weight, numbers, below);
    }
}

vectorize! {
    fn weigh_below(values: &mut [f32], expert: &[f32], weight: f32, numbers: &[u32], below: u32) {
        for ((value, expert), &number) in values.iter_mut().zip(expert).zip(numbers) {
            *value = if number < below { weight * expert } else { 0.0 };
        }
    }
}
