//! `pcb`: score, drop, rescale.

use skillweld_plugin_sdk::trim::Scope;
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws, vectorize};

use crate::rank::{PASSES, Search, sums_len};
use crate::smooth::{exp, tanh};

/// PCB-Merging as its published code has it, over all N experts' entries i of the whole task vectors:
///
/// ```text
/// a_k  = |τ_k|, clamped to between its 10⁻⁴ smallest and largest         t_k = sign(τ_k) a_k
/// intra = exp(N u²),  u = (a_k − min a_k) / (max a_k − min a_k)          inter = tanh(τ_k Σ_j τ_j)
/// β_k  = intra · inter;   s_k = (max(β_k, q_k) − q_k) / (max β_k − q_k), q_k above which lies the share `ratio` of β_k
/// τ    = `lambda` Σ_k s_k t_k / max(Σ_k s_k, 10⁻¹²)
/// ```
///
/// The paper writes softmax for intra and inter; the code's exp and tanh differ from it by a factor that s_k does not
/// have, and by what tanh does. As there, ranks are ⌊d·10⁻⁴⌋, ⌊d(1 − 10⁻⁴) − 1⌋ and ⌊d(1 − `ratio`)⌋ of d, from 0: of few
/// entries the largest is clamped. exp(N(u² − 1)) is computed for exp(N u²), which cannot overflow and changes no s_k.
/// Where all entries are equally large u is 0, and where all above q_k score alike s_k is 1: the code divides by zero.
/// What is copied because no expert changed it does not count among the d entries.
///
/// `scope: tensor` takes ranks over each tensor by itself. Scores are f64, rounded to f32 to be ranked.
pub struct Pcb;

impl MergeMethod for Pcb {
    fn spec() -> Spec {
        Spec::new("pcb", "balance competing entries: score within and between experts, drop, rescale")
            .citation("Du et al., Parameter competition balancing for model merging, NeurIPS 2024, arXiv 2410.02396")
            .param(
                Param::number("ratio")
                    .default(0.1)
                    .range(0.0..=1.0)
                    .describe("share of each expert's entries that take part, those of the highest score"),
            )
            .param(Param::number("lambda").default(1.0).describe("factor of the merged task vector"))
            .param(
                Param::choice("scope", &["tensor", "global"])
                    .default("global")
                    .describe("over what the ranks are taken"),
            )
            .task_vectors()
            .laws(laws::PERMUTATION)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(Scope::of(params).plan([sums_len(params.experts()); 2].concat()))
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        let mut values = vec![0.0; TILE];
        let experts = block.all_experts();
        let bounds: Vec<[f32; 2]> = match pass < PASSES {
            true => Vec::new(),
            false => (0..block.experts()).map(|k| magnitudes(k).found(block)).collect(),
        };
        for start in (0..block.len()).step_by(TILE) {
            let values = &mut values[..TILE.min(block.len() - start)];
            let together = sum(&experts, start, values.len());
            for (k, expert) in experts.iter().enumerate() {
                let expert = &expert[start..];
                if pass < PASSES {
                    magnitude(values, expert);
                    magnitudes(k).count(block, pass, values, sums);
                } else {
                    score(values, expert, &together, bounds[k], experts.len());
                    scores(block, k).count(block, pass - PASSES, values, sums);
                }
            }
        }
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let experts = block.all_experts();
        let bounds: Vec<[f32; 2]> = (0..block.experts()).map(|k| magnitudes(k).found(block)).collect();
        let edges: Vec<[f32; 2]> = (0..block.experts()).map(|k| scores(block, k).found(block)).collect();
        let mut values = [0.0; TILE];
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let (start, len) = (tile * TILE, out.len());
            let together = sum(&experts, start, len);
            let (mut sums, mut weights) = ([0.0; TILE], [0.0; TILE]);
            for (k, expert) in experts.iter().enumerate() {
                let (expert, values) = (&expert[start..], &mut values[..len]);
                score(values, expert, &together, bounds[k], experts.len());
                add_weighed(&mut sums, &mut weights, expert, values, bounds[k], edges[k]);
            }
            divide(out, &sums, &weights, block.number("lambda"));
        }
        Ok(())
    }
}

