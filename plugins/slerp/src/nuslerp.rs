//! `nuslerp`: spherical interpolation by weights, of whole tensors, their rows or their columns.

use skillweld_plugin_sdk::gram::{Gram, weighted_sum};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws, vectorize};

use crate::{MERGEKIT, arc};

/// Where |cos θ| is closer to 1 the two are parallel: it is 1 in f32, in which mergekit computes it.
const PARALLEL: f64 = 1.0 / (1 << 25) as f64;
/// Weights whose sum is smaller say nothing about shares.
const SMALLEST_WEIGHT: f64 = 1e-6;

/// Θ = (sin((1−t)θ) a + sin(tθ) b) / sin θ, t = w_b / (w_a + w_b); where a and b are parallel or opposite (1−t) a + t b.
///
/// With a base model a and b are task vectors, which is mergekit's difference form.
///
/// With `nuslerp_flatten` θ is the angle of whole tensors. Without it each vector along the last axis has an angle of its
/// own, which is a row of a matrix; with `nuslerp_row_wise` as well each vector along the *first* axis, which is a column.
/// (mergekit's documentation names the two the other way round; this is what it does.) Tensors of one dimension are one
/// vector in any case.
///
/// A zero vector stands at a right angle to all others. Weights with |w_a + w_b| < 1e-6 count as equal. mergekit takes a
/// vector shorter than 1e-7 for shorter still; here lengths have no unit.
pub struct Nuslerp;

impl MergeMethod for Nuslerp {
    fn spec() -> Spec {
        Spec::new("nuslerp", "spherical interpolation by weights, of tensors, rows or columns")
            .citation(MERGEKIT)
            .param(Param::number("weight").per_expert().describe("the second's share of both is t"))
            .param(Param::boolean("nuslerp_flatten").default(true).describe(
                "one angle for the tensor; false: one for each vector along the last axis (a matrix's row)",
            ))
            .param(
                Param::boolean("nuslerp_row_wise").default(false).describe(
                    "without nuslerp_flatten: one angle for each vector along the first axis instead",
                ),
            )
            .experts(2..=2)
            .optional_base()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO)
            .propagates_non_finite()
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(match params.boolean("nuslerp_flatten") {
            true => Plan::per_tensor([Gram::sums_len(2)]),
            false => Plan::default().whole(),
        })
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        Gram::observe(&block.all_experts(), sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let t = share(block.expert_numbers("weight"));
        let (a, b) = (block.expert(0), block.expert(1));
        if block.boolean("nuslerp_flatten") {
            let gram = Gram::new(2, block.totals());
            let (by_a, by_b) = factors([gram.dot(0, 1), gram.dot(0, 0), gram.dot(1, 1)], t);
            weighted_sum(out, &[a, b], &[by_a, by_b]);
            return Ok(());
        }
        match *block.shape() {
            _ if block.is_empty() => {}
            [rows, _, ..] if block.boolean("nuslerp_row_wise") => {
                along_first_axis(out, a, b, block.len() / rows as usize, t);
            }
            [.., columns] => along_last_axis(out, a, b, columns as usize, t),
            [] => along_last_axis(out, a, b, 1, t),
        }
        Ok(())
    }
}

/// The second's share of the weights.
fn share(weights: &[f64]) -> f64 {
    let total = weights[0] + weights[1];
    if total.abs() < SMALLEST_WEIGHT { 0.5 } else { weights[1] / total }
}

/// What a and b are multiplied by, from ⟨a, b⟩, ‖a‖² and ‖b‖².
fn factors([dot, a, b]: [f64; 3], t: f64) -> (f64, f64) {
    let lengths = a.sqrt() * b.sqrt();
    let cosine = (dot / if lengths == 0.0 { 1.0 } else { lengths }).clamp(-1.0, 1.0);
    arc::factors(cosine, t, 1.0 - cosine.abs() < PARALLEL)
}

