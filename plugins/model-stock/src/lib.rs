//! Model Stock: how far to go from the base to the mean, by the angle between the experts.

use skillweld_plugin_sdk::gram::{Gram, weighted_sum};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws};

export_methods!(merge: [ModelStock]);

/// Shorter task vectors count as if the product of their lengths were this. mergekit's number, and the only one here that
/// has a unit.
const SHORTEST_SQUARED: f64 = 1e-6;
/// 1 + (N−1) cos θ this close to zero divides by rounding.
const CANCELLED: f64 = 1e-6;

/// τ = t · 1/N Σ τ_k, t = N cos θ / (1 + (N−1) cos θ) (equation 3 of the paper), cos θ the mean of the cosines between all
/// pairs of task vectors.
///
/// θ is the angle of whole tensors, with `filter_wise` that of each vector along the last axis: a matrix's rows. Tensors
/// of one dimension are one vector in any case. The paper assumes that all angles are alike; for two models its formula is
/// equation 2.
///
/// As mergekit has it: the cosine is ⟨τ_i, τ_j⟩ / max(‖τ_i‖ ‖τ_j‖, 10⁻⁶), so that short task vectors count as if they
/// stood at right angles, and zero ones do. Right angles give t = 0, the base; larger ones negative t. Where the denominator
/// of t is zero, because the directions cancel, the base stays.
pub struct ModelStock;

impl MergeMethod for ModelStock {
    fn spec() -> Spec {
        Spec::new("model_stock", "the mean task vector, shorter the wider the angle between the experts")
            .citation("Jang et al., Model Stock: All we need is just a few fine-tuned models, ECCV 2024, arXiv 2403.19522")
            .param(
                Param::boolean("filter_wise")
                    .default(false)
                    .describe("an angle for each vector along the last axis (a matrix's row), not for the tensor"),
            )
            .task_vectors()
            .experts(2..)
            .laws(laws::PERMUTATION)
            .propagates_non_finite()
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(match params.boolean("filter_wise") {
            true => Plan::default().whole(),
            false => Plan::per_tensor([Gram::sums_len(params.experts())]),
        })
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        Gram::observe(&block.all_experts(), sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let experts = block.all_experts();
        if !block.boolean("filter_wise") {
            let factor = factor(&Gram::new(experts.len(), block.totals()));
            weighted_sum(out, &experts, &vec![factor; experts.len()]);
            return Ok(());
        }
        let len = block.shape().last().map_or(1, |&len| len as usize).max(1);
        for (row, out) in out.chunks_mut(len).enumerate() {
            let rows: Vec<&[f32]> = experts.iter().map(|expert| &expert[row * len..][..out.len()]).collect();
            weighted_sum(out, &rows, &vec![factor(&Gram::of(&rows)); rows.len()]);
        }
        Ok(())
    }
}

/// t/N, what each task vector is multiplied by.
fn factor(gram: &Gram<'_>) -> f64 {
    let count = gram.count();
    let mut sum = 0.0;
    for i in 0..count {
        for j in 0..i {
            let lengths = gram.length(i) * gram.length(j);
            sum += gram.dot(i, j) / if lengths < SHORTEST_SQUARED { SHORTEST_SQUARED } else { lengths };
        }
    }
    let cosine = 2.0 * sum / (count * (count - 1)) as f64;
    let denominator = 1.0 + (count - 1) as f64 * cosine;
    if denominator < CANCELLED { 0.0 } else { cosine / denominator }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// Equation 3, and then the interpolation that the paper draws, on one vector in f64.
    fn reference(experts: &[&[f32]]) -> Vec<f64> {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (count, mut cosines) = (experts.len() as f64, Vec::new());
        for (i, a) in experts.iter().enumerate() {
            for b in &experts[i + 1..] {
                cosines.push(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-6));
            }
        }
        let cosine = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let t = count * cosine / (1.0 + (count - 1.0) * cosine);
        let mean = |i| experts.iter().map(|expert| f64::from(expert[i])).sum::<f64>() / count;
        (0..experts[0].len()).map(|i| t * mean(i)).collect()
    }

