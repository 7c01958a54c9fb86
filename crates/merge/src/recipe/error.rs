//! What can be wrong with a recipe, said so that its author can mend it.

use std::fmt;
use std::path::PathBuf;

use skillweld_spelling::nearest;

/// Where in a recipe something stands: the path of fields and, when known, the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Such as `models[1].parameters`; empty at the top level.
    pub path: String,
    /// Counted from 1; 0 = unknown.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.path.is_empty() { "the recipe" } else { &self.path })?;
        if self.line > 0 { write!(f, " (line {})", self.line) } else { Ok(()) }
    }
}

/// The words that would have been right in place of an unknown one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The one that was probably meant.
    pub nearest: Option<String>,
    /// All of them.
    pub all: Vec<String>,
}

impl Allowed {
    pub(crate) fn instead_of<'k>(name: &str, all: impl Iterator<Item = &'k str> + Clone) -> Box<Allowed> {
        Box::new(Allowed {
            nearest: nearest(name, all.clone()).map(str::to_owned),
            all: all.map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.nearest {
            Some(right) => write!(f, "did you mean `{right}`?"),
            None if self.all.is_empty() => f.write_str("nothing is allowed here"),
            None => write!(f, "allowed are {}", self.all.join(", ")),
        }
    }
}

/// Why a recipe was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file could not be read.
    #[error("cannot read the recipe {}: {source}", path.display())]
    Read {
        /// The recipe's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not text.
    #[error("the recipe {} is not UTF-8 text (byte {offset}); save it as UTF-8", path.display())]
    NotUtf8 {
        /// The recipe's file.
        path: PathBuf,
        /// First offending byte.
        offset: usize,
    },
    /// More text than any recipe needs.
    #[error("the recipe has more than {limit_bytes} bytes: is this the right file?")]
    TooLarge {
        /// What is allowed.
        limit_bytes: usize,
    },
    /// Several recipes where one is wanted.
    #[error(
        "the file holds {count} recipes; `skillweld merge` without `--set` takes several, all else takes one: write it into a file of its own"
    )]
    Several {
        /// How many.
        count: usize,
    },
    /// Not YAML, or YAML nested, aliased or repeated beyond the limits.
    #[error("the recipe is not usable YAML: {message}")]
    Yaml {
        /// The parser's words, with the line.
        message: String,
    },
    /// A field that recipes do not have.
    #[error("unknown field `{name}` in {place}; {allowed}")]
    UnknownField {
        /// The mapping that holds it, and the field's line.
        place: Place,
        /// The field as written.
        name: String,
        /// What is allowed there.
        allowed: Box<Allowed>,
    },
    /// A parameter that the method does not have.
    #[error("unknown parameter `{name}` of `{method}` in {place}; {allowed}")]
    UnknownParameter {
        /// The mapping that holds it, and the parameter's line.
        place: Place,
        /// The parameter as written.
        name: String,
        /// The merge or mask method.
        method: String,
        /// The parameters of that method.
        allowed: Box<Allowed>,
    },
    /// A value for a task that the recipe does not have.
    #[error("{place}: no task is called `{name}`; {allowed}")]
    UnknownTask {
        /// The value's place.
        place: Place,
        /// The task as written.
        name: String,
        /// The recipe's tasks.
        allowed: Box<Allowed>,
    },
    /// A parameter of the whole merge was set for one model or task.
    #[error(
        "`{name}` of `{method}` applies to the whole merge, but {place} sets it for one model; \
         give it one value, in the top-level `parameters`, a slice's or `mask`"
    )]
    NotPerModel {
        /// The parameter's place.
        place: Place,
        /// The parameter.
        name: String,
        /// The merge or mask method.
        method: String,
    },
    /// A field that must be there is not.
    #[error("{place} lacks `{field}`: {remedy}")]
    Missing {
        /// The mapping that should hold it.
        place: Place,
        /// The field.
        field: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// A value of another type than its field takes.
    #[error("{place} must be {expected}, not {found}")]
    WrongType {
        /// The value's place.
        place: Place,
        /// What the field takes.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A value of the right type that makes no sense.
    #[error("{place} is {found}, but must be {expected}")]
    OutOfRange {
        /// The value's place.
        place: Place,
        /// What the field takes.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Something mergekit has and Skillweld does not.
    #[error("{place}: {what} is not supported; {remedy}")]
    Unsupported {
        /// The field's place.
        place: Place,
        /// Field or value.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Vocabularies that would have to be joined.
    #[error(
        "{place}: the vocabularies of {first} and {other} differ, and embeddings are never resized; {remedy}"
    )]
    Vocabularies {
        /// Where it is asked for.
        place: Place,
        /// A model.
        first: String,
        /// One with another vocabulary.
        other: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Fields that contradict one another.
    #[error("{place}: {problem}")]
    Conflict {
        /// The place of the second of them.
        place: Place,
        /// What contradicts what, and the remedy.
        problem: String,
    },
    /// A task name that cannot be part of file and tensor names.
    #[error("{place}: task name {name:?} {reason}; write another `name:`")]
    TaskName {
        /// The name's place.
        place: Place,
        /// The name as written.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A recipe's name that cannot be a folder's.
    #[error(
        "{place}: the recipe's name {name:?} {reason}; its result lies in a folder of that name, so write another `name:`"
    )]
    StageName {
        /// The name's place.
        place: Place,
        /// The name as written.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A model that is not on this machine.
    #[error("{place}: `{path}` is not a local path (looked for {}); {remedy}", tried_list(tried))]
    NotLocal {
        /// The model's place.
        place: Place,
        /// The path as written.
        path: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
        /// How to get it.
        remedy: String,
    },
}

fn tried_list(tried: &[PathBuf]) -> String {
    tried.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" and ")
}
