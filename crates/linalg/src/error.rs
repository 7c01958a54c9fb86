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
}
