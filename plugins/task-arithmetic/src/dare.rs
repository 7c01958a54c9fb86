//! `dare_linear` and `dare_ties`: drop at random, then join.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Random, Result, Spec, laws, vectorize};

use crate::join::{Join, TILE, Thin, merge, weigh};

/// Sum of randomly thinned task vectors.
pub struct DareLinear;

/// Consensus of randomly thinned task vectors; where they cancel the sign is +.
pub struct DareTies;

impl MergeMethod for DareLinear {
    fn spec() -> Spec {
        spec("dare_linear", "sum of randomly thinned task vectors").laws(laws::HOMOGENEOUS | laws::ZERO)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Drop::new(block), Join::Sum, out);
        Ok(())
    }
}

impl MergeMethod for DareTies {
    fn spec() -> Spec {
        spec("dare_ties", "sign consensus of randomly thinned task vectors")
            .laws(laws::HOMOGENEOUS | laws::ZERO)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Drop::new(block), Join::Consensus { zero_sum: 1.0 }, out);
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
        .param(Param::boolean("rescale").default(true).describe("divide what is kept by the density"))
        .random()
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
    fn new(block: &'a Block<'a>) -> Self {
        let rescale = block.boolean("rescale");
        let draw = |k| {
            let (weight, density) = (block.expert_number("weight", k), block.expert_number("density", k));
            let scale = if rescale && density > 0.0 { 1.0 / density } else { 1.0 };
            Draw {
                random: block.random(k),
                weight: (weight * scale) as f32,
                // The conversion saturates: a density just below 1 keeps all but one number in 2³².
                below: (density < 1.0).then_some((density * 4_294_967_296.0) as u32),
            }
        };
        Self { block, experts: (0..block.experts()).map(draw).collect() }
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
