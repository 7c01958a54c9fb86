//! Merges in the subspaces of task vectors: `knots`, `tsv`, `iso_c`, `iso_cts`.
//!
//! All of them decompose whole matrices. Experts that come as factors τ_k = B_k A_k are never multiplied out: what counts
//! happens in R = Σ r_k dimensions (`stack`), which is where LoRA experts are one to two orders of magnitude faster than
//! matrices are. Everything else takes the dense path; both say which they were. Tensors of other than two dimensions are
//! averaged.
//!
//! Where a task vector has fewer directions than the published code takes singular vectors of it, as every LoRA expert
//! has, the rest are arbitrary: vectors that only rounding has made, and that change the result by as much as half. So
//! `null_space: drop`, the default, ends at the numerical rank, σ > σ₁ · max(m, n) · 2⁻²³, as NumPy's and PyTorch's
//! `matrix_rank` do; `keep` computes what the published code computes, on the dense path.

mod iso;
mod join;
mod knots;
mod rank;
mod stack;
mod tsv;

pub use iso::{IsoC, IsoCts};
pub use knots::Knots;
pub use tsv::Tsv;

use rank::Rank;
use skillweld_plugin_sdk::{Param, Params, Spec};

skillweld_plugin_sdk::export_methods!(merge: [Knots, Tsv, IsoC, IsoCts]);

/// A method on whole task vectors, dense or as factors, with the parameter that all of them share.
fn spec(id: &'static str, summary: &'static str) -> Spec {
    Spec::new(id, summary)
        .task_vectors()
        .matrix()
        .low_rank()
        .param(Param::number("lambda").default(1.0).describe("factor of the merged task vector"))
}

/// The parameter of methods whose published code takes more singular vectors than there are.
fn null_space() -> Param {
    Param::choice("null_space", &["drop", "keep"]).default("drop").describe(
        "directions beyond the numerical rank: dropped, or kept with whatever rounding made of them, as published (dense)",
    )
}

/// What counts of a spectrum of an m × n matrix.
fn rank(params: &Params<'_>, shape: (usize, usize)) -> Rank {
    if params.choice("null_space") == "keep" { Rank::Full } else { Rank::numerical(shape) }
}

/// out *= factor.
fn scale(out: &mut [f32], factor: f64) {
    if factor != 1.0 {
        let factor = factor as f32;
        out.iter_mut().for_each(|out| *out *= factor);
    }
}
