use ndarray::{Array2, ArrayView2};

use crate::backend::Element;
use crate::{LinalgError, Scalar};

/// X with A · X = B for a symmetric positive definite A (n × n, only its lower triangle is read) and B (n × m), by
/// Cholesky's decomposition.
///
/// # Errors
/// [`LinalgError::NotSquare`]; [`LinalgError::Shapes`] when B has other rows; [`LinalgError::NotPositiveDefinite`] when A is
/// singular within rounding, not positive, or has NaN or infinite entries.
pub fn solve_positive_definite<T: Scalar>(
    a: &ArrayView2<'_, T>,
    b: &ArrayView2<'_, T>,
) -> Result<Array2<T>, LinalgError> {
    const OPERATION: &str = "solving a positive definite system";
    let (rows, cols) = a.dim();
    if rows != cols {
        return Err(LinalgError::NotSquare { operation: OPERATION, rows, cols });
    }
    if b.nrows() != rows {
        return Err(LinalgError::Shapes { operation: OPERATION, left: a.dim(), right: b.dim() });
    }
    if b.is_empty() {
        return Ok(b.to_owned());
    }
    if a.iter().any(|x| !x.is_finite()) {
        return Err(LinalgError::NotPositiveDefinite { rows });
    }
    T::solve_positive_definite(a, b)
}

/// Fails where a pivot, the square of the factor's `diagonal`, is no more than what rounding may have left of zero:
/// n · ε times the entry of A that it was subtracted from.
pub(crate) fn check_pivots<T: Element>(
    a: &ArrayView2<'_, T>,
    diagonal: impl Fn(usize) -> T,
) -> Result<(), LinalgError> {
    let rows = a.nrows();
    let rounding = T::epsilon() * T::from(rows).unwrap_or_else(T::one);
    // NaN is not above anything either.
    let sound = |i: usize| diagonal(i) * diagonal(i) > rounding * a[[i, i]];
    if (0..rows).all(sound) { Ok(()) } else { Err(LinalgError::NotPositiveDefinite { rows }) }
}
