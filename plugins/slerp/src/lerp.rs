//! Straight interpolation of two models: Θ = (1−t) a + t b.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, laws, vectorize};

/// `t` = 0 gives the first expert (the base model in recipes) to the bit, `t` = 1 the second, and an element that both
/// have alike stays as it is.
///
/// The same as `linear` with the weights 1 − t and t; that makes no such promise, because w·x + (1−w)·x need not be x in
/// f32, and a sum forgets the sign of a zero.
pub struct Lerp;

impl MergeMethod for Lerp {
    fn spec() -> Spec {
        Spec::new("lerp", "straight interpolation from the first model to the second")
            .citation("Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, arXiv 2109.01903")
            .param(Param::number("t").describe("0 gives the first model, 1 the second"))
            .experts(2..=2)
            .laws(laws::IDENTITY | laws::ENDPOINTS | laws::LINEAR | laws::HOMOGENEOUS)
            .propagates_non_finite()
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        interpolate(out, block.expert(0), block.expert(1), block.number("t"));
        Ok(())
    }
}

/// (1−t) a + t b; equal elements and ends keep the bits of the nearer vector, the sign of a zero too.
pub(crate) fn interpolate(out: &mut [f32], a: &[f32], b: &[f32], t: f64) {
    if t < 0.5 {
        towards(out, a, (1.0 - t) as f32, b, t as f32);
    } else {
        towards(out, b, t as f32, a, (1.0 - t) as f32);
    }
}

vectorize! {
    fn towards(out: &mut [f32], near: &[f32], by_near: f32, far: &[f32], by_far: f32) {
        for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
            let sum = by_near * near + by_far * far;
            *out = if near == far || sum == near { near } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    fn lerp(a: &[f32], b: &[f32], t: f64) -> Vec<f32> {
        Trial::of::<Lerp>().experts(&[a, b]).set("t", t).block_len(16).merge()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn equals_the_formula(
            elements in proptest::collection::vec((-9f32..9.0, -9f32..9.0), 1..100),
            t in -0.5f64..1.5,
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = elements.into_iter().unzip();
            for (i, &merged) in lerp(&a, &b, t).iter().enumerate() {
                let (x, y) = ((1.0 - t) * f64::from(a[i]), t * f64::from(b[i]));
                // Two factors, two products and a sum are rounded.
                let bound = 3.0 * f64::from(f32::EPSILON) * (x.abs() + y.abs());
                prop_assert!((f64::from(merged) - (x + y)).abs() <= bound + 1e-38);
            }
        }

        #[test]
        fn ends_and_what_is_alike_keep_every_bit(
            a in proptest::collection::vec(any::<f32>(), 1..60), t in 0f64..=1.0,
        ) {
            let a: Vec<f32> = a.into_iter().filter(|x| x.is_finite()).chain([0.0, -0.0]).collect();
            let b: Vec<f32> = a.iter().rev().map(|x| -x).collect();
            prop_assert_eq!(bits(&lerp(&a, &b, 0.0)), bits(&a));
            prop_assert_eq!(bits(&lerp(&a, &b, 1.0)), bits(&b));
            prop_assert_eq!(bits(&lerp(&a, &a, t)), bits(&a));
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(lerp(&[1.0, 2.0], &[3.0, -2.0], 0.25), [1.5, 1.0]);
        assert!(lerp(&[f32::NAN, 1.0], &[1.0, f32::INFINITY], 0.0).iter().all(|x| !x.is_finite()));
    }
}
