use std::path::{Path, PathBuf};

use skillweld_linalg::LinalgError;
use skillweld_merge::MergeError;
use skillweld_merged::MergedError;
use skillweld_store::StoreError;
use skillweld_tensor::{Dtype, TensorError};

/// Why nothing was written. Inputs and earlier outputs are untouched whatever it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterchangeError {
    /// A checkpoint or an output file is at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A merged checkpoint is.
    #[error(transparent)]
    Merged(#[from] MergedError),
    /// The output's place is, or the user asked to stop.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A file or folder does not do for what it was named for.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// No rank that an adapter could have.
    #[error("--rank {rank}: {problem}")]
    Rank {
        /// What was asked for.
        rank: usize,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// Factors are stored in F32, F16 or BF16.
    #[error("--dtype {dtype}: adapters are stored in F32, F16 or BF16")]
    Dtype {
        /// What was asked for.
        dtype: Dtype,
    },
    /// Base and fine-tune do not fit one another.
    #[error("tensor `{key}`: {problem}")]
    Key {
        /// Name of the tensor.
        key: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A tensor's values cannot be computed with.
    #[error("tensor `{key}`: {source}")]
    Tensor {
        /// Name of the tensor.
        key: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A decomposition failed.
    #[error("tensor `{key}`: {source}")]
    Linalg {
        /// Name of the tensor.
        key: String,
        /// What failed.
        source: LinalgError,
    },
}

impl InterchangeError {
    pub(crate) fn unfit(path: &Path, problem: impl Into<String>) -> Self {
        Self::Unfit { path: path.to_owned(), problem: problem.into() }
    }

    pub(crate) fn key(key: &str, problem: impl Into<String>) -> Self {
        Self::Key { key: key.to_owned(), problem: problem.into() }
    }

    pub(crate) fn tensor(key: &str) -> impl FnOnce(TensorError) -> Self {
        let key = key.to_owned();
        |source| Self::Tensor { key, source }
    }

    pub(crate) fn linalg(key: &str) -> impl FnOnce(LinalgError) -> Self {
        let key = key.to_owned();
        |source| Self::Linalg { key, source }
    }
}
