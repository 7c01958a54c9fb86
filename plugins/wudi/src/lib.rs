//! `wudi`: the merged task vector that interferes least with the experts.
//!
//! Adam minimises Σ_k ‖(τ − τ_k) τ_kᵀ‖² / ‖τ_k‖² from τ = Σ τ_k on. The gradient is 2 Σ_k (τ − τ_k) G_k with
//! G_k = τ_kᵀ τ_k / ‖τ_k‖² fixed, so no row of τ has to do with another: a few rows at a time go through all steps while
//! their values lie in the cache (`descent`). Experts that come as factors give G_k the rank of their factors: a step takes
//! 4 · m · n · R operations, R = Σ r_k, instead of N · m² · n.

mod adam;
mod descent;
mod problem;

use problem::Problem;
use skillweld_plugin_sdk::linalg::{matrix_shape, mean};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, laws};

skillweld_plugin_sdk::export_methods!(merge: [Wudi]);

/// WUDI-Merging. Tensors of other than two dimensions are averaged, as are embeddings and output projections: those whose
/// names hold `embed`, `lm_head`, `wte` or `wpe`. An expert whose task vector is zero has no part in the loss (the published
/// code divides by zero).
pub struct Wudi;

impl MergeMethod for Wudi {
    fn spec() -> Spec {
        Spec::new("wudi", "descend to the task vector that interferes least with the experts")
            .citation(
                "Cheng et al., Whoever Started the Interference Should End It, ICML 2025, arXiv 2503.08099",
            )
            .task_vectors()
            .matrix()
            .low_rank()
            .param(Param::integer("iterations").default(300).range(0.0..=1e4).describe("steps of Adam"))
            .param(
                Param::number("learning_rate")
                    .default(1e-5)
                    .range(0.0..=1.0)
                    .describe("of Adam: most that a step moves an element, about"),
            )
            .param(Param::number("lambda").default(1.0).describe("factor of the merged task vector"))
            .laws(laws::ZERO)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        match matrix_shape(block).filter(|_| !is_vocabulary(block.key())) {
            Some(shape) => Problem::of(block, shape)?.solve(block, out)?,
            None => mean(block, out)?,
        }
        let lambda = block.number("lambda") as f32;
        out.iter_mut().for_each(|out| *out *= lambda);
        Ok(())
    }
}

/// An embedding, or the projection onto a vocabulary.
fn is_vocabulary(key: &str) -> bool {
    ["embed", "lm_head", "wte", "wpe"].iter().any(|name| key.contains(name))
}
