//! Linear algebra on ndarray matrices, and the one place that decides about threads.
//!
//! - [`thin_svd`], [`qr`], [`eigh`], [`solve_positive_definite`], [`gemm`]: f32 or f64, computed by faer, or by LAPACK (through ndarray-linalg) with
//!   the feature `lapack`. GEMM is faer's in both: it is what LAPACK implementations are measured against here.
//! - [`gram`], [`multiply`], [`multiply_f64`], [`multiply_in_f64`]: what decompositions of factors and of their products are made of, on the calling
//!   thread; the f64 ones by faer.
//! - [`truncated_svd`]: the first triplets of a large matrix, by products.
//! - [`Product`]: what a transformer's forward is made of, x · Wᵀ + bias and attention's tiles, in f32 or with weights in
//!   bf16 ([`PackedWeight`]), by the [`Kernel`] that suits the processor.
//! - [`Threads`]: how many workers a job gets and in which order they take its parts.
//!
//! Parallelism is over tensors, blocks and pieces of a product, by [`Threads::for_each`], and results never depend on the
//! number of threads. Everything but [`Product`], and what is made of it, runs on the calling thread.

mod aligned;
#[cfg(not(feature = "lapack"))]
#[path = "backend_faer.rs"]
mod backend;
#[cfg(feature = "lapack")]
#[path = "backend_lapack.rs"]
mod backend;
mod cholesky;
mod decompose;
mod error;
mod gemm;
mod kernels;
mod multiply;
mod packed;
mod pool;
mod positive_definite;
mod product;
mod threads;
mod truncated;

pub use backend::NAME as BACKEND;
pub use cholesky::{Cholesky, cholesky};
pub use decompose::{Eigh, Qr, Scalar, Svd, eigh, qr, thin_svd};
pub use error::LinalgError;
pub use gemm::gemm;
pub use kernels::{InstructionSet, Kernel, Refusal};
pub use multiply::{gram, multiply, multiply_f64, multiply_in_f64, multiply_packed};
pub use packed::{PackedWeight, WeightBlock};
pub use positive_definite::solve_positive_definite;
pub use product::{Product, Right, Then};
pub use threads::Threads;
pub use truncated::truncated_svd;
