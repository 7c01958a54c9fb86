use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parquet::errors::ParquetError;

/// What went wrong while recording or reading a dataset. Texts name the file, the episode or the column, and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// An operation on a file or folder failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, for example `open`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk, the quota or a limit on file sizes is exhausted. Saved episodes are untouched.
    #[error("{}: no room left to write it; saved episodes are intact: free space, then try again or discard the open one", path.display())]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// A file is not what it should be: truncated, of another format, or at odds with its neighbours.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A dataset is to be begun where something is already.
    #[error("{} is not empty; resume the dataset that is there, or record into a new folder", .0.display())]
    NotEmpty(PathBuf),
    /// Somebody records into this dataset at this moment.
    #[error("{} is being recorded into by another process; end that one first", .0.display())]
    Busy(PathBuf),
    /// The dataset is of another kind than what is to be recorded.
    #[error(
        "{what} differs: the dataset has {dataset}, this recording {recording}; record into a new folder"
    )]
    Differs {
        /// The feature, or `fps`.
        what: String,
        /// As it is in the dataset.
        dataset: String,
        /// As it is in the recording's specification.
        recording: String,
    },
    /// A specification that no dataset can have.
    #[error("{0}")]
    Spec(String),
    /// A frame that does not fit the specification. It has not been recorded.
    #[error("frame {frame}: {problem}")]
    Frame {
        /// Its number in the open episode, from 0.
        frame: usize,
        /// What does not fit.
        problem: String,
    },
    /// Images come faster than they are encoded. The frame has not been recorded.
    #[error(
        "frame {frame} is not recorded: {waiting} frames wait to be encoded already; lower the frame rate or the images' \
         size"
    )]
    Behind {
        /// Its number in the open episode, from 0.
        frame: usize,
        /// Frames in the queue, which is full.
        waiting: usize,
    },
    /// The open episode's images could not all be kept: it cannot be saved.
    #[error("the open episode lost images ({0}); discard it and record it again")]
    EpisodeLost(String),
    /// The program that makes mp4 files is not there, or cannot make one. An open episode stays open.
    #[error("{program} makes no mp4: {problem}")]
    Encoder {
        /// The program's name or path.
        program: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The program that makes mp4 files has hung, and was ended. An open episode stays open.
    #[error("{program} makes no mp4: it did not end within {limit:?} and was ended")]
    EncoderHung {
        /// The program's name or path.
        program: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Called at the wrong time, for example a frame without an open episode.
    #[error("{0}")]
    State(&'static str),
    /// There is no such episode.
    #[error("there is no episode {episode}: the dataset has {total}, counted from 0")]
    NoSuchEpisode {
        /// The number asked for.
        episode: usize,
        /// How many there are.
        total: usize,
    },
}

impl RecorderError {
    /// For `map_err`: the failure of `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    /// For `map_err`: what the parquet crate says while it writes `path`.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(ParquetError) -> Self {
        move |error| match error {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(source) => Self::io("write", path)(*source),
                Err(other) => Self::damaged(path, format!("cannot be written: {other}")),
            },
            other => Self::damaged(path, format!("cannot be written: {other}")),
        }
    }

    /// For `map_err`: what the parquet crate says while it reads `path`.
    pub(crate) fn reading<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self {
        move |error| {
            Self::damaged(
                path,
                format!("no readable parquet file ({error}); copy it again, or restore it from a backup"),
            )
        }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}
