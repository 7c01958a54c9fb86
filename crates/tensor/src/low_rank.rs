use ndarray::Array2;

use crate::TensorError;

/// An m × n matrix kept as its factors: B (m × r) times A (r × n), any scale folded into B.
///
/// A LoRA expert's task vector is τ = s·B·A (arXiv 2106.09685); as long as it stays in this form an SVD of it costs
/// (m + n)·r² instead of m·n·min(m, n).
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    b: Array2<f32>,
    a: Array2<f32>,
}

impl LowRank {
    /// Joins the factors `b` (m × r) and `a` (r × n).
    ///
    /// # Errors
    /// [`TensorError::ShapeMismatch`] when the inner dimensions differ.
    pub fn new(b: Array2<f32>, a: Array2<f32>) -> Result<Self, TensorError> {
        if b.ncols() != a.nrows() {
            return Err(TensorError::ShapeMismatch {
                what: "low-rank factors B (m × r) and A (r × n)",
                expected: vec![b.ncols(), a.ncols()],
                actual: a.shape().to_vec(),
            });
        }
        // Row-major storage is what the plugin boundary and the GEMM rely on.
        let row_major =
            |x: Array2<f32>| if x.is_standard_layout() { x } else { x.as_standard_layout().into_owned() };
        Ok(Self { b: row_major(b), a: row_major(a) })
    }

    /// B, m × r, row-major.
    pub fn b(&self) -> &Array2<f32> {
        &self.b
    }

    /// A, r × n, row-major.
    pub fn a(&self) -> &Array2<f32> {
        &self.a
    }

    /// The common inner dimension r: an upper bound of the numerical rank.
    pub fn rank(&self) -> usize {
        self.b.ncols()
    }

    /// Shape of the product, `[m, n]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.b.nrows(), self.a.ncols()]
    }

    /// The product B·A, m × n: the slow, obvious reference. Fast products live in the `linalg` crate.
    pub fn to_dense(&self) -> Array2<f32> {
        self.b.dot(&self.a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn product_of_factors() {
        let low = LowRank::new(array![[1.0], [2.0]], array![[3.0, 4.0, 5.0]]).unwrap();
        assert_eq!(low.shape(), [2, 3]);
        assert_eq!(low.rank(), 1);
        assert_eq!(low.to_dense(), array![[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]);
    }

    #[test]
    fn inner_dimensions_must_agree() {
        let error = LowRank::new(Array2::zeros((2, 3)), Array2::zeros((2, 4))).unwrap_err();
        assert!(error.to_string().contains("low-rank factors"), "{error}");
    }
}
