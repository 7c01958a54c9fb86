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
        "the header claims {header_bytes} bytes, more than the format's limit of {limit_bytes}: not a safetensors file; \
         fetch it again"
    )]
    HeaderTooLarge {
        /// Length that the header claims.
        header_bytes: u64,
        /// The format's limit.
        limit_bytes: u64,
    },
    /// The header is not UTF-8.
    #[error(
        "the header is not UTF-8 from byte {at_byte} on: not a safetensors file, or damaged; fetch it again"
    )]
    NotUtf8 {
        /// First bad byte, counted from the start of the file.
        at_byte: usize,
    },
    /// The header is not the JSON that the format asks for.
    #[error("the header is not a table of tensors: {reason}; fetch the file again")]
    NotJson {
        /// Position and reason.
        reason: String,
    },
    /// One name stands twice.
    #[error("tensor `{tensor}` stands twice in the header; write the file again with each name once")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// A dtype that the format does not name.
    #[error(
        "tensor `{tensor}` has the unknown dtype `{dtype}`; save it in one that safetensors names, such as BF16 or F32"
    )]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The dtype as written.
        dtype: String,
    },
    /// The element count overflows.
    #[error(
        "tensor `{tensor}` has shape {shape:?}, more elements than can be addressed: damaged; fetch the file again"
    )]
    ShapeOverflow {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Offsets do not hold exactly the elements of dtype and shape.
    #[error(
        "tensor `{tensor}` has offsets {begin}..{end}, but its dtype and shape need {expected_bytes} bytes: \
         damaged, or written wrongly; fetch the file again, or save it again with the safetensors library"
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
    #[error(
        "tensors `{first}` (up to {first_end}) and `{second}` (from {second_begin}) overlap, which the format forbids; save \
         the file again with the safetensors library, each tensor with bytes of its own"
    )]
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
    #[error(
        "bytes {begin}..{end} of the data belong to no tensor, which the format forbids; fetch the file again, or save it \
         again with the safetensors library"
    )]
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
    #[error(
        "it places `{key}` in `{shard}`, which lacks it; index and shards are of different checkpoints: fetch both again"
    )]
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
    #[error("its weight_map names no tensor; fetch it again, or remove it if the weights lie in one file")]
    Empty,
}
