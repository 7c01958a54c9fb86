//! Decompositions that know where a matrix ends and its rounding begins.

use skillweld_plugin_sdk::Result;
use skillweld_plugin_sdk::linalg::ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use skillweld_plugin_sdk::linalg::{cholesky, eigh, gram, multiply, multiply_f64, multiply_in_f64, thin_svd};

/// What counts of a spectrum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rank {
    /// Singular values above so much of the largest: the numerical rank.
    Numerical(f64),
    /// All of them, directions that only rounding has made included: what the published code does.
    Full,
}

impl Rank {
    /// Numerical rank as NumPy's and PyTorch's `matrix_rank` have it: σ > σ₁ · max(m, n) · ε.
    pub(crate) fn numerical((m, n): (usize, usize)) -> Self {
        Self::Numerical(m.max(n) as f64 * f64::from(f32::EPSILON))
    }
}

/// Singular triplets of an m × n matrix, largest first.
pub(crate) struct Triplets {
    /// m × k.
    pub(crate) u: Array2<f32>,
    pub(crate) s: Vec<f64>,
    /// k × n.
    pub(crate) vt: Array2<f32>,
}

impl Triplets {
    /// Of a dense matrix: at most `most`, and of those as many as `rank` says, σ being measured against `scale`, or σ₁
    /// where there is none.
    pub(crate) fn of(x: &ArrayView2<'_, f32>, rank: Rank, most: usize, scale: Option<f64>) -> Result<Self> {
        let tolerance = match rank {
            Rank::Numerical(tolerance) => tolerance,
            Rank::Full => {
                let svd = thin_svd(x)?;
                let count = svd.s.len().min(most);
                return Ok(Self {
                    u: svd.u.slice_move(s![.., ..count]),
                    s: svd.s.iter().take(count).map(|&s| f64::from(s)).collect(),
                    vt: svd.vt.slice_move(s![..count, ..]),
                });
            }
        };
        // Of the smaller side, whose eigenvectors are one factor; the other is x times it.
        let wide = x.ncols() > x.nrows();
        let tall = if wide { x.t() } else { x.view() };
        let (mut values, vectors) = spectrum(&gram(&tall).view())?;
        let scale = scale.unwrap_or_else(|| values.first().copied().unwrap_or(0.0));
        let count = values.iter().take(most).take_while(|&&s| s > tolerance * scale).count();
        values.truncate(count);
        let vectors = vectors.slice_move(s![.., ..count]);
        let other = other_side(&tall, &vectors.view(), &values)?;
        let vectors = vectors.mapv(|x| x as f32);
        Ok(match wide {
            false => Self { u: other, s: values, vt: vectors.reversed_axes() },
            true => Self { u: vectors, s: values, vt: other.reversed_axes() },
        })
    }
}

/// σ₁ / σ from which a singular vector is added up in f64. Vectors are made orthonormal after this, or projected away:
/// what they lack in orthogonality comes back divided by the smallest σ.
const PRECISE_FROM: f64 = 16.0;

/// U = X V S⁻¹ of the first singular triplets of X, largest first: columns that are orthonormal to nearly f32's precision.
pub(crate) fn other_side(
    x: &ArrayView2<'_, f32>,
    vectors: &ArrayView2<'_, f64>,
    s: &[f64],
) -> Result<Array2<f32>> {
    let largest = s.first().copied().unwrap_or(0.0);
    let plain = s.iter().take_while(|&&s| s * PRECISE_FROM > largest).count();
    let scaled = vectors / &ArrayView1::from(s);
    let mut out = Array2::zeros((x.nrows(), s.len()));
    let leading = scaled.slice(s![.., ..plain]).mapv(|x| x as f32);
    multiply(x, &leading.view(), &mut out.slice_mut(s![.., ..plain]))?;
    out.slice_mut(s![.., plain..]).assign(&multiply_in_f64(x, &scaled.slice(s![.., plain..]))?);
    Ok(out)
}

/// Square roots of the eigenvalues of a symmetric positive semidefinite matrix, largest first, and the eigenvectors as
/// columns.
pub(crate) fn spectrum(a: &ArrayView2<'_, f64>) -> Result<(Vec<f64>, Array2<f64>)> {
    let eigen = eigh(a)?;
    let roots = eigen.values.iter().rev().map(|&value| value.max(0.0).sqrt()).collect();
    Ok((roots, eigen.vectors.slice_move(s![.., ..;-1])))
}