/// Each run of `len` elements is a vector.
fn along_last_axis(out: &mut [f32], a: &[f32], b: &[f32], len: usize, t: f64) {
    for ((out, a), b) in out.chunks_mut(len).zip(a.chunks(len)).zip(b.chunks(len)) {
        let (by_a, by_b) = factors(dot_and_squares(a, b), t);
        combine(out, a, by_a as f32, b, by_b as f32);
    }
}

/// Elements `stride` apart are a vector.
fn along_first_axis(out: &mut [f32], a: &[f32], b: &[f32], stride: usize, t: f64) {
    let mut sums = vec![[0.0; 3]; stride];
    for (a, b) in a.chunks(stride).zip(b.chunks(stride)) {
        add_products(&mut sums, a, b);
    }
    let (by_a, by_b): (Vec<f32>, Vec<f32>) =
        sums.into_iter().map(|sums| factors(sums, t)).map(|(by_a, by_b)| (by_a as f32, by_b as f32)).unzip();
    for ((out, a), b) in out.chunks_mut(stride).zip(a.chunks(stride)).zip(b.chunks(stride)) {
        combine_each(out, a, &by_a, b, &by_b);
    }
}

vectorize! {
    /// ⟨a, b⟩, ‖a‖², ‖b‖² in f64, in 16 running sums each so that the loop vectorises without reordering.
    fn dot_and_squares(a: &[f32], b: &[f32]) -> [f64; 3] {
        let mut sums = [[0.0; 16]; 3];
        for (a, b) in a.chunks(16).zip(b.chunks(16)) {
            for (lane, (a, b)) in a.iter().zip(b).enumerate() {
                let (a, b) = (f64::from(*a), f64::from(*b));
                sums[0][lane] += a * b;
                sums[1][lane] += a * a;
                sums[2][lane] += b * b;
            }
        }
        sums.map(|lanes| lanes.iter().sum())
    }

    /// The same products, element by element.
    fn add_products(sums: &mut [[f64; 3]], a: &[f32], b: &[f32]) {
        for ((sums, a), b) in sums.iter_mut().zip(a).zip(b) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            sums[0] += a * b;
            sums[1] += a * a;
            sums[2] += b * b;
        }
    }

    fn combine(out: &mut [f32], a: &[f32], by_a: f32, b: &[f32], by_b: f32) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = by_a * a + by_b * b;
        }
    }

    fn combine_each(out: &mut [f32], a: &[f32], by_a: &[f32], b: &[f32], by_b: &[f32]) {
        for ((((out, a), by_a), b), by_b) in out.iter_mut().zip(a).zip(by_a).zip(b).zip(by_b) {
            *out = by_a * a + by_b * b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{dot, norm, scaled, sum, wide};
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// One vector, by the formula; and for each element the size of the two terms that add up to it.
    fn reference(a: &[f32], b: &[f32], t: f64) -> Vec<(f64, f64)> {
        let (a, b) = (wide(a), wide(b));
        let lengths = norm(&a) * norm(&b);
        let cosine = if lengths == 0.0 { 0.0 } else { (dot(&a, &b) / lengths).clamp(-1.0, 1.0) };
        let angle = cosine.acos();
        let (by_a, by_b) = match cosine.abs() as f32 == 1.0 {
            true => (1.0 - t, t),
            false => (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()),
        };
        let (a, b) = (scaled(&a, by_a), scaled(&b, by_b));
        sum(&a, &b).into_iter().zip(a.iter().zip(&b)).map(|(sum, (a, b))| (sum, a.abs() + b.abs())).collect()
    }

    /// All vectors along an axis of a tensor of `shape`, picked out element by element.
    fn along(axis: usize, shape: [usize; 3], a: &[f32], b: &[f32], t: f64) -> Vec<(f64, f64)> {
        let place = |at: [usize; 3]| (at[0] * shape[1] + at[1]) * shape[2] + at[2];
        let mut merged = vec![(f64::NAN, 0.0); a.len()];
        let others = match axis {
            0 => [1, 2],
            _ => [0, 1],
        };
        for i in 0..shape[others[0]] {
            for j in 0..shape[others[1]] {
                let places: Vec<usize> = (0..shape[axis])
                    .map(|n| {
                        let mut at = [n; 3];
                        (at[others[0]], at[others[1]]) = (i, j);
                        place(at)
                    })
                    .collect();
                let pick = |x: &[f32]| places.iter().map(|&place| x[place]).collect::<Vec<f32>>();
                for (&place, value) in places.iter().zip(reference(&pick(a), &pick(b), t)) {
                    merged[place] = value;
                }
            }
        }
        merged
    }

    proptest! {
        #[test]
        fn equals_the_reference_along_every_axis(
            shape in [1..4usize, 1..6usize, 1..20usize],
            elements in proptest::collection::vec((-1f32..1.0, -1f32..1.0), 3 * 5 * 19),
            weights in [0.1f64..2.0, 0.1f64..2.0],
        ) {
            let numel = shape.iter().product();
            let (a, b): (Vec<f32>, Vec<f32>) = elements.into_iter().take(numel).unzip();
            let t = weights[1] / (weights[0] + weights[1]);
            let trial = || Trial::of::<Nuslerp>().experts(&[&a, &b]).shape(&shape).per_expert("weight", &weights).block_len(8);
            let whole = reference(&a, &b, t);
            let last = along(2, shape, &a, &b, t);
            let first = along(0, shape, &a, &b, t);
            let by_vectors = || trial().set("nuslerp_flatten", false);
            let cases = [
                (trial(), whole), (by_vectors(), last), (by_vectors().set("nuslerp_row_wise", true), first),
            ];
            for (trial, expected) in cases {
                for (merged, (expected, size)) in trial.merge().into_iter().zip(expected) {
                    // Two factors, two products and a sum round.
                    let bound = 3.0 * f64::from(f32::EPSILON) * size;
                    prop_assert!((f64::from(merged) - expected).abs() <= bound, "{merged} {expected}");
                }
            }
        }
    }

    fn nuslerp(a: &[f32], b: &[f32], weights: [f64; 2]) -> Vec<f32> {
        Trial::of::<Nuslerp>().experts(&[a, b]).per_expert("weight", &weights).merge()
    }

    /// As mergekit 0.1.5.
    #[test]
    fn known_values() {
        let half = 0.5f64.sqrt() as f32;
        assert_eq!(nuslerp(&[1.0, 0.0], &[0.0, 2.0], [1.0, 1.0]), [half, 2.0 * half]);
        assert_eq!(nuslerp(&[1.0, 0.0], &[0.0, 2.0], [0.0, 1.0]), [0.0, 2.0]);
        // Parallel and opposite vectors are mixed linearly.
        assert_eq!(nuslerp(&[1.0; 4], &[2.0; 4], [0.3, 0.5]), [1.625; 4]);
        assert_eq!(nuslerp(&[1.0; 4], &[-1.0; 4], [0.3, 0.5]), [-0.25; 4]);
        // A zero vector stands at a right angle: sin(5/8 · 90°).
        let [share] = nuslerp(&[0.0], &[1.0], [0.3, 0.5])[..] else { panic!("one element") };
        assert!((share - 0.831_469_6).abs() < 1e-7, "{share}");
        assert_eq!(nuslerp(&[0.0; 3], &[0.0; 3], [1.0, 1.0]), [0.0; 3]);
        // Weights that cancel, or are no weights, count as equal.
        for weights in [[1.0, -1.0], [0.0, 0.0], [1e-7, 3e-7]] {
            assert_eq!(nuslerp(&[1.0, 0.0], &[0.0, 2.0], weights), [half, 2.0 * half]);
        }
    }

    #[test]
    fn a_vector_that_is_not_finite_stays_so() {
        let rows = Trial::of::<Nuslerp>()
            .experts(&[&[f32::NAN, 1.0, 1.0, 0.0], &[1.0, 1.0, 0.0, 1.0]])
            .shape(&[2, 2])
            .per_expert("weight", &[1.0, 1.0])
            .set("nuslerp_flatten", false)
            .merge();
        assert!(
            rows[0].is_nan() && rows[1].is_nan() && rows[2].is_finite() && rows[3].is_finite(),
            "{rows:?}"
        );
    }
}
