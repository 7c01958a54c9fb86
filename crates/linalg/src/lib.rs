//! Linear algebra on ndarray matrices, and the one place that decides about threads.
//!
//! - [`thin_svd`], [`qr`], [`eigh`], [`gemm`]: f32 or f64, computed by faer, or by LAPACK (through ndarray-linalg) with
//!   the feature `lapack`. GEMM is faer's in both: it is what LAPACK implementations are measured against here.
//! - [`Threads`]: how many workers a job gets and in which order they take its parts.
//!
//! Every routine here runs on the calling thread. Parallelism is over tensors and blocks, by [`Threads::for_each`], so
//! that results never depend on the number of threads.

#[cfg(not(feature = "lapack"))]
#[path = "backend_faer.rs"]
mod backend;
#[cfg(feature = "lapack")]
#[path = "backend_lapack.rs"]
mod backend;
mod decompose;
mod error;
mod gemm;
mod threads;

pub use backend::NAME as BACKEND;
pub use decompose::{Eigh, Qr, Scalar, Svd, eigh, qr, thin_svd};
pub use error::LinalgError;
pub use gemm::gemm;
pub use threads::Threads;