/// The first `count` columns.
pub(crate) fn leading(x: &Array2<f64>, count: usize) -> ArrayView2<'_, f64> {
    x.slice(s![.., ..count])
}

/// A basis of what the columns of X span, out of XᵀX: X = Q · r with Q = X · t, QᵀQ = I.
pub(crate) struct Basis {
    /// R × p.
    pub(crate) t: Array2<f64>,
    /// p × R.
    pub(crate) r: Array2<f64>,
}

/// Condition of X up to which Cholesky's decomposition of XᵀX is as good as its eigenvectors, and much faster.
const WELL_CONDITIONED: f64 = 1e4;

impl Basis {
    pub(crate) fn of(gram: &ArrayView2<'_, f64>) -> Result<Self> {
        if let Some(factor) = cholesky(gram)?.filter(|factor| factor.condition() < WELL_CONDITIONED) {
            return Ok(Self { t: factor.inverse.reversed_axes(), r: factor.lower.reversed_axes() });
        }
        let (values, vectors) = spectrum(gram)?;
        // Below that an eigenvalue is rounding of f64.
        let floor = values.first().map_or(0.0, |s| s * (8.0 * gram.nrows() as f64 * f64::EPSILON).sqrt());
        let count = values.iter().take_while(|&&s| s > floor).count();
        let values = Array1::from_iter(values.into_iter().take(count));
        let vectors = leading(&vectors, count);
        Ok(Self { t: &vectors / &values, r: (&vectors * &values).reversed_axes() })
    }

    /// As [`of`](Self::of), of a matrix X with fewer rows than columns, by way of XXᵀ.
    pub(crate) fn of_wide(x: &ArrayView2<'_, f32>) -> Result<Self> {
        let (values, vectors) = spectrum(&gram(&x.t()).view())?;
        let floor = values.first().map_or(0.0, |s| s * (8.0 * x.nrows() as f64 * f64::EPSILON).sqrt());
        let count = values.iter().take_while(|&&s| s > floor).count();
        let squares = Array1::from_iter(values.into_iter().take(count).map(|s| s * s));
        let r = multiply_f64(&leading(&vectors, count).t(), &x.mapv(f64::from).view())?;
        Ok(Self { t: &r.t() / &squares, r })
    }
}

/// P^{−1/2} of a symmetric positive semidefinite matrix where it is not zero. X · (XᵀX)^{−1/2} is the matrix with
/// orthonormal columns that is nearest to X.
pub(crate) fn inverse_root(gram: &ArrayView2<'_, f64>, tolerance: f64) -> Result<Array2<f64>> {
    let (values, vectors) = spectrum(gram)?;
    let floor = values.first().map_or(0.0, |s| s * tolerance);
    let count = values.iter().take_while(|&&s| s > floor).count();
    let vectors = leading(&vectors, count);
    let values = Array1::from_iter(values.into_iter().take(count));
    Ok(multiply_f64(&(&vectors / &values).view(), &vectors.t())?)
}

/// U · Vᵀ of X = U · S · Vᵀ.
pub(crate) fn polar(x: &ArrayView2<'_, f32>, rank: Rank) -> Result<Array2<f32>> {
    let Triplets { u, vt, .. } = Triplets::of(x, rank, usize::MAX, None)?;
    let mut out = Array2::zeros(x.dim());
    multiply(&u.view(), &vt.view(), &mut out.view_mut())?;
    Ok(out)
}

/// Matrices side by side; `rows` for where there are none.
pub(crate) fn beside<T: Clone>(parts: &[ArrayView2<'_, T>], rows: usize) -> Array2<T> {
    let columns = parts.iter().map(ArrayView2::ncols).sum();
    let mut values = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        parts.iter().for_each(|part| values.extend(part.index_axis(Axis(0), row).iter().cloned()));
    }
    Array2::from_shape_vec((rows, columns), values).unwrap_or_else(|_| unreachable!("one value a place"))
}

/// Matrices one above the other.
pub(crate) fn above<T: Clone>(parts: &[ArrayView2<'_, T>], columns: usize) -> Array2<T> {
    let rows = parts.iter().map(ArrayView2::nrows).sum();
    let mut values = Vec::with_capacity(rows * columns);
    parts.iter().for_each(|part| values.extend(part.iter().cloned()));
    Array2::from_shape_vec((rows, columns), values).unwrap_or_else(|_| unreachable!("one value a place"))
}
