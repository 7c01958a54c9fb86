//! Linear algebra for methods on whole matrices. Everything runs on the calling thread: the host works on several tensors
//! side by side.

pub use ndarray;
pub use skillweld_linalg::{
    Cholesky, Eigh, LinalgError, PackedWeight, Qr, Scalar, Svd, cholesky, eigh, gemm, gram, multiply,
    multiply_f64, multiply_in_f64, multiply_packed, qr, solve_positive_definite, thin_svd,
};

use ndarray::{ArrayView2, ArrayViewMut2, CowArray, Ix2};
use skillweld_simd::vectorize;

use crate::{Block, Factors, Result, Stop};

impl From<LinalgError> for Stop {
    fn from(error: LinalgError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Rows and columns of the block's tensor; `None` when it is no matrix.
pub fn matrix_shape(block: &Block<'_>) -> Option<(usize, usize)> {
    match *block.shape() {
        [rows, columns] => Some((rows as usize, columns as usize)),
        _ => None,
    }
}

/// B, m × rank, and A, rank × n, of factors of an m × n matrix.
///
/// # Errors
/// [`Stop::Failed`] when the factors are not of that shape, which the host does not let happen.
pub fn factor_matrices<'a>(
    factors: Factors<'a>,
    (m, n): (usize, usize),
) -> Result<(ArrayView2<'a, f32>, ArrayView2<'a, f32>)> {
    let b = ArrayView2::from_shape((m, factors.rank), factors.b);
    let a = ArrayView2::from_shape((factors.rank, n), factors.a);
    match (b, a) {
        (Ok(b), Ok(a)) => Ok((b, a)),
        _ => Err(format!("factors of rank {} do not fit {m} × {n}", factors.rank).into()),
    }
}

/// Expert `k` of an m × n matrix, multiplied out when it comes as factors.
///
/// # Errors
/// [`Stop::Failed`] when its values are not as many, which the host does not let happen.
pub fn dense_expert<'a>(
    block: &Block<'a>,
    k: usize,
    shape: (usize, usize),
) -> Result<CowArray<'a, f32, Ix2>> {
    if let Some(factors) = block.low_rank(k) {
        let (b, a) = factor_matrices(factors, shape)?;
        let mut dense = ndarray::Array2::zeros(shape);
        multiply(&b, &a, &mut dense.view_mut())?;
        return Ok(dense.into());
    }
    let values = ArrayView2::from_shape(shape, block.expert(k));
    values.map(CowArray::from).map_err(|_| format!("expert {k} is not {} × {}", shape.0, shape.1).into())
}

/// The output as an m × n matrix.
///
/// # Errors
/// [`Stop::Failed`] when it has not as many values.
pub fn matrix_mut(out: &mut [f32], shape: (usize, usize)) -> Result<ArrayViewMut2<'_, f32>> {
    ArrayViewMut2::from_shape(shape, out).map_err(|error| error.to_string().into())
}

/// out = ⅟N Σ_k of the experts, whatever their shape, summed in their order: what methods on matrices do with everything
/// else.
///
/// # Errors
/// As [`dense_expert`].
pub fn mean(block: &Block<'_>, out: &mut [f32]) -> Result {
    out.fill(0.0);
    for k in 0..block.experts() {
        match matrix_shape(block) {
            Some(shape) if block.low_rank(k).is_some() => {
                let dense = dense_expert(block, k, shape)?;
                add(out, dense.as_slice().unwrap_or_default());
            }
            _ => add(out, block.expert(k)),
        }
    }
    divide(out, block.experts() as f32);
    Ok(())
}

vectorize! {
    /// out += x.
    fn add(out: &mut [f32], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
    }

    /// out /= divisor.
    fn divide(out: &mut [f32], divisor: f32) {
        out.iter_mut().for_each(|out| *out /= divisor);
    }
}
