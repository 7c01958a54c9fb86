//! `multislerp`: the weighted mean direction of any number of models.

use skillweld_plugin_sdk::gram::{Gram, weighted_sum};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws};

use crate::MERGEKIT;

/// A mean direction this short is rounding: mergekit's sums are f32.
const CANCELLED: f64 = 1e-7;

/// Θ = m/‖m‖ · Σ w_k ‖Θ_k‖, m = Σ w_k Θ_k / (‖Θ_k‖ + eps): the weighted mean direction, with the weighted mean length.
/// `normalize_weights` divides the weights by their sum. With a base model Θ_k are task vectors.
///
/// mergekit describes more: directions are projected to the tangent space at m, averaged there and mapped back. But at m
/// the weighted projections sum to zero, whatever the vectors, so that the result is m; all that remains of the step is a
/// factor cos(eps), which is kept here.
///
/// A single model comes out as it is, zero vectors have no direction and count with length 0. Where the directions cancel
/// there is no mean: mergekit refuses that for three models and more, and gives zeros or rounding errors for two; here it
/// is refused always, unless all vectors are zero.
pub struct Multislerp;

impl MergeMethod for Multislerp {
    fn spec() -> Spec {
        Spec::new("multislerp", "weighted mean direction on the sphere, with the weighted mean length")
            .citation(MERGEKIT)
            .param(
                Param::number("weight").per_expert().describe("weight of the model's direction and length"),
            )
            .param(
                Param::boolean("normalize_weights").default(true).describe("divide the weights by their sum"),
            )
            .param(Param::number("eps").default(1e-8).at_least(0.0).describe("added to lengths that divide"))
            .optional_base()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::ZERO)
            .propagates_non_finite()
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        if params.boolean("normalize_weights") && params.expert_numbers("weight").iter().sum::<f64>() == 0.0 {
            return Err("the weights sum to zero: change them or set `normalize_weights: false`".into());
        }
        Ok(Plan::per_tensor([Gram::sums_len(params.experts())]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        Gram::observe(&block.all_experts(), sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let mut weights = block.expert_numbers("weight").to_vec();
        if block.boolean("normalize_weights") {
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        let gram = Gram::new(block.experts(), block.totals());
        weighted_sum(out, &block.all_experts(), &factors(&gram, &weights, block.number("eps"))?);
        Ok(())
    }
}

/// What each model is multiplied by.
fn factors(gram: &Gram<'_>, weights: &[f64], eps: f64) -> Result<Vec<f64>> {
    let lengths: Vec<f64> = (0..gram.count()).map(|k| gram.length(k)).collect();
    if let [_] = lengths[..] {
        return Ok(vec![1.0]);
    }
    if !gram.is_finite() {
        return Ok(vec![f64::NAN; lengths.len()]);
    }
    let by_length =
        |(weight, length): (&f64, &f64)| if *length == 0.0 { 0.0 } else { weight / (length + eps) };
    let mut factors: Vec<f64> = weights.iter().zip(&lengths).map(by_length).collect();
    if lengths.iter().all(|&length| length == 0.0) {
        return Ok(factors);
    }
    let mean = gram.length_of_sum(&factors);
    let largest = CANCELLED * weights.iter().map(|weight| weight.abs()).sum::<f64>();
    if mean <= eps.max(largest) {
        return Err(
            "the models' weighted directions cancel, so they have no mean direction: change the weights (a \
                    `filter` under `weight` changes them for this tensor alone)"
                .into(),
        );
    }
    let length: f64 = weights.iter().zip(&lengths).map(|(weight, length)| weight * length).sum();
    factors.iter_mut().for_each(|factor| *factor *= length / mean * eps.cos());
    Ok(factors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{dot, norm, scaled, sum, wide};
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// What mergekit describes, step by step: mean direction, tangent space there, mean, back.
    fn reference(experts: &[Vec<f32>], weights: &[f64], eps: f64) -> Vec<f64> {
        let units: Vec<Vec<f64>> =
            experts.iter().map(|x| wide(x)).map(|x| scaled(&x, 1.0 / (norm(&x) + eps))).collect();
        let zero = vec![0.0; experts[0].len()];
        let mean = units.iter().zip(weights).fold(zero.clone(), |m, (u, &w)| sum(&m, &scaled(u, w)));
        let mean = scaled(&mean, 1.0 / norm(&mean));
        let tangent = units.iter().zip(weights).fold(zero, |m, (unit, &weight)| {
            let off = sum(unit, &scaled(&mean, -dot(unit, &mean)));
            sum(&m, &scaled(&off, weight))
        });
        let angle = norm(&tangent).max(eps);
        let back = sum(&scaled(&mean, angle.cos()), &scaled(&tangent, angle.sin() / angle.max(1e-300)));
        let length: f64 = experts.iter().zip(weights).map(|(x, w)| w * norm(&wide(x))).sum();
        scaled(&back, length)
    }

    proptest! {
        #[test]
        fn equals_the_steps_through_the_tangent_space(
            elements in proptest::collection::vec([-1f32..1.0, -1f32..1.0, -1f32..1.0, -1f32..1.0], 3..300),
            scales in [0.01f32..9.0, 0.01f32..9.0, 0.01f32..9.0, 0.01f32..9.0],
            weights in proptest::collection::vec(0.1f64..2.0, 2..=4),
            normalize: bool,
            eps in prop_oneof![Just(1e-8), Just(0.05)],
        ) {
            let experts: Vec<Vec<f32>> =
                (0..weights.len()).map(|k| elements.iter().map(|e| scales[k] * e[k]).collect()).collect();
            let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
            let trial = Trial::of::<Multislerp>().experts(&slices).per_expert("weight", &weights)
                .set("normalize_weights", normalize).set("eps", eps).block_len(40);
            let total: f64 = if normalize { weights.iter().sum() } else { 1.0 };
            let weights: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
            let reference = reference(&experts, &weights, eps);
            let units = experts.iter().zip(&weights).map(|(x, w)| (wide(x), w));
            let mean = units.map(|(x, w)| scaled(&x, w / (norm(&x) + eps))).reduce(|a, b| sum(&a, &b));
            let mean = mean.map_or(0.0, |mean| norm(&mean));
            prop_assume!(mean > 1e-3);
            let length: f64 = experts.iter().zip(&weights).map(|(x, w)| w * norm(&wide(x))).sum();
            for (i, merged) in trial.merge().into_iter().enumerate() {
                let expected = reference[i];
                // Four factors, products and sums round, each term as long as the mean direction is short.
                let term = |(x, w): (&Vec<f32>, &f64)| w * f64::from(x[i].abs()) / (norm(&wide(x)) + eps);
                let size = experts.iter().zip(&weights).map(term).sum::<f64>() * length / mean;
                let bound = 6.0 * f64::from(f32::EPSILON) * size;
                prop_assert!((f64::from(merged) - expected).abs() <= bound, "{merged} {expected}");
            }
        }
    }

    fn multislerp(experts: &[&[f32]], weights: &[f64]) -> core::result::Result<Vec<f32>, String> {
        let trial = Trial::of::<Multislerp>().experts(experts).per_expert("weight", weights);
        trial.try_merge_all().map(|mut all| all.remove(0))
    }

    /// As mergekit 0.1.5.
    #[test]
    fn known_values() {
        let half = 0.5f32.sqrt();
        let right_angle = multislerp(&[&[1.0, 0.0], &[0.0, 3.0]], &[1.0, 1.0]).unwrap();
        for value in right_angle {
            assert!((value - 2.0 * half).abs() < 1e-6, "{value}");
        }
        // One model alone, whatever its weight; zero vectors.
        assert_eq!(multislerp(&[&[1.0, -2.0]], &[0.5]).unwrap(), [1.0, -2.0]);
        assert_eq!(multislerp(&[&[0.0; 3], &[0.0; 3]], &[1.0, 1.0]).unwrap(), [0.0; 3]);
        let with_zero = multislerp(&[&[0.0; 3], &[1.0, 2.0, 3.0]], &[0.3, 0.7]).unwrap();
        for (value, expected) in with_zero.into_iter().zip([0.7, 1.4, 2.1]) {
            assert!((value - expected).abs() < 1e-6, "{value}");
        }
        assert!(
            multislerp(&[&[f32::NAN, 1.0], &[1.0, 1.0]], &[1.0, 1.0]).unwrap().iter().all(|x| x.is_nan())
        );
    }

    #[test]
    fn what_has_no_mean_is_refused_with_a_remedy() {
        let error = multislerp(&[&[1.0, 2.0], &[-1.0, -2.0]], &[1.0, 1.0]).unwrap_err();
        assert!(error.contains("change the weights"), "{error}");
        let error = multislerp(&[&[1.0], &[2.0]], &[1.0, -1.0]).unwrap_err();
        assert!(error.contains("normalize_weights: false"), "{error}");
    }
}