/// Elements worked on at a time.
const TILE: usize = 512;
/// Share of the entries whose magnitudes are clamped, at either end.
const CLAMPED: f64 = 1e-4;
/// Least sum of scores to divide by.
const LEAST: f64 = 1e-12;

/// Looks for the smallest and largest magnitude of expert `k` that are not clamped.
fn magnitudes(k: usize) -> Search {
    let ranks = |count: f64, clamped: f64| {
        [(count * clamped).floor(), (count * (1.0 - clamped) - 1.0).max(0.0).floor()]
    };
    Search { start: 0, k, ranks, share: CLAMPED }
}

/// Looks for the score of expert `k` above which entries take part, and the highest.
fn scores(block: &Block<'_>, k: usize) -> Search {
    let ranks = |count: f64, ratio: f64| {
        let last = (count - 1.0).max(0.0);
        [(count * (1.0 - ratio)).floor().min(last), last]
    };
    Search { start: sums_len(block.experts()).iter().sum(), k, ranks, share: block.number("ratio") }
}

/// Σ τ_j of a tile, in f32 in the order of the experts.
fn sum(experts: &[&[f32]], start: usize, len: usize) -> [f32; TILE] {
    let mut sums = [0.0; TILE];
    experts.iter().for_each(|expert| add(&mut sums[..len], &expert[start..][..len]));
    sums
}

