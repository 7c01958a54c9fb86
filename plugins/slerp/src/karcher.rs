//! `karcher`: the mean of directions that lies in the middle by the angles between them.

use skillweld_plugin_sdk::gram::{Gram, weighted_sum};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws};

/// sin θ of a direction that is opposite: where it lies is rounding.
const OPPOSITE: f64 = 1e-6;

/// The Karcher mean y of the directions u_k = Θ_k/‖Θ_k‖ on the sphere, which makes Σ θ_k² least, θ_k = ∠(u_k, y), by steps
///
/// ```text
/// v = 1/N Σ_k θ_k/sin θ_k (u_k − cos θ_k y)        y ← cos‖v‖ y + sin‖v‖ v/‖v‖
/// ```
///
/// from y = Σ u_k/‖Σ u_k‖ until ‖v‖ < `tol` or `max_iter` steps are done; Θ = y · 1/N Σ ‖Θ_k‖. All models weigh alike; a
/// base model is one more of them. y stays in the span of the models, so the steps are taken on N coefficients, and the
/// number of steps costs nothing.
///
/// As mergekit has it: a model shorter than `tol` has no direction and only counts with its length. A model within `tol`
/// of y does not pull at it, nor does one opposite to it. Where the mean of the directions is shorter than `tol`, y starts
/// at the first model. A single model comes out as it is. Where no model is as long as `tol`, mergekit gives zeros, and
/// Skillweld the plain mean.
pub struct Karcher;