    proptest! {
        #[test]
        fn equals_the_equation_for_tensors_and_rows(
            rows in 1..4usize,
            elements in proptest::collection::vec([-1f32..1.0, -1f32..1.0, -1f32..1.0, -1f32..1.0], 3..100),
            count in 2..=4usize,
            common in 0f32..2.0,
        ) {
            let expert = |k: usize| {
                let row = elements.iter().map(move |e| e[k] + common * e[0]);
                row.cycle().take(rows * elements.len())
            };
            // Rows differ: each is turned on by one element.
            let experts: Vec<Vec<f32>> = (0..count).map(|k| expert(k).enumerate().map(|(i, x)| x + (i % 7) as f32 * 0.1).collect()).collect();
            let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
            let trial = || Trial::of::<ModelStock>().experts(&slices).shape(&[rows, elements.len()]).block_len(16);
            let row = |r: usize| slices.iter().map(|x| &x[r * elements.len()..][..elements.len()]).collect::<Vec<_>>();
            let by_rows: Vec<f64> = (0..rows).flat_map(|r| reference(&row(r))).collect();
            for (filter_wise, expected) in [(false, reference(&slices)), (true, by_rows)] {
                let merged = trial().set("filter_wise", filter_wise).merge();
                for (i, (merged, expected)) in merged.into_iter().zip(expected).enumerate() {
                    let sum: f64 = slices.iter().map(|expert| f64::from(expert[i])).sum();
                    let size: f64 = slices.iter().map(|expert| f64::from(expert[i].abs())).sum();
                    // The factor, N products and N sums round; where they cancel against the sum of sizes.
                    let factor = if sum == 0.0 { 0.0 } else { (expected / sum).abs() };
                    let bound = 4.0 * f64::from(f32::EPSILON) * size * factor + 1e-12;
                    prop_assert!((f64::from(merged) - expected).abs() <= bound, "{merged} {expected}");
                }
            }
        }
    }

    fn stock(experts: &[&[f32]]) -> Vec<f32> {
        Trial::of::<ModelStock>().experts(experts).merge()
    }

    /// As mergekit 0.1.5.
    #[test]
    fn known_values() {
        // Equal task vectors stay, right angles give the base.
        assert_eq!(stock(&[&[1.0, 2.0], &[1.0, 2.0]]), [1.0, 2.0]);
        assert_eq!(stock(&[&[1.0, 0.0], &[0.0, 1.0]]), [0.0, 0.0]);
        // cos θ = 0.6: t = 1.2 / 1.6.
        assert_eq!(stock(&[&[5.0, 0.0], &[3.0, 4.0]]), [3.0, 1.5]);
        // A zero task vector stands at right angles: cos θ = 1/3, t = 1 / (5/3).
        let [zero_among] = stock(&[&[0.0], &[1.0], &[2.0]])[..] else { panic!("one element") };
        assert!((zero_among - 0.6).abs() < 1e-6, "{zero_among}");
        // Angles beyond 90° extrapolate: cos θ = −1/√1.25.
        let wide = stock(&[&[1.0, 0.0], &[-1.0, 0.5]]);
        assert!(wide[0].abs() < 1e-5 && (wide[1] + 4.236_068).abs() < 1e-5, "{wide:?}");
        // Directions that cancel.
        assert_eq!(stock(&[&[1.0, 0.0], &[-2.0, 0.0]]), [0.0, 0.0]);
        // Short ones: the product of their lengths counts as 1e-6.
        let short = stock(&[&[1e-5, 0.0], &[6e-6, 8e-6]]);
        assert!((f64::from(short[0]) / 1e-5 - 9.599_4e-5).abs() < 1e-9, "{short:?}");
    }

    #[test]
    fn a_vector_that_is_not_finite_stays_so() {
        assert!(stock(&[&[f32::NAN, 1.0], &[1.0, 1.0]]).iter().all(|x| x.is_nan()));
        assert!(stock(&[&[f32::INFINITY, 1.0], &[0.0, 1.0]]).iter().all(|x| x.is_nan()));
    }
}
