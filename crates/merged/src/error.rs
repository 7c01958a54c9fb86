use std::path::{Path, PathBuf};

use skillweld_store::StoreError;

/// Why a merged checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergedError {
    /// It lacks something, or contradicts itself.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The merged checkpoint, or its file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A file of it is no checkpoint, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A problem with a file or directory of a merged checkpoint.
pub(crate) fn problem(path: &Path, problem: impl Into<String>) -> MergedError {
    MergedError::Invalid { path: path.to_owned(), problem: problem.into() }
}
