use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

use crate::{LinalgError, PackedWeight, Product, Threads};

/// out = A · B in f32 on the calling thread, m × k times k × n, any strides; rows of `out` are contiguous. A
/// [`Product`], for whoever starts no threads.
///
/// # Errors
/// [`LinalgError::Shapes`] and [`LinalgError::NotContiguous`].
pub fn multiply(
    a: &ArrayView2<'_, f32>,
    b: &ArrayView2<'_, f32>,
    out: &mut ArrayViewMut2<'_, f32>,
) -> Result<(), LinalgError> {
    Product::new(*a, *b).write(Threads::ONE, out)
}

/// out = A · Wᵀ in f32 on the calling thread, as [`multiply`], for a weight W that many products read.
///
/// # Errors
/// Those of [`multiply`].
pub fn multiply_packed(
    a: &ArrayView2<'_, f32>,
    weight: &PackedWeight,
    out: &mut ArrayViewMut2<'_, f32>,
) -> Result<(), LinalgError> {
    Product::new(*a, weight).write(Threads::ONE, out)
}

/// A · B in f64 on the calling thread: m × k times k × n, any strides.
///
/// # Errors
/// [`LinalgError::Shapes`].
pub fn multiply_f64(a: &ArrayView2<'_, f64>, b: &ArrayView2<'_, f64>) -> Result<Array2<f64>, LinalgError> {
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    if a.ncols() != b.nrows() {
        return Err(LinalgError::Shapes { operation: "a product", left: a.dim(), right: b.dim() });
    }
    if a.ncols() == 0 || out.is_empty() {
        return Ok(out);
    }
    let (a, b) = (without_gaps(a), without_gaps(b));
    faer::linalg::matmul::matmul(view_mut(&mut out), Accum::Replace, a.view(), b.view(), 1.0, Par::Seq);
    Ok(out)
}

/// A · B of an f32 and an f64 matrix, summed in f64 and rounded to f32 at the end, on the calling thread: for columns of B
/// in which columns of A nearly cancel.
///
/// # Errors
/// [`LinalgError::Shapes`].
pub fn multiply_in_f64(a: &ArrayView2<'_, f32>, b: &ArrayView2<'_, f64>) -> Result<Array2<f32>, LinalgError> {
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    if a.ncols() != b.nrows() {
        return Err(LinalgError::Shapes { operation: "a product", left: a.dim(), right: b.dim() });
    }
    if a.ncols() == 0 || out.is_empty() {
        return Ok(out);
    }
    let b = without_gaps(b);
    for (a, mut out) in a.axis_chunks_iter(Axis(0), ROWS).zip(out.axis_chunks_iter_mut(Axis(0), ROWS)) {
        let mut product = Array2::zeros(out.dim());
        let a = wide(&a);
        faer::linalg::matmul::matmul(
            view_mut(&mut product),
            Accum::Replace,
            a.view(),
            b.view(),
            1.0,
            Par::Seq,
        );
        out.assign(&product.mapv(|x| x as f32));
    }
    Ok(out)
}

/// Rows that are converted to f64 at once: they stay in the cache until they are multiplied.
const ROWS: usize = 128;

/// XᵀX of an m × n matrix of any strides, summed in f64: n × n and symmetric.
///
/// Products of f32 are exact in f64, so eigenvalues are good to about 10⁻¹⁶ of the largest, and singular values of X to
/// about 10⁻⁸ of the largest: less than f32 can tell apart.
pub fn gram(x: &ArrayView2<'_, f32>) -> Array2<f64> {
    let (m, n) = x.dim();
    let mut gram = Array2::zeros((n, n));
    if n == 0 {
        return gram;
    }
    for start in (0..m).step_by(ROWS) {
        let rows = wide(&x.slice(s![start..m.min(start + ROWS), ..]));
        let rows = rows.view();
        triangular::matmul(
            view_mut(&mut gram),
            BlockStructure::TriangularLower,
            Accum::Add,
            rows.transpose(),
            BlockStructure::Rectangular,
            rows,
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    }
    for i in 0..n {
        for j in i + 1..n {
            gram[[i, j]] = gram[[j, i]];
        }
    }
    gram
}

/// A matrix for faer: rows or columns one after the other.
struct Gapless {
    values: Vec<f64>,
    rows: usize,
    columns: usize,
    by_rows: bool,
}

impl Gapless {
    fn view(&self) -> MatRef<'_, f64> {
        match self.by_rows {
            true => MatRef::from_row_major_slice(&self.values, self.rows, self.columns),
            false => MatRef::from_column_major_slice(&self.values, self.rows, self.columns),
        }
    }
}

fn by_rows<T>(x: &ArrayView2<'_, T>) -> bool {
    x.strides()[1].abs() <= x.strides()[0].abs()
}

/// A copy in the order in which the values lie: O(mn) beside O(mnk).
fn without_gaps(x: &ArrayView2<'_, f64>) -> Gapless {
    let (rows, columns) = x.dim();
    let by_rows = by_rows(x);
    let values = if by_rows { x.iter().copied().collect() } else { x.t().iter().copied().collect() };
    Gapless { values, rows, columns, by_rows }
}

fn wide(x: &ArrayView2<'_, f32>) -> Gapless {
    let (rows, columns) = x.dim();
    let by_rows = by_rows(x);
    let mut values = Vec::with_capacity(rows * columns);
    for run in if by_rows { *x } else { x.t() }.rows() {
        match run.to_slice() {
            Some(run) => values.extend(run.iter().map(|&value| f64::from(value))),
            None => values.extend(run.iter().map(|&value| f64::from(value))),
        }
    }
    Gapless { values, rows, columns, by_rows }
}

fn view_mut(a: &mut Array2<f64>) -> MatMut<'_, f64> {
    let (rows, columns) = a.dim();
    // Made as zeros, so row-major; an empty slice would be refused by faer, not written to.
    MatMut::from_row_major_slice_mut(a.as_slice_mut().unwrap_or_default(), rows, columns)
}
