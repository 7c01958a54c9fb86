use std::path::PathBuf;

use skillweld_merge::MergeError;
use skillweld_merge::recipe::RecipeError;
use skillweld_merged::MergedError;
use skillweld_store::StoreError;

/// Why a step was not made. Inputs, earlier outputs and states are untouched whatever it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetainError {
    /// The merge was refused or failed.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A file was.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// α outside its range.
    #[error(
        "α of {name} is {value}, but goes from 0 to 1: 0 keeps the pretrained weights, 1 takes the finetuned ones"
    )]
    Alpha {
        /// The modality.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A density that is missing, of no use or out of range.
    #[error("the density of `{method}`{} {problem}", density.map(|d| format!(" ({d})")).unwrap_or_default())]
    Density {
        /// The method.
        method: &'static str,
        /// What was given.
        density: Option<f64>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path that recipes cannot hold.
    #[error("{} is not UTF-8; rename it", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// One policy is given twice.
    #[error("{} is both the pretrained and the finetuned policy; name two", path.display())]
    SameModel {
        /// The policy.
        path: PathBuf,
    },
    /// Normalisation statistics differ.
    #[error(
        "the normalisation statistics differ: {field} is {base} in the base and {finetuned} in the finetuned policy. A policy \
         has one set of them; say which to keep with `--statistics base` or `--statistics finetuned` (that of the robot and \
         data it will run on)"
    )]
    StatisticsDiffer {
        /// File and field of the first difference.
        field: String,
        /// Its value in the pretrained policy.
        base: String,
        /// Its value in the finetuned policy.
        finetuned: String,
    },
    /// Statistics are to be kept that are not there.
    #[error("`--statistics {asked}`: {} has no normalisation statistics; leave the option out, or name the other", path.display())]
    NoStatistics {
        /// What was asked for.
        asked: &'static str,
        /// The policy that has none.
        path: PathBuf,
    },
    /// The finetuned policy lacks tensors.
    #[error("{} lacks {count} of the base's tensors, first `{first}`; interpolation needs both sides of each", path.display())]
    Missing {
        /// The finetuned policy.
        path: PathBuf,
        /// The first missing key.
        first: String,
        /// How many are missing.
        count: usize,
    },
    /// Not a state.
    #[error("{} is no state of skills: {problem}", path.display())]
    NotAState {
        /// The folder.
        path: PathBuf,
        /// Why, and the remedy.
        problem: String,
    },
    /// A ledger of another version.
    #[error("{}: format_version is {found}, this Skillweld reads {expected}; {remedy}", path.display())]
    Version {
        /// The ledger.
        path: PathBuf,
        /// Its version.
        found: String,
        /// Ours.
        expected: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// Somebody else is at it.
    #[error("{} is being changed by another process; wait until it has finished", path.display())]
    Busy {
        /// The state.
        path: PathBuf,
    },
    /// A path that does not fit its purpose.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// An input of a chain is no longer what it was.
    #[error(
        "{} of {whose} ({}) has changed since it was used: the ledger has {:.12}…, there is {:.12}…. Put the original back; \
         nothing was written",
        change.part,
        path.display(),
        change.expected,
        change.found
    )]
    InputChanged {
        /// The base or a skill.
        whose: String,
        /// Where it lies.
        path: PathBuf,
        /// In what it differs.
        change: Box<Change>,
    },
    /// A step gives something else than it gave.
    #[error(
        "{} after skill {skill} came out as {:.12}…, not {:.12}… as the ledger has it, from unchanged inputs: another version \
         of Skillweld or of its plugins made it",
        change.part,
        change.found,
        change.expected
    )]
    ResultChanged {
        /// The skill.
        skill: String,
        /// In what it differs.
        change: Box<Change>,
    },
    /// A step of a chain failed.
    #[error("skill {skill}: {source}")]
    Step {
        /// The skill.
        skill: String,
        /// What went wrong.
        source: Box<RetainError>,
    },
}

/// A part of a policy that is not what the ledger says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Weights, action head, statistics, …: a key of [`Contents`](crate::Contents).
    pub part: String,
    /// BLAKE3 in the ledger; `nothing` where it has none.
    pub expected: String,
    /// BLAKE3 now.
    pub found: String,
}

impl From<RecipeError> for RetainError {
    fn from(error: RecipeError) -> Self {
        Self::Merge(error.into())
    }
}

impl From<MergedError> for RetainError {
    fn from(error: MergedError) -> Self {
        Self::Merge(error.into())
    }
}
