use std::path::PathBuf;

use skillweld_linalg::LinalgError;
use skillweld_store::StoreError;

/// Why a policy cannot be opened or cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file of the checkpoint cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the checkpoint says something that contradicts the rest, or lacks something.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A product cannot be computed.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
    /// The observation cannot be used.
    #[error("observation: {0}")]
    Observation(String),
}
