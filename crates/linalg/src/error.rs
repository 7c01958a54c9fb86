/// Why a decomposition has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// The iteration did not converge: practically always because an entry is NaN or infinite.
    #[error("{operation} of a {rows} × {cols} matrix did not converge; look for NaN or infinite entries")]
    NoConvergence {
        /// Which decomposition.
        operation: &'static str,
        /// Rows of the input.
        rows: usize,
        /// Columns of the input.
        cols: usize,
    },
    /// The matrix has the wrong shape for the operation.
    #[error("{operation} needs a square matrix, got {rows} × {cols}")]
    NotSquare {
        /// Which decomposition.
        operation: &'static str,
        /// Rows of the input.
        rows: usize,
        /// Columns of the input.
        cols: usize,
    },
    /// The matrix is singular, indefinite or not finite.
    #[error("a {rows} × {rows} matrix is not positive definite")]
    NotPositiveDefinite {
        /// Its rows.
        rows: usize,
    },
    /// Shapes do not fit one another.
    #[error("{operation}: {} × {} and {} × {} do not fit", left.0, left.1, right.0, right.1)]
    Shapes {
        /// What was to be done.
        operation: &'static str,
        /// Rows and columns of the first.
        left: (usize, usize),
        /// Rows and columns of the second.
        right: (usize, usize),
    },
    /// The matrix to write into has rows with gaps in them.
    #[error("the rows of the {rows} × {cols} result are not contiguous: give a row-major matrix")]
    NotContiguous {
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
    },
    /// No product is written for this dtype.
    #[error("weights of products are F32 or BF16, not {dtype:?}: convert first")]
    Dtype {
        /// What was asked for.
        dtype: skillweld_tensor::Dtype,
    },
    /// Rows of one dtype were to be written into a weight of another.
    #[error("a weight kept in {weight:?} takes no rows of {given:?}: convert first")]
    OtherDtype {
        /// The weight's.
        weight: skillweld_tensor::Dtype,
        /// The rows'.
        given: skillweld_tensor::Dtype,
    },
}
