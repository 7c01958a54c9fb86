mod adapter;
mod pytorch;
mod safetensors;

use std::io;
use std::path::{Path, PathBuf};

use skillweld_tensor::TensorError;

pub use adapter::AdapterProblem;
pub use pytorch::{ArchiveProblem, PickleProblem};
pub use safetensors::{HeaderProblem, IndexProblem};

/// What can go wrong with a checkpoint on disk. Every variant names the file, and the remedy where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file may not become so large.
    #[error(
        "{} would become larger than files may be here ({needed_bytes} bytes needed). Raise the limit (`ulimit -f`) or \
         write to another disk; nothing was replaced",
        path.display()
    )]
    FileTooLarge {
        /// The file being written.
        path: PathBuf,
        /// Bytes that the write or the whole layout needs.
        needed_bytes: u64,
    },
    /// The file system has no room (or the quota is reached).
    #[error(
        "no space left for {}: {needed_bytes} bytes needed{}. Free some space or write to another disk; nothing was replaced",
        path.display(),
        free_bytes.map(|free| format!(", {free} bytes free")).unwrap_or_default()
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes that the write or the whole layout needs.
        needed_bytes: u64,
        /// Bytes free on that file system, if known.
        free_bytes: Option<u64>,
    },
    /// An adapter without the file that gives its rank and scale.
    #[error(
        "{} holds an adapter's weights but no adapter_config.json, which says its rank and scale; copy it from where the \
         adapter was trained",
        dir.display()
    )]
    NoAdapterConfig {
        /// The adapter's directory.
        dir: PathBuf,
    },
    /// A directory holds no weights that this crate reads.
    #[error(
        "{} holds no weights: expected model.safetensors, model.safetensors.index.json, pytorch_model.bin, \
         pytorch_model.bin.index.json or one other .safetensors, .bin, .pt or .pth file",
        dir.display()
    )]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory holds only a PEFT adapter, not a model.
    #[error("{} is a PEFT adapter, not a whole model: name it together with its base, as BASE+{}", dir.display(), dir.display())]
    OnlyAdapter {
        /// The directory.
        dir: PathBuf,
    },
    /// More than one file could be meant.
    #[error("{} holds several files that could be its {what}: {}. {}", dir.display(), candidates.join(", "), choose(what))]
    Ambiguous {
        /// The directory.
        dir: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// File names that match.
        candidates: Vec<String>,
    },
    /// The file is of no kind that this crate reads.
    #[error("{} is not a checkpoint: expected .safetensors, .index.json, .bin, .pt or .pth", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A safetensors file is malformed.
    #[error("{}: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: HeaderProblem,
    },
    /// A `*.index.json` file does not fit its shards.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        problem: IndexProblem,
    },
    /// A PyTorch file is not the zip archive that it should be.
    #[error("{}: {problem}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ArchiveProblem,
    },
    /// The pickle in a PyTorch file is damaged, or does what a file of tensors has no need to do.
    #[error("{}: {problem} (byte {at_byte} of its data.pkl)", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where in `data.pkl`.
        at_byte: usize,
        /// What is wrong with it.
        problem: PickleProblem,
    },
    /// A PyTorch file holds no tensor by name.
    #[error("{} holds {found}, but no tensors by name: not a checkpoint", path.display())]
    NoTensors {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        found: &'static str,
    },
    /// A PEFT adapter cannot be used.
    #[error("adapter {}: {problem}", dir.display())]
    Adapter {
        /// The adapter's directory.
        dir: PathBuf,
        /// What is wrong with it.
        problem: AdapterProblem,
    },
    /// Two stored names become one key once `module.` and `._orig_mod` are stripped.
    #[error("{}: `{first}` and `{second}` both become `{key}` once wrapper names are stripped; remove one of them", path.display())]
    KeyCollision {
        /// The checkpoint.
        path: PathBuf,
        /// The common key.
        key: String,
        /// One stored name.
        first: String,
        /// The other stored name.
        second: String,
    },
    /// A JSON file beside the weights cannot be understood.
    #[error("{}: not valid JSON for this use: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        source: serde_json::Error,
    },
    /// A tensor's bytes, dtype and shape do not fit one another.
    #[error("{}: tensor `{tensor}`: {source}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What does not fit.
        source: TensorError,
    },
    /// The output exists and may not be replaced.
    #[error("{} already exists; choose another name, or pass --force to replace it once the new output is complete", path.display())]
    OutputExists {
        /// The output directory.
        path: PathBuf,
    },
    /// The output path is something that is never replaced, forced or not.
    #[error("{} cannot be an output directory: {reason}", path.display())]
    BadOutput {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The layout given to a writer is impossible.
    #[error("cannot lay out {}: tensor `{tensor}` {reason}", path.display())]
    Layout {
        /// The file or directory to be written.
        path: PathBuf,
        /// The offending tensor.
        tensor: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A writer was finished before every byte of a tensor was written.
    #[error("{}: tensor `{tensor}` got {written_bytes} of {expected_bytes} bytes before the file was finished", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes written.
        written_bytes: u64,
        /// Bytes promised by the layout.
        expected_bytes: u64,
    },
}

impl StoreError {
    /// For `map_err`: adds what was being done, and to which path.
    pub fn io<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source: source.into() }
    }

    /// As [`StoreError::io`] for writes: a full disk or quota and a limit on file sizes get variants of their own.
    pub fn write<E: Into<io::Error>>(path: &Path, needed_bytes: u64) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| {
            let source = source.into();
            let free_bytes = free_bytes(&path);
            match source.kind() {
                // What the disk has no room for needs no higher limit.
                io::ErrorKind::FileTooLarge if free_bytes.is_none_or(|free| free >= needed_bytes) => {
                    Self::FileTooLarge { path, needed_bytes }
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Self::DiskFull { path, needed_bytes, free_bytes }
                }
                _ => Self::Io { operation: "write", path, source },
            }
        }
    }
}

/// How to say which of several files is meant: a model's weights may be named, the files beside them are looked for.
fn choose(what: &str) -> String {
    if crate::locate::SIDE_PARTS.contains(&what) {
        format!("Move all but one elsewhere: a folder's {what} is found by its name")
    } else {
        "Name the file itself, or leave only one".to_owned()
    }
}

/// Bytes that an ordinary user may still write on the file system of `path` or of its directory.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat =
        rustix::fs::statvfs(path).or_else(|_| rustix::fs::statvfs(path.parent().unwrap_or(path))).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
