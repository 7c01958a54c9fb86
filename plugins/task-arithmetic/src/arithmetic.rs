//! `task_arithmetic`.

use skillweld_plugin_sdk::{Block, CudaCode, MergeMethod, Param, Result, Spec, laws};

use crate::join::{Join, Thin, add_weighed, merge, weigh};

/// τ = λ Σ w_k τ_k, divided by Σ w_k when `normalize`.
///
/// Takes `density` and `rescale` without effect, because mergekit does and recipes in the wild have them.
pub struct TaskArithmetic;

impl MergeMethod for TaskArithmetic {
    fn spec() -> Spec {
        crate::spec("task_arithmetic", "weighted sum of task vectors", false)
            .citation("Ilharco et al., Editing models with task arithmetic, ICLR 2023, arXiv 2212.04089")
            .param(
                Param::number("density")
                    .default(1.0)
                    .per_expert()
                    .without_effect()
                    .describe("every entry is kept; `ties` trims"),
            )
            .param(
                Param::boolean("rescale")
                    .default(false)
                    .without_effect()
                    .describe("nothing is dropped, so nothing is to make up for"),
            )
            .laws(laws::PERMUTATION | laws::LINEAR | laws::HOMOGENEOUS | laws::ZERO)
            .propagates_non_finite()
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let weights = block.expert_numbers("weight").iter().map(|&w| w as f32).collect();
        merge(block, &KeepAll { block, weights }, Join::Sum, out);
        Ok(())
    }

    const CUDA: Option<CudaCode> =
        Some(CudaCode::new(include_bytes!("../device/task_arithmetic.fatbin"), "task_arithmetic_run", 256));
}

struct KeepAll<'a> {
    block: &'a Block<'a>,
    weights: Vec<f32>,
}

impl Thin for KeepAll<'_> {
    fn thin(&self, k: usize, start: usize, values: &mut [f32]) {
        weigh(values, &self.block.expert(k)[start..], self.weights[k]);
    }

    fn add(&self, k: usize, start: usize, sums: &mut [f32], _: &mut [f32]) {
        add_weighed(sums, &self.block.expert(k)[start..], self.weights[k]);
    }
}
