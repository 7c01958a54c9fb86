//! The first singular triplets of a large matrix, by subspace iteration on a random sketch (Halko, Martinsson, Tropp 2011,
//! arXiv 0909.4061, algorithm 4.4): all large work is products.

use ndarray::{Array1, Array2, ArrayView2, s};

use crate::decompose::check_finite;
use crate::{LinalgError, Product, Svd, Threads, qr, thin_svd};

/// Columns of the sketch beyond the rank: the subspace converges as σ_(rank + 1 + this) / σ_rank does.
const OVERSAMPLING: usize = 16;
/// Iterations at most. A flat spectrum needs them; a matrix of low rank needs two.
const MOST_ITERATIONS: usize = 12;
/// Enough, when an iteration catches no more than this share of the energy that is still outside.
const LITTLE: f64 = 1e-3;
/// f32 products say nothing about a smaller share of the whole energy.
const NOTHING: f64 = 1e-12;

/// The first min(`rank`, m, n) singular triplets of an m × n matrix, largest first.
///
/// σ and the subspaces are those of the whole decomposition where σ_rank stands clear of σ_(rank + 17), and exact within
/// f32 rounding for a matrix whose rank is not above `rank`. On a flat spectrum directions differ, since any of them is
/// about as good: ‖A − U·diag(s)·Vᵀ‖ exceeds the least possible by a few thousandths. Where the sketch would be no smaller
/// than half the matrix, the whole one is decomposed. The same bits for any number of threads.
///
/// # Errors
/// [`LinalgError::NoConvergence`] for NaN or infinite input.
pub fn truncated_svd(
    a: &ArrayView2<'_, f32>,
    rank: usize,
    threads: Threads,
) -> Result<Svd<f32>, LinalgError> {
    let (m, n) = a.dim();
    let rank = rank.min(m).min(n);
    let sketch = rank + OVERSAMPLING;
    if 2 * sketch >= m.min(n) {
        // In f64: singular vectors that f32 finds lose two of its digits.
        let svd = thin_svd(&a.mapv(f64::from).view())?;
        return Ok(Svd {
            u: svd.u.slice(s![.., ..rank]).mapv(|x| x as f32),
            s: svd.s.slice(s![..rank]).mapv(|x| x as f32),
            vt: svd.vt.slice(s![..rank, ..]).mapv(|x| x as f32),
        });
    }
    check_finite("SVD", a)?;
    let multiply = |x: ArrayView2<'_, f32>, y: &Array2<f32>| {
        let mut out = Array2::zeros((x.nrows(), y.ncols()));
        Product::new(x, y.view()).write(threads, &mut out.view_mut())?;
        Ok::<_, LinalgError>(out)
    };
    let energy: f64 = a.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let mut y = multiply(a.view(), &noise(n, sketch))?;
    let mut caught = 0.0;
    for iteration in 1.. {
        let q = qr(&y.view())?.q;
        let right = qr(&multiply(a.t(), &q)?.view())?;
        // QᵀA = Rᵀ·Pᵀ, so R (sketch × sketch) has the singular values of what Q caught.
        let core = thin_svd(&right.r.mapv(f64::from).view())?;
        let before = caught;
        caught = core.s.iter().take(rank).map(|s| s * s).sum();
        let outside = (energy - caught).max(NOTHING * energy);
        if iteration == MOST_ITERATIONS || caught - before <= LITTLE * outside {
            // R = X·S·Wᵀ: A ≈ Q·(W·S·Xᵀ)·Pᵀ.
            let (x, w) = (core.u.mapv(|x| x as f32), core.vt.mapv(|x| x as f32));
            return Ok(Svd {
                u: multiply(q.view(), &w.slice(s![..rank, ..]).t().to_owned())?,
                s: core.s.iter().take(rank).map(|&s| s as f32).collect::<Array1<f32>>(),
                vt: multiply(x.slice(s![.., ..rank]).t(), &right.q.t().to_owned())?,
            });
        }
        y = multiply(a.view(), &right.q)?;
    }
    unreachable!("the last iteration returns")
}

/// Numbers between −1 and 1, the same every time: SplitMix64 of the element's place.
fn noise(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let mut z = ((i * columns + j) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 24 bits are what an f32 holds.
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}
