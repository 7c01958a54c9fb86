//! Decompositions by faer: pure Rust, no system package.

use faer::linalg::solvers::Solve as _;
use faer::{MatRef, Side};
use ndarray::{Array1, Array2, ArrayView2, NdFloat};

use crate::positive_definite::check_pivots;
use crate::{Eigh, LinalgError, Qr, Svd};

/// Name of this backend, for reports.
pub const NAME: &str = "faer";

/// What this backend computes with.
pub trait Element: NdFloat + faer::traits::RealField {
    #[doc(hidden)]
    fn compute_svd(a: &ArrayView2<'_, Self>) -> Result<Svd<Self>, LinalgError> {
        let (svd, transposed) = match view(a).thin_svd() {
            Ok(svd) => (svd, false),
            // Of some million rank-deficient matrices one has made faer's iteration give up; the transposed one is rounded otherwise.
            Err(_) => (view(a).transpose().thin_svd().map_err(|_| no_convergence("SVD", a))?, true),
        };
        let (u, v) = if transposed { (svd.V(), svd.U()) } else { (svd.U(), svd.V()) };
        let s = svd.S().column_vector();
        Ok(Svd { u: own(u), s: Array1::from_shape_fn(s.nrows(), |i| s[i]), vt: own(v.transpose()) })
    }

    #[doc(hidden)]
    fn compute_qr(a: &ArrayView2<'_, Self>) -> Result<Qr<Self>, LinalgError> {
        let qr = view(a).qr();
        Ok(Qr { q: own(qr.compute_thin_Q().as_ref()), r: own(qr.thin_R()) })
    }

    #[doc(hidden)]
    fn compute_eigh(a: &ArrayView2<'_, Self>) -> Result<Eigh<Self>, LinalgError> {
        let eigen =
            view(a).self_adjoint_eigen(Side::Lower).map_err(|_| no_convergence("eigendecomposition", a))?;
        let values = eigen.S().column_vector();
        Ok(Eigh { values: Array1::from_shape_fn(values.nrows(), |i| values[i]), vectors: own(eigen.U()) })
    }

    #[doc(hidden)]
    fn solve_positive_definite(
        a: &ArrayView2<'_, Self>,
        b: &ArrayView2<'_, Self>,
    ) -> Result<Array2<Self>, LinalgError> {
        let not_positive = |_| LinalgError::NotPositiveDefinite { rows: a.nrows() };
        let cholesky = view(a).llt(Side::Lower).map_err(not_positive)?;
        check_pivots(a, |i| cholesky.L()[(i, i)])?;
        Ok(own(cholesky.solve(view(b)).as_ref()))
    }
}
impl Element for f32 {}
impl Element for f64 {}

fn no_convergence<T>(operation: &'static str, a: &ArrayView2<'_, T>) -> LinalgError {
    LinalgError::NoConvergence { operation, rows: a.nrows(), cols: a.ncols() }
}

/// A copy in faer's layout: views over arbitrary strides would need `unsafe`, and O(mn) is nothing beside O(mn²).
fn view<T: Element>(a: &ArrayView2<'_, T>) -> faer::Mat<T> {
    faer::Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[[i, j]])
}

fn own<T: Element>(a: MatRef<'_, T>) -> Array2<T> {
    Array2::from_shape_fn((a.nrows(), a.ncols()), |(i, j)| a[(i, j)])
}
