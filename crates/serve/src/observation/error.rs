use crate::value::Value;

/// What is wrong with an observation, by key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObservationError {
    /// The request is a list, a number, …
    #[error("an observation is a map, not {found}")]
    NoMap {
        /// What it is.
        found: String,
    },
    /// None of the known keys is there.
    #[error("no known key among {found:?}; an observation has the keys of one of these sets: {sets}")]
    NoKeySet {
        /// Keys that are there, the first few.
        found: Vec<String>,
        /// The known sets.
        sets: String,
    },
    /// One key is not there.
    #[error("missing key `{key}`: {expected}")]
    MissingKey {
        /// Which.
        key: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The policy wants more images than the set of keys has.
    #[error("the policy wants {wanted} images; {set} observations have {offered}")]
    Images {
        /// Name of the set.
        set: &'static str,
        /// How many the policy wants.
        wanted: usize,
        /// How many the set has.
        offered: usize,
    },
    /// A value is of the wrong kind, rank, shape or dtype.
    #[error("`{key}` has to be {expected}; it is {found}")]
    Kind {
        /// Where.
        key: String,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The state has too many or too few numbers.
    #[error("the state ({keys}) has {found} numbers; the policy wants {expected}")]
    StateLength {
        /// Where it comes from.
        keys: String,
        /// How long it has to be.
        expected: usize,
        /// How long it is.
        found: usize,
    },
    /// The policy's actions do not fall into the parts that the protocol answers in.
    #[error(
        "the policy's actions have {dim} numbers; {set} actions ({parts}) have {found}: it is of another robot"
    )]
    ActionLength {
        /// Name of the set.
        set: &'static str,
        /// The parts, and how many numbers each has.
        parts: String,
        /// How many they have in all.
        found: usize,
        /// How many the policy's have.
        dim: usize,
    },
    /// NaN or infinity.
    #[error("`{key}` holds NaN or infinity, first at element {index}")]
    NotFinite {
        /// Where.
        key: String,
        /// Index in the flattened array.
        index: usize,
    },
    /// A float image with values outside 0 … 1.
    #[error(
        "`{key}` holds {value} at element {index}; floating-point images range from 0 to 1, others are uint8"
    )]
    ImageRange {
        /// Where.
        key: String,
        /// Index in the flattened array.
        index: usize,
        /// What is there.
        value: String,
    },
    /// An image whose sides no camera has.
    #[error(
        "`{key}` is {height} × {width} pixels; at most {side} a side and {pixels} in all are taken: resize it"
    )]
    ImageSize {
        /// Where.
        key: String,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The most rows, and the most columns.
        side: usize,
        /// The most pixels.
        pixels: usize,
    },
    /// An instruction of nothing.
    #[error("`{key}` is empty; it has to say what to do")]
    EmptyPrompt {
        /// Where.
        key: String,
    },
    /// An instruction that is too long.
    #[error("`{key}` has {bytes} bytes; at most {limit} are taken: say it in a sentence")]
    LongPrompt {
        /// Where.
        key: String,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A task that the policy does not know.
    #[error("unknown task `{task}`; this policy knows {}", names(.known))]
    UnknownTask {
        /// What was asked for.
        task: String,
        /// What there is.
        known: Vec<String>,
    },
}

impl ObservationError {
    pub(crate) fn kind(key: &str, expected: &str, found: &Value) -> Self {
        Self::Kind { key: key.into(), expected: expected.into(), found: found.describe() }
    }
}

fn names(tasks: &[String]) -> String {
    if tasks.is_empty() { "no tasks by name".into() } else { tasks.join(", ") }
}
