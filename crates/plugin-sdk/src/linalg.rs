//! Linear algebra for methods on whole matrices. Everything runs on the calling thread: the host works on several tensors
//! side by side.

pub use ndarray;
pub use skillweld_linalg::{
    Eigh, LinalgError, Qr, Scalar, Svd, eigh, gemm, qr, solve_positive_definite, thin_svd,
};