impl MergeMethod for Karcher {
    fn spec() -> Spec {
        Spec::new("karcher", "the Karcher mean of the models' directions, with their mean length")
            .citation("Karcher, Riemannian center of mass and mollifier smoothing, CPAM 30, 1977")
            .param(Param::integer("max_iter").default(10).at_least(0.0).describe("most steps"))
            .param(
                Param::number("tol")
                    .default(1e-5)
                    .at_least(0.0)
                    .describe("a shorter step, in radians, is the last; a shorter model has no direction"),
            )
            .laws(laws::IDENTITY)
            .propagates_non_finite()
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(Plan::per_tensor([Gram::sums_len(params.experts())]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        Gram::observe(&block.all_experts(), sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let gram = Gram::new(block.experts(), block.totals());
        let factors = factors(&gram, block.integer("max_iter"), block.number("tol"));
        weighted_sum(out, &block.all_experts(), &factors);
        Ok(())
    }
}

/// What each model is multiplied by.
fn factors(gram: &Gram<'_>, max_iter: i64, tol: f64) -> Vec<f64> {
    let count = gram.count();
    if count == 1 {
        return vec![1.0];
    }
    if !gram.is_finite() {
        return vec![f64::NAN; count];
    }
    let lengths: Vec<f64> = (0..count).map(|k| gram.length(k)).collect();
    let directions: Vec<usize> = (0..count).filter(|&k| lengths[k] > 0.0 && lengths[k] >= tol).collect();
    if directions.is_empty() {
        return vec![1.0 / count as f64; count];
    }
    let cosines = Cosines::new(gram, &directions);
    let mut mean = cosines.start(tol);
    for _ in 0..max_iter {
        let step = cosines.step(&mean, tol);
        let length = cosines.length(&step);
        if length < tol || length == 0.0 {
            break;
        }
        let (cos, sin) = (length.cos(), length.sin() / length);
        mean.iter_mut().zip(&step).for_each(|(mean, step)| *mean = cos * *mean + sin * step);
    }
    let length = lengths.iter().sum::<f64>() / count as f64;
    let mut factors = vec![0.0; count];
    for (&k, mean) in directions.iter().zip(&mean) {
        factors[k] = mean * length / lengths[k];
    }
    factors
}

/// cos ∠(u_i, u_j) of unit vectors. A vector of their span is its coefficients.
struct Cosines(Vec<Vec<f64>>);

impl Cosines {
    fn new(gram: &Gram<'_>, directions: &[usize]) -> Self {
        let cosine = |&i: &usize, &j: &usize| if i == j { 1.0 } else { gram.cosine(i, j) };
        let row = |i| directions.iter().map(|j| cosine(i, j)).collect();
        Self(directions.iter().map(row).collect())
    }

    fn dots<'v>(&'v self, vector: &'v [f64]) -> impl Iterator<Item = f64> + 'v {
        self.0.iter().map(move |row| row.iter().zip(vector).map(|(cosine, x)| cosine * x).sum::<f64>())
    }

    fn length(&self, vector: &[f64]) -> f64 {
        self.dots(vector).zip(vector).map(|(dot, x)| dot * x).sum::<f64>().max(0.0).sqrt()
    }

    fn start(&self, tol: f64) -> Vec<f64> {
        let count = self.0.len();
        let mut start = vec![1.0 / count as f64; count];
        let length = self.length(&start);
        if length < tol || length == 0.0 {
            start.fill(0.0);
            start[0] = 1.0;
        } else {
            start.iter_mut().for_each(|x| *x /= length);
        }
        start
    }

    /// v, a tangent at `mean`.
    fn step(&self, mean: &[f64], tol: f64) -> Vec<f64> {
        let mut step = vec![0.0; mean.len()];
        let mut along_mean = 0.0;
        for (pull, cosine) in step.iter_mut().zip(self.dots(mean)) {
            let cosine = cosine.clamp(-1.0, 1.0);
            let (angle, sine) = (cosine.acos(), (1.0 - cosine * cosine).sqrt());
            if angle >= tol && sine > OPPOSITE {
                *pull = angle / sine / mean.len() as f64;
                along_mean -= *pull * cosine;
            }
        }
        step.iter_mut().zip(mean).for_each(|(step, mean)| *step += along_mean * mean);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{dot, norm, scaled, sum, wide};
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// The steps on vectors of full length.
    fn reference(experts: &[Vec<f32>], max_iter: i32, tol: f64) -> Vec<f64> {
        let units: Vec<Vec<f64>> =
            experts.iter().map(|x| wide(x)).map(|x| scaled(&x, 1.0 / norm(&x))).collect();
        let (zero, count) = (vec![0.0; experts[0].len()], experts.len() as f64);
        let total = units.iter().fold(zero.clone(), |total, unit| sum(&total, unit));
        let mut mean = scaled(&total, 1.0 / norm(&total));
        for _ in 0..max_iter {
            let step = units.iter().fold(zero.clone(), |step, unit| {
                let cosine = dot(unit, &mean).clamp(-1.0, 1.0);
                let angle = cosine.acos();
                if angle < tol {
                    return step;
                }
                let off = sum(unit, &scaled(&mean, -cosine));
                sum(&step, &scaled(&off, angle / angle.sin() / count))
            });
            let length = norm(&step);
            if length < tol {
                break;
            }
            mean = sum(&scaled(&mean, length.cos()), &scaled(&step, length.sin() / length));
        }
        scaled(&mean, experts.iter().map(|x| norm(&wide(x))).sum::<f64>() / count)
    }

    proptest! {
        #[test]
        fn equals_the_steps_on_whole_vectors(
            elements in proptest::collection::vec([-1f32..1.0, -1f32..1.0, -1f32..1.0, -1f32..1.0], 4..300),
            scales in [0.1f32..9.0, 0.1f32..9.0, 0.1f32..9.0, 0.1f32..9.0],
            count in 2..=4usize,
            // How much of the first model is in all of them.
            common in prop_oneof![Just(0.0f32), Just(30.0)],
            max_iter in 0..12i32,
            tol in prop_oneof![Just(1e-5), Just(1e-3), Just(0.05)],
        ) {
            let expert = |k: usize| elements.iter().map(|e| scales[k] * (e[k] + common * e[0])).collect::<Vec<f32>>();
            let experts: Vec<Vec<f32>> = (0..count).map(expert).collect();
            let units = experts.iter().map(|x| wide(x)).map(|x| scaled(&x, 1.0 / norm(&x)));
            let total = units.reduce(|a, b| sum(&a, &b)).map_or(0.0, |total| norm(&total));
            // Near-opposite models make every step hang on rounding.
            prop_assume!(total > 0.3);
            let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
            let merged = Trial::of::<Karcher>().experts(&slices)
                .set("max_iter", max_iter).set("tol", tol).block_len(40).merge();
            let expected = reference(&experts, max_iter, tol);
            let size = norm(&expected);
            for (merged, expected) in merged.into_iter().zip(expected) {
                // Four factors, products and sums round; terms are up to 4 / 0.3 times as long as their mean.
                prop_assert!((f64::from(merged) - expected).abs() <= 1e-5 * size, "{merged} {expected}");
            }
        }
    }

    fn karcher(experts: &[&[f32]]) -> Vec<f32> {
        Trial::of::<Karcher>().experts(experts).merge()
    }

    #[track_caller]
    fn assert_close(actual: &[f32], expected: &[f32]) {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(actual.len() == expected.len() && actual.iter().zip(expected).all(close), "{actual:?}");
    }

    /// As mergekit 0.1.5.
    #[test]
    fn known_values() {
        // Zero vectors count with their length only.
        assert_close(&karcher(&[&[0.0; 3], &[1.0, 2.0, 3.0]]), &[0.5, 1.0, 1.5]);
        let third = 0.5f32.sqrt() * 2.0 / 3.0;
        assert_close(&karcher(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0; 3]]), &[third, third, 0.0]);
        assert_eq!(karcher(&[&[0.0; 3], &[0.0; 3]]), [0.0; 3]);
        // Opposite ones: the first model's direction, the mean length.
        assert_close(&karcher(&[&[1.0; 3], &[-3.0; 3]]), &[2.0; 3]);
        let cross: [&[f32]; 4] = [&[1.0, 0.0, 0.0], &[-1.0, 0.0, 0.0], &[0.0, 0.0, 2.0], &[0.0, 0.0, -2.0]];
        assert_close(&karcher(&cross), &[1.5, 0.0, 0.0]);
        assert_close(&karcher(&[&[1.0, 0.0], &[-1.0, 0.0], &[0.0, 1.0]]), &[0.0, 1.0]);
        // One model alone.
        assert_eq!(karcher(&[&[1e-7, -2.0]]), [1e-7, -2.0]);
        assert!(karcher(&[&[f32::INFINITY, 1.0], &[1.0, 1.0]]).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn models_without_a_direction_are_averaged() {
        assert_eq!(karcher(&[&[1e-6, 0.0], &[0.0, 2e-6]]), [5e-7, 1e-6]);
    }

    /// cos 0.3 and sin 0.3 to 0, at an angle from the start below `tol`: it does not pull.
    #[test]
    fn a_model_within_tol_does_not_pull() {
        let at = |angle: f32| [angle.cos(), angle.sin(), 0.0];
        let models = [at(0.0), at(0.3), at(2.6), at(2.6)];
        let slices = models.each_ref().map(<[f32; 3]>::as_slice);
        let merged = Trial::of::<Karcher>().experts(&slices).set("max_iter", 1).set("tol", 0.4).merge();
        assert_close(&merged, &[0.267_499, 0.963_558, 0.0]);
    }
}
