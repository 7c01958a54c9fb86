//! What the author of a merge or mask method sees. A whole plugin:
//!
//! ```
//! use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, export_methods, laws, vectorize};
//!
//! /// Θ = Σ w_k Θ_k.
//! pub struct WeightedSum;
//!
//! impl MergeMethod for WeightedSum {
//!     fn spec() -> Spec {
//!         Spec::new("weighted_sum", "Σ w_k Θ_k")
//!             .param(Param::number("weight").default(1.0).per_expert().describe("w_k"))
//!             .laws(laws::PERMUTATION | laws::LINEAR | laws::HOMOGENEOUS)
//!             .propagates_non_finite()
//!     }
//!
//!     fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
//!         out.fill(0.0);
//!         for (k, &weight) in block.expert_numbers("weight").iter().enumerate() {
//!             add_scaled(out, block.expert(k), weight as f32);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! vectorize! {
//!     fn add_scaled(out: &mut [f32], values: &[f32], weight: f32) {
//!         for (out, value) in out.iter_mut().zip(values) {
//!             *out += weight * value;
//!         }
//!     }
//! }
//!
//! export_methods!(merge: [WeightedSum]);
//! # fn main() {
//! // In the plugin's tests: a trial host.
//! use skillweld_plugin_sdk::trial::Trial;
//! let merged = Trial::of::<WeightedSum>().experts(&[&[1.0, 2.0], &[10.0, 20.0]]).per_expert("weight", &[1.0, 0.5]).merge();
//! assert_eq!(merged, [6.0, 12.0]);
//! # }
//! ```
//!
//! Statistics over more than one block are a map-reduce: [`MergeMethod::plan`] asks for passes,
//! [`MergeMethod::observe`] adds each block's share to `f64` sums, and the totals come back in [`Block::totals`].
//!
//! Methods on whole matrices ([`Spec::matrix`]) find decompositions and products in `linalg`, with the feature of that
//! name. [`gram`] is for those whose result is a weighted sum of the experts with factors that depend on lengths and
//! angles.
//!
//! A method that works in blocks may bring a kernel along, for `skillweld merge --device cuda`: one line,
//! [`MergeMethod::CUDA`], and a `.cu` file that includes `skillweld_cuda.h`.

#![allow(
    unsafe_code,
    reason = "this crate turns the boundary's pointers into slices, so that plugins need no unsafe"
)]

mod block;
pub mod export;
pub mod gram;
#[cfg(feature = "linalg")]
pub mod linalg;
mod masks;
mod method;
mod param;
mod params;
mod random;
mod raw;
mod spec;
pub mod trial;
pub mod trim;

pub use block::{Block, Factors, Level};
pub use masks::{Masks, pack_bits};
pub use method::{CudaCode, MaskMethod, MergeMethod, Plan, Result, Stop};
pub use param::{Param, Value};
pub use params::Params;
pub use random::{Random, TILE};
pub use skillweld_plugin_abi::{self as abi, laws};
pub use skillweld_simd::{self, between::keep_between, vectorize};
pub use spec::Spec;