vectorize! {
    fn add(sums: &mut [f32], values: &[f32]) {
        for (sum, x) in sums.iter_mut().zip(values) {
            *sum += x;
        }
    }

    fn magnitude(values: &mut [f32], expert: &[f32]) {
        for (value, x) in values.iter_mut().zip(expert) {
            *value = x.abs();
        }
    }

    /// β_k, but for the factor exp N.
    fn score(values: &mut [f32], expert: &[f32], together: &[f32; TILE], bounds: [f32; 2], experts: usize) {
        let [low, high] = bounds;
        let (low, range, experts) = (f64::from(low), f64::from(high) - f64::from(low), experts as f64);
        let scale = if range > 0.0 { 1.0 / range } else { 0.0 };
        for ((value, &x), &sum) in values.iter_mut().zip(expert).zip(together) {
            let place = ((f64::from(x.abs()) - low) * scale).clamp(0.0, 1.0);
            let inter = tanh(f64::from(x) * f64::from(sum));
            *value = (exp(experts * (place * place - 1.0)) * inter) as f32;
        }
    }

    fn add_weighed(
        sums: &mut [f64; TILE],
        weights: &mut [f64; TILE],
        expert: &[f32],
        scores: &[f32],
        bounds: [f32; 2],
        edges: [f32; 2],
    ) {
        let ([low, high], [from, highest]) = (bounds, edges);
        let (from, range) = (f64::from(from), f64::from(highest) - f64::from(from));
        let sums = sums.iter_mut().zip(weights);
        for (((sum, weight), &x), &score) in sums.zip(expert).zip(scores) {
            let above = f64::from(score) - from;
            let own = if range > 0.0 { above.max(0.0) / range } else { f64::from(u8::from(above >= 0.0)) };
            // A zero has no sign to give its clamped magnitude.
            let clamped = if x == 0.0 { 0.0 } else { x.abs().max(low).min(high).copysign(x) };
            *sum += own * f64::from(clamped);
            *weight += own;
        }
    }

    fn divide(out: &mut [f32], sums: &[f64; TILE], weights: &[f64; TILE], lambda: f64) {
        for ((out, sum), weight) in out.iter_mut().zip(sums).zip(weights) {
            *out = (lambda * sum / weight.max(LEAST)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// The definition, by sorting, one vector of all entries an expert.
    fn reference(experts: &[Vec<f32>], ratio: f64, lambda: f64) -> Vec<f64> {
        let (n, d) = (experts.len() as f64, experts[0].len());
        let sorted = |mut values: Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values
        };
        let at = |values: &[f32], rank: f64| f64::from(values[(rank.max(0.0) as usize).min(d - 1)]);
        let (mut sums, mut weights) = (vec![0.0; d], vec![0.0; d]);
        for expert in experts {
            let magnitudes = sorted(expert.iter().map(|x| x.abs()).collect());
            let (low, high) =
                (at(&magnitudes, d as f64 * 1e-4), at(&magnitudes, d as f64 * (1.0 - 1e-4) - 1.0));
            let clamped: Vec<f64> = expert.iter().map(|&x| f64::from(x.abs()).clamp(low, high)).collect();
            let score = |i: usize| {
                let u = if high > low { (clamped[i] - low) / (high - low) } else { 0.0 };
                let together: f32 = experts.iter().map(|expert| expert[i]).sum();
                ((n * (u * u - 1.0)).exp() * (f64::from(expert[i]) * f64::from(together)).tanh()) as f32
            };
            let scores: Vec<f32> = (0..d).map(score).collect();
            let ranked = sorted(scores.clone());
            let (from, highest) = (at(&ranked, d as f64 * (1.0 - ratio)), at(&ranked, d as f64 - 1.0));
            for i in 0..d {
                let above = (f64::from(scores[i]).max(from) - from) / (highest - from);
                let alike = f64::from(u8::from(f64::from(scores[i]) >= from));
                let own = if highest > from { above } else { alike };
                sums[i] +=
                    own * if expert[i] == 0.0 { 0.0 } else { clamped[i].copysign(f64::from(expert[i])) };
                weights[i] += own;
            }
        }
        (0..d).map(|i| lambda * sums[i] / weights[i].max(1e-12)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_definition_by_sorting(
            elements in vec((-2f32..2.0, -2f32..2.0, prop::sample::select(vec![0f32, 0.5, -0.5])), 1..1500),
            cut in 0f64..1.0, ratio in 0.01f64..=1.0, lambda in 0.5f64..2.0, block_len in 8usize..700,
        ) {
            let experts = [0, 1, 2].map(|k| elements.iter().map(|e| [e.0, e.1, e.2][k]).collect::<Vec<f32>>());
            let cut = (cut * elements.len() as f64) as usize;
            let merged = Trial::of::<Pcb>()
                .experts(&experts.each_ref().map(|expert| &expert[..cut]))
                .experts(&experts.each_ref().map(|expert| &expert[cut..]))
                .set("ratio", ratio).set("lambda", lambda)
                .block_len(block_len)
                .merge_all()
                .concat();
            for (i, (merged, expected)) in merged.iter().zip(reference(&experts, ratio, lambda)).enumerate() {
                // Scores are rounded to f32 from sums that differ in f64's last digits, so that one in a million is
                // another f32: relative to the range of scores above the edge that is little.
                prop_assert!((f64::from(*merged) - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{i}: {merged} {expected}");
            }
        }
    }

    #[test]
    fn known_values() {
        // All scores alike: everything takes part, clamped to the one magnitude there is.
        let merged = Trial::of::<Pcb>().experts(&[&[1.0, -1.0], &[1.0, -1.0]]).merge();
        assert_eq!(merged, [1.0, -1.0]);
        assert_eq!(Trial::of::<Pcb>().experts(&[&[0.0; 3], &[0.0; 3]]).merge(), [0.0; 3]);
        // Opposite entries cancel, so neither scores; the smallest that is left makes the scale's zero.
        let merged = Trial::of::<Pcb>().experts(&[&[2.0, 3.0, 1.0, 3.0]]).set("ratio", 0.5).merge();
        assert_eq!(merged, [0.0, 3.0, 0.0, 3.0]);
    }
}
