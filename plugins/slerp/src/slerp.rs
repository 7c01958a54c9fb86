//! Spherical linear interpolation of two models, tensor by tensor.

use skillweld_plugin_sdk::gram::{Gram, weighted_sum};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws};

use crate::{arc, lerp};

/// Above this |cos θ| the two are taken for parallel: sin θ is too small to divide by.
const PARALLEL: f64 = 0.9995;
/// Shorter vectors have no direction.
const SHORTEST: f64 = 1e-8;

/// Θ = (sin((1−t)θ) a + sin(tθ) b) / sin θ with cos θ = ⟨a, b⟩ / (‖a‖ ‖b‖) over the whole tensor, and (1−t) a + t b where
/// |cos θ| > 0.9995. A vector shorter than 1e-8 is not normalised.
///
/// `t` = 0 gives the first expert (the base model in mergekit's recipes), `t` = 1 the second.
pub struct Slerp;

impl MergeMethod for Slerp {
    fn spec() -> Spec {
        Spec::new("slerp", "spherical interpolation from the first model to the second")
            .citation("Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985")
            .param(Param::number("t").describe("0 gives the first model, 1 the second"))
            .experts(2..=2)
            .laws(laws::IDENTITY | laws::ENDPOINTS)
            .propagates_non_finite()
    }

    fn plan(_: &Params<'_>) -> Result<Plan> {
        Ok(Plan::per_tensor([Gram::sums_len(2)]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        Gram::observe(&block.all_experts(), sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let t = block.number("t");
        combine(out, block.expert(0), block.expert(1), t, factors(block.totals(), t));
        Ok(())
    }
}

/// What the two tensors are multiplied by, from the totals of their inner products.
pub(crate) fn factors(totals: &[f64], t: f64) -> (f64, f64) {
    let gram = Gram::new(2, totals);
    let length = |k| if gram.length(k) > SHORTEST { gram.length(k) } else { 1.0 };
    let cosine = gram.dot(0, 1) / (length(0) * length(1));
    arc::factors(cosine, t, cosine.abs() > PARALLEL)
}

/// by_a · a + by_b · b. Where that is a straight line, as between parallel tensors and at the ends, it is
/// [`Lerp`](crate::Lerp) to the bit.
pub(crate) fn combine(out: &mut [f32], a: &[f32], b: &[f32], t: f64, (by_a, by_b): (f64, f64)) {
    if (by_a, by_b) == (1.0 - t, t) {
        lerp::interpolate(out, a, b, t);
    } else {
        weighted_sum(out, &[a, b], &[by_a, by_b]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{dot, norm, scaled, sum, wide};
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// The formula on unit vectors in f64, one element at a time.
    fn reference(a: &[f32], b: &[f32], t: f64) -> Vec<f64> {
        let (a, b) = (wide(a), wide(b));
        let unit = |v: &[f64]| scaled(v, if norm(v) > 1e-8 { 1.0 / norm(v) } else { 1.0 });
        let cosine = dot(&unit(&a), &unit(&b));
        let (wa, wb) = if cosine.abs() > 0.9995 {
            (1.0 - t, t)
        } else {
            let angle = cosine.clamp(-1.0, 1.0).acos();
            (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
        };
        sum(&scaled(&a, wa), &scaled(&b, wb))
    }

    proptest! {
        #[test]
        fn equals_the_reference(
            elements in proptest::collection::vec((-1f32..1.0, -1f32..1.0), 2..200),
            mix in 0f32..1.2,
            t in -0.2f64..1.2,
        ) {
            let a: Vec<f32> = elements.iter().map(|e| e.0).collect();
            let b: Vec<f32> = elements.iter().map(|e| mix * e.0 + (1.0 - mix) * e.1).collect();
            let merged = Trial::of::<Slerp>().experts(&[&a, &b]).set("t", t).block_len(24).merge();
            for (i, (&merged, expected)) in merged.iter().zip(reference(&a, &b, t)).enumerate() {
                // Factors reach 1 / sin(acos(-0.9995)) = 32 times an element below 1; each rounds three times.
                let bound = 3.0 * f64::from(f32::EPSILON) * (32.0 * (a[i].abs() + b[i].abs()) as f64 + expected.abs());
                prop_assert!((f64::from(merged) - expected).abs() <= bound, "{merged} {expected}");
            }
        }
    }

    #[test]
    fn known_values() {
        let slerp = |a: &[f32], b: &[f32], t: f64| Trial::of::<Slerp>().experts(&[a, b]).set("t", t).merge();
        let half = 0.5f64.sqrt() as f32;
        assert_eq!(slerp(&[1.0, 0.0], &[0.0, 1.0], 0.5), [half, half]);
        assert_eq!(slerp(&[1.0, 2.0], &[3.0, 4.0], 0.0), [1.0, 2.0]);
        assert_eq!(slerp(&[1.0, 2.0], &[3.0, -4.0], 1.0), [3.0, -4.0]);
        // Opposite vectors are mixed linearly.
        assert_eq!(slerp(&[1.0, 2.0], &[-1.0, -2.0], 0.25), [0.5, 1.0]);
        // A zero vector stands at a right angle to everything: sin(0.7 · 90°).
        assert_eq!(slerp(&[1.0], &[0.0], 0.3), [(0.7 * core::f64::consts::FRAC_PI_2).sin() as f32]);
        assert!(slerp(&[f32::INFINITY, 1.0], &[1.0, 1.0], 0.5).iter().all(|x| !x.is_finite()));
    }
}
