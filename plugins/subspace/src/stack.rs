//! Experts as factors, stacked: τ_k = B_k A_k, B = [B_1 … B_N] (m × R), A = [A_1; …; A_N] (R × n).
//!
//! Whatever lies in the span of B's columns and A's rows is described by coefficients over them, and inner products of
//! those are BᵀB and AAᵀ: so decompositions of task vectors, of their sum and of their concatenation happen in R
//! dimensions, in f64, and only the end result is as large as the tensor.

use std::ops::Range;

use skillweld_plugin_sdk::linalg::ndarray::{Array1, Array2, ArrayView2, s};
use skillweld_plugin_sdk::linalg::ndarray::{CowArray, Ix2};
use skillweld_plugin_sdk::linalg::{
    cholesky, dense_expert, factor_matrices, gram, matrix_mut, multiply, multiply_f64, multiply_in_f64,
};
use skillweld_plugin_sdk::{Block, Result};

use crate::rank::{Basis, Rank, above, beside, leading, spectrum};

/// The experts of a matrix as they come.
pub(crate) enum Experts<'a> {
    /// All as factors, whose singular values count above so much of the largest.
    Factored(Box<Stack>, f64),
    /// Multiplied out where they came as factors.
    Dense(Vec<CowArray<'a, f32, Ix2>>),
}

impl<'a> Experts<'a> {
    /// As factors where all come so: factors have no null space, so [`Rank::Full`] is for matrices.
    pub(crate) fn of(block: &Block<'a>, shape: (usize, usize), rank: Rank) -> Result<Self> {
        let factors: Option<Vec<_>> = (0..block.experts()).map(|k| block.low_rank(k)).collect();
        match (factors, rank) {
            (Some(factors), Rank::Numerical(tolerance)) => {
                block.path("factored");
                let factors = factors.into_iter().map(|factors| factor_matrices(factors, shape));
                let factors = factors.collect::<Result<Vec<_>>>()?;
                Ok(Self::Factored(Box::new(Stack::new(&factors, shape)), tolerance))
            }
            _ => {
                block.path("dense");
                let experts = (0..block.experts()).map(|k| dense_expert(block, k, shape));
                experts.collect::<Result<_>>().map(Self::Dense)
            }
        }
    }
}

/// B and A with their inner products.
pub(crate) struct Stack {
    b: Array2<f32>,
    a: Array2<f32>,
    /// Each expert's columns of B and rows of A.
    parts: Vec<Range<usize>>,
    /// BᵀB, R × R.
    left: Array2<f64>,
    /// AAᵀ, R × R.
    right: Array2<f64>,
}

/// Singular triplets of an expert, or of several together, as coefficients: U = B · left, Vᵀ = right · A.
pub(crate) struct Coefficients {
    /// R × k.
    pub(crate) left: Array2<f64>,
    /// k values, largest first.
    pub(crate) s: Vec<f64>,
    /// k × R.
    pub(crate) right: Array2<f64>,
}

impl Stack {
    /// Factors of every expert, of m × n matrices.
    pub(crate) fn new(
        factors: &[(ArrayView2<'_, f32>, ArrayView2<'_, f32>)],
        (m, n): (usize, usize),
    ) -> Self {
        let (b, a): (Vec<_>, Vec<_>) = factors.iter().copied().unzip();
        let ends = b.iter().scan(0, |end, b| {
            let start = *end;
            *end += b.ncols();
            Some(start..*end)
        });
        let parts = ends.collect();
        let (b, a) = (beside(&b, m), above(&a, n));
        let (left, right) = (gram(&b.view()), gram(&a.t()));
        Self { b, a, parts, left, right }
    }

    pub(crate) fn experts(&self) -> &[Range<usize>] {
        &self.parts
    }

    /// R.
    pub(crate) fn len(&self) -> usize {
        self.b.ncols()
    }

    pub(crate) fn left(&self) -> &Array2<f64> {
        &self.left
    }

