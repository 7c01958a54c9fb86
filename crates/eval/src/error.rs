use std::io;
use std::path::{Path, PathBuf};

use skillweld_robot::ChunkError;
use skillweld_suites::SuiteError;

/// Why there is no result. Texts name the thing and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The policy was made for something else.
    #[error("{0}")]
    Disagreement(String),
    /// The policy failed in a trial.
    #[error("{trial}: {error}")]
    Policy {
        /// Which trial.
        trial: String,
        /// What the policy said.
        error: ChunkError,
    },
    /// The trial cannot be.
    #[error("{trial}: {error}")]
    Suite {
        /// Which trial.
        trial: String,
        /// What is wrong with it.
        error: SuiteError,
    },
    /// A trial of a task that there is not.
    #[error("there is no task {0}: the results are of another version of the suites; begin a new folder")]
    NoTask(String),
    /// The results are of something else.
    #[error("{path} holds results of {there}, not of {wanted}: name another folder")]
    Another {
        /// The file.
        path: PathBuf,
        /// What it is of.
        there: String,
        /// What was asked for.
        wanted: String,
    },
    /// Someone else evaluates into the same folder.
    #[error("another program is writing {0}: wait for it, or name another folder")]
    Busy(PathBuf),
    /// A file that is none of ours.
    #[error("{path}, line {line}: {problem}: remove the line, or name another folder")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The disk.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// Read, write, …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl EvalError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
