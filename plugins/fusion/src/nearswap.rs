//! `nearswap`: small differences are taken over whole, large ones up to a step.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, laws, vectorize};

/// Θ = Θ₀ + clamp(t/|τ|, 0, 1) · τ, entry by entry: τ where |τ| ≤ t, else a step of `t` towards the expert. `t` ≤ 0 gives
/// the base.
pub struct Nearswap;

impl MergeMethod for Nearswap {
    fn spec() -> Spec {
        Spec::new("nearswap", "each entry of the base moves to the expert's, by at most t")
            .citation("Alchemonaut, QuartetAnemoi-70B-t0.0001, model card, 2024, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001")
            .param(Param::number("t").describe("the largest step of an entry"))
            .task_vectors()
            .experts(1..=1)
            .laws(laws::ZERO | laws::SIGN_AGREEMENT)
            .propagates_non_finite()
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        step(out, block.expert(0), block.number("t") as f32);
        Ok(())
    }
}

vectorize! {
    /// Zero divided by zero is no smaller than 1, so that τ = 0 stays.
    fn step(out: &mut [f32], task_vector: &[f32], t: f32) {
        for (out, tau) in out.iter_mut().zip(task_vector) {
            let share = t / tau.abs();
            let share = if share < 1.0 { share } else { 1.0 };
            *out = if share > 0.0 { share } else { 0.0 } * tau;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    fn nearswap(task_vector: &[f32], t: f64) -> Vec<f32> {
        Trial::of::<Nearswap>().experts(&[task_vector]).set("t", t).block_len(24).merge()
    }

    proptest! {
        #[test]
        fn is_the_task_vector_cut_off_at_t(
            task_vector in proptest::collection::vec(prop_oneof![Just(0.0), -2f32..2.0, -1e-3f32..1e-3], 1..100),
            t in prop_oneof![Just(0.0), -1f64..0.0, 1e-4f64..3.0],
        ) {
            let limit = t.max(0.0);
            for (merged, &tau) in nearswap(&task_vector, t).into_iter().zip(&task_vector) {
                let expected = f64::from(tau).clamp(-limit, limit);
                // t, the quotient and the product round.
                prop_assert!((f64::from(merged) - expected).abs() <= 2.0 * f64::from(f32::EPSILON) * expected.abs());
            }
        }
    }

    #[test]
    fn known_values() {
        let task_vector = [0.0, 1.0, -1.0, 0.125, -1e-9, -2.0];
        assert_eq!(nearswap(&task_vector, 0.25), [0.0, 0.25, -0.25, 0.125, -1e-9, -0.25]);
        assert_eq!(nearswap(&task_vector, 100.0), task_vector);
        for t in [0.0, -1.0] {
            assert_eq!(nearswap(&task_vector, t), [0.0; 6]);
        }
        assert!(nearswap(&[f32::NAN, f32::INFINITY], 0.25).iter().all(|x| x.is_nan()));
    }
}
