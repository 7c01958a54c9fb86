//! Decompositions by LAPACK, through ndarray-linalg and the system's OpenBLAS.

use ndarray::{Array2, ArrayView2, NdFloat};
use ndarray_linalg::{
    Eigh as _, FactorizeCInto as _, JobSvd, Lapack, QR as _, SVDDC as _, SolveC as _, UPLO,
};

use crate::positive_definite::check_pivots;
use crate::{Eigh, LinalgError, Qr, Svd};

/// Name of this backend, for reports.
pub const NAME: &str = "lapack";

/// What this backend computes with.
pub trait Element: NdFloat + Lapack<Real = Self> {
    #[doc(hidden)]
    fn compute_svd(a: &ArrayView2<'_, Self>) -> Result<Svd<Self>, LinalgError> {
        // Divide and conquer (gesdd): several times faster than gesvd on full-size matrices.
        match a.to_owned().svddc(JobSvd::Some) {
            Ok((Some(u), s, Some(vt))) => Ok(Svd { u, s, vt }),
            _ => Err(no_convergence("SVD", a)),
        }
    }

    #[doc(hidden)]
    fn compute_qr(a: &ArrayView2<'_, Self>) -> Result<Qr<Self>, LinalgError> {
        let (q, r) = a.to_owned().qr().map_err(|_| no_convergence("QR", a))?;
        Ok(Qr { q, r })
    }

    #[doc(hidden)]
    fn compute_eigh(a: &ArrayView2<'_, Self>) -> Result<Eigh<Self>, LinalgError> {
        let (values, vectors) =
            a.to_owned().eigh(UPLO::Lower).map_err(|_| no_convergence("eigendecomposition", a))?;
        Ok(Eigh { values, vectors })
    }

    #[doc(hidden)]
    fn solve_positive_definite(
        a: &ArrayView2<'_, Self>,
        b: &ArrayView2<'_, Self>,
    ) -> Result<Array2<Self>, LinalgError> {
        let not_positive = |_| LinalgError::NotPositiveDefinite { rows: a.nrows() };
        let cholesky = a.to_owned().factorizec_into(UPLO::Lower).map_err(not_positive)?;
        check_pivots(a, |i| cholesky.factor[[i, i]])?;
        let mut x = b.to_owned();
        for mut column in x.columns_mut() {
            let solved = cholesky.solvec(&column).map_err(not_positive)?;
            column.assign(&solved);
        }
        Ok(x)
    }
}
impl Element for f32 {}
impl Element for f64 {}

fn no_convergence<T>(operation: &'static str, a: &ArrayView2<'_, T>) -> LinalgError {
    LinalgError::NoConvergence { operation, rows: a.nrows(), cols: a.ncols() }
}
