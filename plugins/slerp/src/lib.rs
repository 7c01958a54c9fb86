//! Between two models and on the sphere: `slerp`, `lerp`, `dare_slerp`, `nuslerp`, `multislerp`, `karcher`.
//!
//! A tensor is taken for one long vector: a direction and a length. Whatever the methods on the sphere compute lies in the
//! span of the models and depends on lengths and angles alone, so one pass over the data finds the inner products, the
//! method works with these few numbers, in f64, and what comes out is a weighted sum. Nothing but that sum is rounded to f32.
//!
//! Parameters bear mergekit's names. Values are those of mergekit 0.1.5 in f32, found by running it on random tensors;
//! where the doc comments name another result, directions cancel or a length is as good as zero.

mod arc;
mod karcher;
mod lerp;
mod multislerp;
mod nuslerp;
mod slerp;
mod thinned;

pub use karcher::Karcher;
pub use lerp::Lerp;
pub use multislerp::Multislerp;
pub use nuslerp::Nuslerp;
pub use slerp::Slerp;
pub use thinned::DareSlerp;

skillweld_plugin_sdk::export_methods!(merge: [Slerp, Lerp, DareSlerp, Nuslerp, Multislerp, Karcher]);

/// The paper of the program whose definitions `nuslerp`, `multislerp` and `karcher` follow.
const MERGEKIT: &str = "Goddard et al., Arcee's MergeKit, EMNLP 2024, arXiv 2403.13257";

#[cfg(test)]
mod reference {
    //! Vectors in f64, for the references of the tests.

    pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    pub(crate) fn norm(x: &[f64]) -> f64 {
        dot(x, x).sqrt()
    }

    pub(crate) fn scaled(x: &[f64], by: f64) -> Vec<f64> {
        x.iter().map(|x| x * by).collect()
    }

    pub(crate) fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }
}
