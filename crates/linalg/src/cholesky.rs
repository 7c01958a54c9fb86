use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par, Side};
use ndarray::{Array2, ArrayView2};

use crate::LinalgError;

/// A = L · Lᵀ of a symmetric positive definite matrix, and the inverse of L.
#[derive(Debug, Clone)]
pub struct Cholesky {
    /// n × n, lower triangular.
    pub lower: Array2<f64>,
    /// L⁻¹, n × n, lower triangular.
    pub inverse: Array2<f64>,
}

/// Cholesky's decomposition of a symmetric matrix of which the lower triangle is read; by faer in both backends. `None` where
/// the matrix is not positive definite as far as f64 can tell: see [`Cholesky::condition`] for how close it is to that.
///
/// # Errors
/// [`LinalgError::NotSquare`].
pub fn cholesky(a: &ArrayView2<'_, f64>) -> Result<Option<Cholesky>, LinalgError> {
    let (rows, cols) = a.dim();
    if rows != cols {
        return Err(LinalgError::NotSquare { operation: "Cholesky's decomposition", rows, cols });
    }
    let a = Mat::from_fn(rows, rows, |i, j| a[[i, j]]);
    let Ok(llt) = a.llt(Side::Lower) else { return Ok(None) };
    let mut inverse = Mat::zeros(rows, rows);
    invert_lower_triangular(inverse.as_mut(), llt.L(), Par::Seq);
    let own = |x: faer::MatRef<'_, f64>| {
        Array2::from_shape_fn((rows, rows), |(i, j)| if j <= i { x[(i, j)] } else { 0.0 })
    };
    let cholesky = Cholesky { lower: own(llt.L()), inverse: own(inverse.as_ref()) };
    Ok(Some(cholesky).filter(|cholesky| cholesky.condition().is_finite()))
}

impl Cholesky {
    /// ‖L‖ · ‖L⁻¹‖ in Frobenius' norm: at least the condition number of L, and at most n times that.
    pub fn condition(&self) -> f64 {
        let norm = |x: &Array2<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        norm(&self.lower) * norm(&self.inverse)
    }
}