    pub(crate) fn right(&self) -> &Array2<f64> {
        &self.right
    }

    /// AAᵀ of one expert.
    pub(crate) fn right_of(&self, part: &Range<usize>) -> ArrayView2<'_, f64> {
        self.right.slice(s![part.clone(), part.clone()])
    }

    /// ‖τ_k‖² = ⟨B_kᵀB_k, A_kA_kᵀ⟩.
    pub(crate) fn square(&self, part: &Range<usize>) -> f64 {
        let left = self.left.slice(s![part.clone(), part.clone()]);
        left.iter().zip(self.right_of(part)).map(|(left, right)| left * right).sum()
    }

    /// A basis of what all of B's columns span.
    pub(crate) fn basis(&self) -> Result<Basis> {
        if self.b.nrows() < self.b.ncols() {
            return Basis::of_wide(&self.b.view());
        }
        Basis::of(&self.left.view())
    }

    /// Triplets of the sum of the experts of `part`, a range of R; at most `most`, those above `tolerance` of the largest.
    pub(crate) fn triplets(&self, part: &Range<usize>, tolerance: f64, most: usize) -> Result<Coefficients> {
        let basis = Basis::of(&self.left.slice(s![part.clone(), part.clone()]))?;
        self.triplets_in(&basis, part, tolerance, most)
    }

    /// As [`triplets`](Self::triplets), with the basis of those columns of B.
    pub(crate) fn triplets_in(
        &self,
        basis: &Basis,
        part: &Range<usize>,
        tolerance: f64,
        most: usize,
    ) -> Result<Coefficients> {
        // (Qᵀτ)(Qᵀτ)ᵀ has the squares of τ's singular values.
        let core = multiply_f64(&basis.r.view(), &self.right_of(part))?;
        let (mut s, vectors) = spectrum(&multiply_f64(&core.view(), &basis.r.t())?.view())?;
        let floor = s.first().map_or(0.0, |s| s * tolerance);
        s.truncate(s.iter().take(most).take_while(|&&s| s > floor).count());
        let vectors = leading(&vectors, s.len());
        let left = multiply_f64(&basis.t.view(), &vectors)?;
        let right = multiply_f64(&(&vectors / &Array1::from_vec(s.clone())).t(), &basis.r.view())?;
        Ok(Coefficients { left: self.rows(&left, part), s, right: self.columns(&right, part) })
    }

    /// Coefficients over the columns of one part, as such over all of B's.
    pub(crate) fn rows(&self, coefficients: &Array2<f64>, part: &Range<usize>) -> Array2<f64> {
        let mut all = Array2::zeros((self.len(), coefficients.ncols()));
        all.slice_mut(s![part.clone(), ..]).assign(coefficients);
        all
    }

    /// Coefficients over the rows of one part, as such over all of A's.
    pub(crate) fn columns(&self, coefficients: &Array2<f64>, part: &Range<usize>) -> Array2<f64> {
        let mut all = Array2::zeros((coefficients.nrows(), self.len()));
        all.slice_mut(s![.., part.clone()]).assign(coefficients);
        all
    }

    /// B · coefficients, m × k.
    pub(crate) fn columns_of_b(&self, coefficients: &ArrayView2<'_, f64>) -> Result<Array2<f32>> {
        combine(&self.b.view(), coefficients, &self.left)
    }

    /// coefficients · A, k × n.
    pub(crate) fn rows_of_a(&self, coefficients: &ArrayView2<'_, f64>) -> Result<Array2<f32>> {
        Ok(combine(&self.a.t(), &coefficients.t(), &self.right)?.reversed_axes())
    }

    /// coefficients · A_k, for the rows of one expert: k × n.
    pub(crate) fn rows_of(
        &self,
        coefficients: &ArrayView2<'_, f64>,
        part: &Range<usize>,
    ) -> Result<Array2<f32>> {
        let a = self.a.slice(s![part.clone(), ..]);
        let mut out = Array2::zeros((coefficients.nrows(), a.ncols()));
        multiply(&coefficients.mapv(|x| x as f32).view(), &a, &mut out.view_mut())?;
        Ok(out)
    }

    /// out = (B · left) · (right · A), or where that is less work (B · left · right) · A or B · (left · right · A).
    pub(crate) fn write(
        &self,
        left: &ArrayView2<'_, f64>,
        right: &ArrayView2<'_, f64>,
        out: &mut [f32],
    ) -> Result {
        if let Some((b, a)) = self.joined_at_the_small_side(left, right)? {
            let mut out = matrix_mut(out, (b.nrows(), a.ncols()))?;
            return Ok(multiply(&b.view(), &a.view(), &mut out)?);
        }
        let (b, a) = (self.columns_of_b(left)?, self.rows_of_a(right)?);
        let mut out = matrix_mut(out, (b.nrows(), a.ncols()))?;
        Ok(multiply(&b.view(), &a.view(), &mut out)?)
    }
}

