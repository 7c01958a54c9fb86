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
