use ndarray::{Array1, Array2, ArrayView2};

use crate::{LinalgError, backend};

/// Element types that decompose: `f32` and `f64`.
pub trait Scalar: backend::Element {}
impl Scalar for f32 {}
impl Scalar for f64 {}

/// Thin singular value decomposition A = U · diag(s) · Vᵀ of an m × n matrix, k = min(m, n).
#[derive(Debug, Clone)]
pub struct Svd<T> {
    /// m × k, orthonormal columns.
    pub u: Array2<T>,
    /// k singular values, largest first.
    pub s: Array1<T>,
    /// k × n, orthonormal rows.
    pub vt: Array2<T>,
}

/// Thin QR decomposition A = Q · R of an m × n matrix, k = min(m, n).
#[derive(Debug, Clone)]
pub struct Qr<T> {
    /// m × k, orthonormal columns.
    pub q: Array2<T>,
    /// k × n, upper triangular (trapezoidal when n > m).
    pub r: Array2<T>,
}

/// Eigendecomposition A = V · diag(λ) · Vᵀ of a symmetric n × n matrix.
#[derive(Debug, Clone)]
pub struct Eigh<T> {
    /// n eigenvalues, smallest first.
    pub values: Array1<T>,
    /// n × n, eigenvector of `values[j]` in column j.
    pub vectors: Array2<T>,
}

/// Thin SVD of an m × n matrix; an empty matrix gives empty factors.
///
/// # Errors
/// [`LinalgError::NoConvergence`], practically only for NaN or infinite input.
pub fn thin_svd<T: Scalar>(a: &ArrayView2<'_, T>) -> Result<Svd<T>, LinalgError> {
    let (m, n) = a.dim();
    if m == 0 || n == 0 {
        return Ok(Svd { u: Array2::zeros((m, 0)), s: Array1::zeros(0), vt: Array2::zeros((0, n)) });
    }
    check_finite("SVD", a)?;
    T::compute_svd(a)
}

/// Thin QR of an m × n matrix, without pivoting; an empty matrix gives empty factors.
///
/// # Errors
/// [`LinalgError::NoConvergence`] for NaN or infinite input.
pub fn qr<T: Scalar>(a: &ArrayView2<'_, T>) -> Result<Qr<T>, LinalgError> {
    let (m, n) = a.dim();
    if m == 0 || n == 0 {
        return Ok(Qr { q: Array2::zeros((m, 0)), r: Array2::zeros((0, n)) });
    }
    check_finite("QR", a)?;
    T::compute_qr(a)
}

/// Eigenvalues and eigenvectors of a symmetric matrix; only its lower triangle is read.
///
/// # Errors
/// [`LinalgError::NotSquare`], or [`LinalgError::NoConvergence`] for NaN or infinite input.
pub fn eigh<T: Scalar>(a: &ArrayView2<'_, T>) -> Result<Eigh<T>, LinalgError> {
    let (rows, cols) = a.dim();
    if rows != cols {
        return Err(LinalgError::NotSquare { operation: "eigendecomposition", rows, cols });
    }
    if rows == 0 {
        return Ok(Eigh { values: Array1::zeros(0), vectors: Array2::zeros((0, 0)) });
    }
    check_finite("eigendecomposition", a)?;
    T::compute_eigh(a)
}

/// Backends differ in what NaN does to them (errors, garbage, endless loops): refuse it before.
pub(crate) fn check_finite<T: Scalar>(
    operation: &'static str,
    a: &ArrayView2<'_, T>,
) -> Result<(), LinalgError> {
    let (rows, cols) = a.dim();
    match a.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(LinalgError::NoConvergence { operation, rows, cols }),
    }
}