impl Stack {
    /// The factors of B · left · right · A of which the larger is B or A as it is, and so costs nothing: where that is
    /// worth it, and where that factor's condition shows that its columns do not cancel more than f32 can bear.
    fn joined_at_the_small_side(
        &self,
        left: &ArrayView2<'_, f64>,
        right: &ArrayView2<'_, f64>,
    ) -> Result<Option<Pair<'_>>> {
        let (m, n, r, k) = (self.b.nrows(), self.a.ncols(), self.len(), left.ncols());
        let tall = m >= n;
        let apart = (m + n) * r * k + m * n * k;
        // Products in f64, of left and right and in Cholesky's decomposition, count twice.
        let joined = 2 * (r * r * k + r * r * r) + m.min(n) * r * r + m * n * r;
        if joined >= apart {
            return Ok(None);
        }
        let gram = if tall { &self.left } else { &self.right };
        // Of singular values of which one pair is κ apart, (Σσ²)(Σσ⁻²) is at least (r − 2 + κ + 1/κ)²: Cauchy's inequality.
        let most = r as f64 - 2.0 + MOST_CANCELLED;
        if cholesky(&gram.view())?.is_none_or(|factor| factor.condition() > most) {
            return Ok(None);
        }
        let core = multiply_f64(left, right)?;
        let (b, a) = (CowArray::from(self.b.view()), CowArray::from(self.a.view()));
        Ok(Some(match tall {
            true => (b, self.rows_of_a(&core.view())?.into()),
            false => (self.columns_of_b(&core.view())?.into(), a),
        }))
    }
}

/// m × k and k × n.
type Pair<'a> = (CowArray<'a, f32, Ix2>, CowArray<'a, f32, Ix2>);

/// Most by which a combination of columns may be smaller than its terms for f32 to add them up: 2⁷ of its 2²⁴ steps.
const MOST_CANCELLED: f64 = 128.0;

/// X · coefficients, given XᵀX: in f32, or where columns of X nearly cancel in f64.
fn combine(
    x: &ArrayView2<'_, f32>,
    coefficients: &ArrayView2<'_, f64>,
    gram: &Array2<f64>,
) -> Result<Array2<f32>> {
    let sizes = multiply_f64(&gram.view(), coefficients)?;
    let norm = gram.diag().sum().sqrt();
    let cancels = coefficients.columns().into_iter().zip(sizes.columns()).any(|(column, image)| {
        let (terms, sum) = (column.dot(&column).sqrt() * norm, column.dot(&image).max(0.0).sqrt());
        terms > MOST_CANCELLED * sum
    });
    if cancels {
        return Ok(multiply_in_f64(x, coefficients)?);
    }
    let mut out = Array2::zeros((x.nrows(), coefficients.ncols()));
    multiply(x, &coefficients.mapv(|x| x as f32).view(), &mut out.view_mut())?;
    Ok(out)
}
