//! Averages of weights: `linear` and `passthrough`.

use skillweld_plugin_sdk::{
    Block, CudaCode, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws, vectorize,
};

export_methods!(merge: [Linear, Passthrough]);

/// Elements summed at a time.
const TILE: usize = 1024;

/// Kernels of both methods.
const DEVICE_CODE: &[u8] = include_bytes!("../device/linear.fatbin");

/// Θ = Σ w_k Θ_k, divided by Σ w_k when `normalize`. Sums in f32 in the order of the experts.
pub struct Linear;

impl MergeMethod for Linear {
    fn spec() -> Spec {
        Spec::new("linear", "weighted average of weights")
            .citation("Wortsman et al., Model soups, ICML 2022, arXiv 2203.05482")
            .param(Param::number("weight").default(1.0).per_expert().describe("factor of the expert"))
            .param(Param::boolean("normalize").default(true).describe("divide by the sum of the weights"))
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::LINEAR | laws::HOMOGENEOUS)
            .propagates_non_finite()
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        if divisor(params) == 0.0 {
            return Err("the weights sum to zero: change them or set `normalize: false`".into());
        }
        Ok(Plan::default())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let (weights, divisor) = (block.expert_numbers("weight"), divisor(block));
        // Tile by tile, so that the sums stay in the first cache.
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            out.fill(0.0);
            for (k, &weight) in weights.iter().enumerate() {
                add_scaled(out, &block.expert(k)[tile * TILE..], weight as f32);
            }
            if divisor != 1.0 {
                divide(out, divisor as f32);
            }
        }
        Ok(())
    }

    const CUDA: Option<CudaCode> = Some(CudaCode::new(DEVICE_CODE, "linear_run", 256));
}

/// Σ w_k when `normalize`, else 1.
fn divisor(params: &Params<'_>) -> f64 {
    if params.boolean("normalize") { params.expert_numbers("weight").iter().sum() } else { 1.0 }
}

/// The only expert's weights, times `scale`.
pub struct Passthrough;

impl MergeMethod for Passthrough {
    fn spec() -> Spec {
        Spec::new("passthrough", "one model's weights, scaled if wished")
            .param(Param::number("scale").default(1.0).per_expert().describe("factor of the weights"))
            .experts(1..=1)
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::LINEAR | laws::HOMOGENEOUS)
            .propagates_non_finite()
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        out.copy_from_slice(block.expert(0));
        let scale = block.expert_number("scale", 0);
        if scale != 1.0 {
            multiply(out, scale as f32);
        }
        Ok(())
    }

    const CUDA: Option<CudaCode> = Some(CudaCode::new(DEVICE_CODE, "passthrough_run", 256));
}

vectorize! {
    fn add_scaled(out: &mut [f32], values: &[f32], weight: f32) {
        for (out, value) in out.iter_mut().zip(values) {
            *out += weight * value;
        }
    }

    fn divide(out: &mut [f32], divisor: f32) {
        out.iter_mut().for_each(|out| *out /= divisor);
    }

    fn multiply(out: &mut [f32], scale: f32) {
        out.iter_mut().for_each(|out| *out *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    proptest! {
        #[test]
        fn linear_is_the_weighted_mean(
            elements in proptest::collection::vec((-9f32..9.0, -9f32..9.0, -9f32..9.0), 1..100),
            weights in (0.1f64..2.0, 0.1f64..2.0, 0.1f64..2.0),
            normalize: bool,
        ) {
            let experts = [0, 1, 2].map(|k| elements.iter().map(|e| [e.0, e.1, e.2][k]).collect::<Vec<f32>>());
            let weights = [weights.0, weights.1, weights.2];
            let merged = Trial::of::<Linear>()
                .experts(&experts.each_ref().map(Vec::as_slice))
                .per_expert("weight", &weights)
                .set("normalize", normalize)
                .block_len(16)
                .merge();
            let divisor = if normalize { weights.iter().sum::<f64>() } else { 1.0 };
            for (i, &merged) in merged.iter().enumerate() {
                let terms = [0, 1, 2].map(|k| weights[k] * f64::from(experts[k][i]) / divisor);
                // Rounding of three weights, products, sums and the division, each against the largest partial sum.
                let bound = terms.iter().map(|t| t.abs()).sum::<f64>() * 8.0 * f64::from(f32::EPSILON);
                prop_assert!((f64::from(merged) - terms.iter().sum::<f64>()).abs() <= bound + 1e-38);
            }
        }
    }

    #[test]
    fn weights_that_cancel_are_refused_with_a_remedy() {
        let trial = Trial::of::<Linear>().experts(&[&[1.0], &[2.0]]).per_expert("weight", &[1.0, -1.0]);
        assert!(trial.try_merge_all().unwrap_err().contains("normalize: false"));
        assert_eq!(trial.set("normalize", false).merge(), [-1.0]);
    }

    #[test]
    fn non_finite_values_stay_visible() {
        let merged = Trial::of::<Linear>()
            .experts(&[&[f32::NAN, f32::INFINITY], &[1.0, 1.0]])
            .per_expert("weight", &[0.0, 1.0])
            .merge();
        assert!(merged.iter().all(|x| x.is_nan()), "{merged:?}");
    }

    #[test]
    fn passthrough_copies_and_scales() {
        let trial = || Trial::of::<Passthrough>().experts(&[&[1.5, -2.0]]);
        assert_eq!(trial().merge(), [1.5, -2.0]);
        assert_eq!(trial().set("scale", 2.0).merge(), [3.0, -4.0]);
    }
}
