use std::path::PathBuf;

use skillweld_chart::ChartError;
use skillweld_linalg::LinalgError;
use skillweld_merged::MergedError;
use skillweld_store::StoreError;
use skillweld_tensor::TensorError;

/// Why there is no report, or no comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// What is to be reported on is no merged checkpoint, or is broken.
    #[error(transparent)]
    Merged(#[from] MergedError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tensor's values cannot be computed with.
    #[error("tensor `{key}`: {source}")]
    Tensor {
        /// Its key.
        key: String,
        /// Why.
        source: TensorError,
    },
    /// A matrix has no decomposition.
    #[error("tensor `{key}`: {source}")]
    Linalg {
        /// Its key.
        key: String,
        /// Why.
        source: LinalgError,
    },
    /// A plot cannot be drawn.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// What was asked for does not fit the path.
    #[error("{path}: {problem}", path = path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Cancelled,
}

impl ReportError {
    /// Names the tensor.
    pub(crate) fn tensor(key: &str) -> impl Fn(TensorError) -> Self {
        move |source| Self::Tensor { key: key.to_owned(), source }
    }
}
