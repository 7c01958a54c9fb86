use std::io;
use std::path::{Path, PathBuf};

use skillweld_tensor::TensorError;

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
    /// The file system has no room (or the quota or file-size limit is reached).
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
    #[error("{} holds several {what}: {}. Name the file itself, or leave only one", dir.display(), candidates.join(", "))]
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

/// What is wrong with a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Fewer than the 8 bytes of the header's length.
    #[error("only {file_bytes} bytes long, so it has no safetensors header; fetch the file again")]
    TooShort {
        /// Length of the file.
        file_bytes: u64,
    },
    /// The header would reach past the end of the file.
    #[error(
        "the header claims {header_bytes} bytes but the file has {file_bytes}: truncated, or not a safetensors file; fetch it again"
    )]
    LongerThanFile {
        /// Length that the header claims.
        header_bytes: u64,
        /// Length of the file.
        file_bytes: u64,
    },
    /// The header is longer than the format allows.
    #[error(
        "the header claims {header_bytes} bytes, more than the format's limit of {limit_bytes}: not a safetensors file"
    )]
    HeaderTooLarge {
        /// Length that the header claims.
        header_bytes: u64,
        /// The format's limit.
        limit_bytes: u64,
    },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8 from byte {at_byte} on: not a safetensors file, or damaged")]
    NotUtf8 {
        /// First bad byte, counted from the start of the file.
        at_byte: usize,
    },
    /// The header is not the JSON that the format asks for.
    #[error("the header is not a table of tensors: {reason}")]
    NotJson {
        /// Position and reason.
        reason: String,
    },
    /// One name stands twice.
    #[error("tensor `{tensor}` stands twice in the header")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// A dtype that the format does not name.
    #[error("tensor `{tensor}` has the unknown dtype `{dtype}`")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The dtype as written.
        dtype: String,
    },
    /// The element count overflows.
    #[error("tensor `{tensor}` has shape {shape:?}, more elements than can be addressed")]
    ShapeOverflow {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Offsets do not hold exactly the elements of dtype and shape.
    #[error(
        "tensor `{tensor}` has offsets {begin}..{end}, but its dtype and shape need {expected_bytes} bytes"
    )]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// First byte, counted from the end of the header.
        begin: usize,
        /// Byte after the last.
        end: usize,
        /// Bytes that dtype and shape need.
        expected_bytes: usize,
    },
    /// Offsets reach past the end of the file.
    #[error(
        "tensor `{tensor}` has offsets {begin}..{end}, but only {data_bytes} bytes of data follow the header: truncated; fetch it again"
    )]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// First byte, counted from the end of the header.
        begin: usize,
        /// Byte after the last.
        end: usize,
        /// Bytes after the header.
        data_bytes: usize,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` (up to {first_end}) and `{second}` (from {second_begin}) overlap")]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// Byte after its last.
        first_end: usize,
        /// The other tensor.
        second: String,
        /// Its first byte.
        second_begin: usize,
    },
    /// Bytes that belong to no tensor.
    #[error("bytes {begin}..{end} of the data belong to no tensor")]
    Hole {
        /// First byte without an owner, counted from the end of the header.
        begin: usize,
        /// Byte after the last.
        end: usize,
    },
}

/// What is wrong with an index of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexProblem {
    /// A shard's name leads out of the directory.
    #[error("shard name `{shard}` is not a plain file name; an index may only name files beside itself")]
    UnsafeName {
        /// The name as written.
        shard: String,
    },
    /// A shard is not there.
    #[error("it names the shard `{shard}`, which is missing; fetch it into the same directory")]
    MissingShard {
        /// The shard's name.
        shard: String,
    },
    /// A key is not in the shard that should have it.
    #[error("it places `{key}` in `{shard}`, which lacks it; index and shards are of different checkpoints")]
    MissingKey {
        /// The key.
        key: String,
        /// The shard's name.
        shard: String,
    },
    /// A key lies in two shards.
    #[error("`{key}` lies in both `{first}` and `{second}`; remove the shard that does not belong")]
    KeyTwice {
        /// The key.
        key: String,
        /// One shard.
        first: String,
        /// The other shard.
        second: String,
    },
    /// The weight map is empty.
    #[error("its weight_map names no tensor")]
    Empty,
}

/// What is wrong with the zip archive of a PyTorch file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveProblem {
    /// Not a zip file at all.
    #[error("not a PyTorch checkpoint: it does not start as a zip file")]
    NotZip,
    /// Written by `torch.save` before PyTorch 1.6.
    #[error("written in PyTorch's format from before 1.6; load it with torch.load and save it again")]
    Legacy,
    /// The directory of the archive is missing or cut off.
    #[error("the zip directory is missing or damaged: the file is truncated; fetch it again")]
    Truncated,
    /// A member reaches past the end of the file.
    #[error("the member `{member}` is not where the zip directory says; fetch the file again")]
    OutOfRange {
        /// The member.
        member: String,
    },
    /// Two members of one name.
    #[error("the member `{member}` stands twice in the archive")]
    DuplicateMember {
        /// The member.
        member: String,
    },
    /// A compressed member: `torch.save` never writes one.
    #[error(
        "the member `{member}` is compressed, which torch.save never does; load and save it again with PyTorch"
    )]
    Compressed {
        /// The member.
        member: String,
    },
    /// An encrypted member.
    #[error("the member `{member}` is encrypted")]
    Encrypted {
        /// The member.
        member: String,
    },
    /// No `data.pkl`, or several.
    #[error("a PyTorch file has one data.pkl, this archive has {found}")]
    NoPickle {
        /// How many there are.
        found: usize,
    },
    /// Written on a big-endian machine.
    #[error("its tensors are big-endian; load and save it again on a little-endian machine")]
    BigEndian,
    /// `data.pkl` is absurdly long.
    #[error("its data.pkl has {pickle_bytes} bytes, more than the limit of {limit_bytes}")]
    PickleTooLarge {
        /// Length of `data.pkl`.
        pickle_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
}

/// What is wrong with the pickle of a PyTorch file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleProblem {
    /// An opcode that a file of tensors has no need of.
    #[error("refused: the pickle uses the opcode {name}, which a file of tensors does not need")]
    RefusedOpcode {
        /// Its name in Python's `pickletools`.
        name: &'static str,
    },
    /// A byte that is no opcode.
    #[error("damaged: {code:#04x} is not a pickle opcode")]
    UnknownOpcode {
        /// The byte.
        code: u8,
    },
    /// An import that a file of tensors has no need of.
    #[error(
        "refused: the pickle asks for `{name}`, which could run code or is no tensor; save a plain state dict \
         (torch.save(model.state_dict(), ...)) or safetensors"
    )]
    RefusedGlobal {
        /// Module and name.
        name: String,
    },
    /// The pickle ends too early.
    #[error("damaged: the pickle ends in the middle")]
    Truncated,
    /// The opcodes make no sense together.
    #[error("damaged or foreign: {reason}")]
    Malformed {
        /// Why.
        reason: &'static str,
    },
    /// More than an honest file needs.
    #[error("refused: {what}")]
    Limit {
        /// Of what there is too much.
        what: &'static str,
    },
    /// A tensor's storage is not in the archive.
    #[error("damaged: the storage `{member}` is not in the archive")]
    MissingStorage {
        /// The archive member.
        member: String,
    },
    /// A tensor reaches past the end of its storage.
    #[error("damaged: a tensor of shape {shape:?} reaches past the end of its storage `{member}`")]
    OutOfStorage {
        /// The archive member.
        member: String,
        /// The tensor's shape.
        shape: Vec<usize>,
    },
}

impl StoreError {
    /// For `map_err`: adds what was being done, and to which path.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source: source.into() }
    }

    /// As [`StoreError::io`] for writes: a full disk, quota or file-size limit gets its own variant.
    pub(crate) fn write<E: Into<io::Error>>(path: &Path, needed_bytes: u64) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| {
            let source = source.into();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    let free_bytes = free_bytes(&path);
                    Self::DiskFull { path, needed_bytes, free_bytes }
                }
                _ => Self::Io { operation: "write", path, source },
            }
        }
    }
}

/// Bytes that an ordinary user may still write on the file system of `path` or of its directory.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat =
        rustix::fs::statvfs(path).or_else(|_| rustix::fs::statvfs(path.parent().unwrap_or(path))).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
