//! Interpolation between two models: [`Lerp`] along a straight line, [`Slerp`] along the great circle, tensor by tensor,
//! [`DareSlerp`] towards a thinned second model.
//!
//! Slerp: with cos θ = ⟨a, b⟩ / (‖a‖ ‖b‖) over the whole tensor: Θ = (sin((1−t)θ) a + sin(tθ) b) / sin θ, and
//! (1−t) a + t b where |cos θ| > 0.9995. A vector shorter than 1e-8 is not normalised.

use skillweld_plugin_sdk::{
    Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws, vectorize,
};

mod lerp;
mod thinned;

pub use lerp::Lerp;
pub use thinned::DareSlerp;

export_methods!(merge: [Slerp, Lerp, DareSlerp]);

/// Above this |cos θ| the two are taken for parallel: sin θ is too small to divide by.
const PARALLEL: f64 = 0.9995;
/// Shorter vectors have no direction.
const SHORTEST: f64 = 1e-8;

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
        Ok(Plan::per_tensor([3]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        let found = dot_and_squares(block.expert(0), block.expert(1));
        sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let [dot, first, second] = *block.totals() else { return Err("slerp needs three totals".into()) };
        let t = block.number("t");
        combine(out, block.expert(0), block.expert(1), t, factors(dot, first, second, t));
        Ok(())
    }
}

/// by_a · a + by_b · b. Where that is a straight line, as between parallel tensors and at the ends, it is [`Lerp`] to the
/// bit.
fn combine(out: &mut [f32], a: &[f32], b: &[f32], t: f64, (by_a, by_b): (f64, f64)) {
    if (by_a, by_b) == (1.0 - t, t) {
        lerp::interpolate(out, a, b, t);
    } else {
        add_scaled(out, a, by_a as f32, b, by_b as f32);
    }
}

/// What the two tensors are multiplied by, from ⟨a, b⟩, ‖a‖² and ‖b‖².
fn factors(dot: f64, first: f64, second: f64, t: f64) -> (f64, f64) {
    let length = |square: f64| if square.sqrt() > SHORTEST { square.sqrt() } else { 1.0 };
    let cosine = dot / (length(first) * length(second));
    if cosine.is_nan() {
        return (f64::NAN, f64::NAN);
    }
    if cosine.abs() > PARALLEL {
        return (1.0 - t, t);
    }
    let angle = cosine.acos();
    (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
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

    fn add_scaled(out: &mut [f32], a: &[f32], by_a: f32, b: &[f32], by_b: f32) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = by_a * a + by_b * b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// The formula on unit vectors in f64, one element at a time.
    fn reference(a: &[f32], b: &[f32], t: f64) -> Vec<f64> {
        let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let unit = |v: &[f32]| -> Vec<f64> {
            let length = if norm(v) > 1e-8 { norm(v) } else { 1.0 };
            v.iter().map(|&x| f64::from(x) / length).collect()
        };
        let cosine: f64 = unit(a).iter().zip(unit(b)).map(|(a, b)| a * b).sum();
        let (wa, wb) = if cosine.abs() > 0.9995 {
            (1.0 - t, t)
        } else {
            let angle = cosine.clamp(-1.0, 1.0).acos();
            (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
        };
        a.iter().zip(b).map(|(&a, &b)| wa * f64::from(a) + wb * f64::from(b)).collect()
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
