use std::path::{Path, PathBuf};

use skillweld_merge::MergeError;
use skillweld_merge::recipe::RecipeError;
use skillweld_store::StoreError;

/// Why a sweep did not begin, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// A `--set` that says nothing usable.
    #[error("--set {given}: {problem}")]
    Axis {
        /// As written.
        given: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// An evaluation command that cannot be meant.
    #[error("--eval: {problem}")]
    Command {
        /// What is wrong, and what to write.
        problem: String,
    },
    /// A recipe that is none at one of the points.
    #[error("at {point}: {source}")]
    Recipe {
        /// Its values.
        point: String,
        /// What is wrong.
        source: Box<RecipeError>,
    },
    /// A merge that failed, or that would.
    #[error("at {point}: {source}")]
    Merge {
        /// Its values.
        point: String,
        /// What is wrong.
        source: Box<MergeError>,
    },
    /// A file that cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder holds something else.
    #[error("{} {problem}", dir.display())]
    Folder {
        /// The sweep's folder.
        dir: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The folder holds a sweep over something else.
    #[error(
        "{} holds a sweep with {what}; name another folder with --out, or begin anew with --restart, which forgets its {trials} evaluations",
        dir.display()
    )]
    Changed {
        /// The sweep's folder.
        dir: PathBuf,
        /// What differs.
        what: String,
        /// Evaluations that are in it.
        trials: usize,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Such as `write`.
        what: &'static str,
        /// What it was about.
        path: PathBuf,
        /// In the system's words.
        source: std::io::Error,
    },
    /// The shell could not be started.
    #[error("cannot start `sh` for the evaluation: {0}")]
    Shell(std::io::Error),
    /// The cluster.
    #[error("Ray at {address}: {problem}")]
    Ray {
        /// Where it was looked for.
        address: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
}

impl SweepError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
