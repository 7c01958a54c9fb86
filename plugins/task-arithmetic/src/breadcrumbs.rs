//! `breadcrumbs` and `breadcrumbs_ties`: drop the smallest entries and the largest, then join.

use skillweld_plugin_sdk::trim::{self, Largest, Quest};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws, vectorize};

use crate::equals::Numbers;
use crate::join::{Join, TILE, Thin, merge, weigh};
use crate::rescale;

/// Sum of the task vectors' middles: of n entries of a tensor ⌊density · n⌋ are kept, those that follow the ⌊gamma · n⌋
/// of largest magnitude. Where fewer would be left the largest ones make room, so that no more is dropped than the density
/// asks for; density 1 keeps everything.
///
/// The parameters mean what they mean in mergekit, whose `gamma` is the paper's β. Of entries that equal a threshold as many
/// are kept as there is room for, chosen at random by their place, as in [`Ties`](crate::Ties).
pub struct Breadcrumbs;

/// Consensus of the task vectors' middles, as in [`Breadcrumbs`]; where they cancel the sign is +.
pub struct BreadcrumbsTies;

impl MergeMethod for Breadcrumbs {
    fn spec() -> Spec {
        spec("breadcrumbs", "sum of task vectors without their smallest and largest entries")
            .laws(laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(plan(params))
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        observe(block, pass, sums)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Middles::new(block, weights(block))?, Join::Sum, out);
        Ok(())
    }
}

impl MergeMethod for BreadcrumbsTies {
    fn spec() -> Spec {
        spec("breadcrumbs_ties", "sign consensus of task vectors without their smallest and largest entries")
            .laws(laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO | laws::SIGN_AGREEMENT)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(plan(params))
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        observe(block, pass, sums)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        merge(block, &Middles::new(block, weights(block))?, Join::Consensus { zero_sum: 1.0 }, out);
        Ok(())
    }
}

fn spec(id: &'static str, summary: &'static str) -> Spec {
    crate::spec(id, summary, false)
        .citation("Davari, Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv 2312.06795")
        .param(
            Param::number("density")
                .default(1.0)
                .range(0.0..=1.0)
                .per_expert()
                .describe("share of the entries kept"),
        )
        .param(
            Param::number("gamma")
                .default(0.01)
                .range(0.0..=1.0)
                .per_expert()
                .describe("share of the entries dropped because they are the largest"),
        )
        .param(
            Param::boolean("rescale")
                .default(false)
                .describe("scale what is kept of a task vector back to its Σ|τ|"),
        )
}

/// The thresholds of experts that are thinned out, then norms if these are to be kept.
fn plan(params: &Params<'_>) -> Plan {
    if params.expert_numbers("density").iter().all(|&density| density >= 1.0) {
        return Plan::default();
    }
    let mut sums = trim::sums_len(2 * params.experts()).to_vec();
    if params.boolean("rescale") {
        sums.push(rescale::sums_len(params.experts()));
    }
    Plan::per_tensor(sums).sample(0, trim::SAMPLE)
}

fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
    if pass == trim::PASSES {
        rescale::observe(block, &Middles::new(block, vec![1.0; block.experts()])?, sums);
        return Ok(());
    }
    let mut open = false;
    for (k, shares) in experts(block).enumerate() {
        for quest in shares.iter().flat_map(|shares| shares.quests(block, k)) {
            open |= quest.count(pass, block.expert(k), sums);
        }
    }
    if !open {
        block.settled();
    }
    Ok(())
}

/// The experts' weights, rescaled.
fn weights(block: &Block<'_>) -> Vec<f32> {
    let weights = block.expert_numbers("weight").iter();
    let thresholds: usize = trim::sums_len(2 * block.experts()).iter().sum();
    match block.totals().get(thresholds..) {
        Some(norms) if !norms.is_empty() => {
            weights.zip(rescale::factors(norms)).map(|(weight, factor)| (weight * factor) as f32).collect()
        }
        _ => weights.map(|&weight| weight as f32).collect(),
    }
}

/// What is kept of one expert.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// Kept.
    density: f64,
    /// Dropped from above.
    gamma: f64,
}

/// Each expert's; `None`: everything is kept.
fn experts<'a>(params: &Params<'a>) -> impl Iterator<Item = Option<Shares>> + 'a {
    let both = params.expert_numbers("density").iter().zip(params.expert_numbers("gamma"));
    both.map(|(&density, &gamma)| (density < 1.0).then_some(Shares { density, gamma }))
}

impl Shares {
    /// Entries dropped from above, and those with the ones kept: of the largest.
    fn ranks(self, count: f64) -> [f64; 2] {
        let kept = (self.density * count).floor();
        let dropped = (self.gamma * count).floor().min(count - kept);
        [if kept < 1.0 { 0.0 } else { dropped + kept }, dropped]
    }

    /// What finds the thresholds of both.
    fn quests<'a>(self, block: &'a Block<'_>, k: usize) -> [Quest<'a, impl Fn(f64) -> f64 + use<>>; 2] {
        let dropped = self.gamma.min(1.0 - self.density);
        let shares = [if self.density > 0.0 { dropped + self.density } else { 0.0 }, dropped];
        [0, 1].map(|i| Quest {
            totals: block.totals(),
            index: 2 * k + i,
            of: 2 * block.experts(),
            share: shares[i],
            rank: move |count| self.ranks(count)[i],
        })
    }
}

/// Keeps the entries that are among the larger ones, but not among the largest.
struct Middles<'a> {
    block: &'a Block<'a>,
    weights: Vec<f32>,
    /// The larger ones and, of these, the largest; `None`: keep everything.
    larger: Vec<Option<[Largest; 2]>>,
    numbers: Numbers,
}

impl<'a> Middles<'a> {
    fn new(block: &'a Block<'a>, weights: Vec<f32>) -> Result<Self> {
        let find = |(k, shares): (usize, Option<Shares>)| {
            let Some(shares) = shares else { return Ok(None) };
            let [larger, largest] = shares.quests(block, k);
            Ok(Some([larger.find()?.into(), largest.find()?.into()]))
        };
        let larger = experts(block).enumerate().map(find).collect::<Result<_>>()?;
        Ok(Self { block, weights, larger, numbers: Numbers::default() })
    }
}

impl Thin for Middles<'_> {
    fn thin(&self, k: usize, start: usize, values: &mut [f32]) {
        let (expert, weight) = (&self.block.expert(k)[start..], self.weights[k]);
        match self.larger[k] {
            None => weigh(values, expert, weight),
            Some(larger) if larger.iter().any(|largest| largest.draws()) => {
                self.numbers.with_tile(self.block.offset() + start as u64, |numbers| {
                    weigh_middle(values, expert, weight, larger, numbers);
                });
            }
            Some(larger) => weigh_middle(values, expert, weight, larger, &[0; TILE]),
        }
    }
}

vectorize! {
    fn weigh_middle(values: &mut [f32], expert: &[f32], weight: f32, larger: [Largest; 2], numbers: &[u32; TILE]) {
        let [larger, largest] = larger;
        for ((value, expert), &number) in values.iter_mut().zip(expert).zip(numbers) {
            let magnitude = expert.abs();
            let keep = larger.has(magnitude, number) & !largest.has(magnitude, number);
            *value = if keep { weight * expert } else { 0.0 };
        }
    }
}
