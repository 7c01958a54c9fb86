//! Averages that weigh each expert by what its owner measured on data: `fisher`, `regmean`.
//!
//! Both are linear in the experts and give an expert back that all agree on, so that they say the same of weights as of
//! task vectors: Σ F_k Θ_k / Σ F_k = Θ₀ + Σ F_k τ_k / Σ F_k, and likewise with matrices. They work on task vectors, whose
//! rounding is finer and which masks can select from.

mod fisher;
mod regmean;

pub use fisher::Fisher;
pub use regmean::RegMean;

skillweld_plugin_sdk::export_methods!(merge: [Fisher, RegMean]);
