/// What cannot be simulated or asked for. Texts name the thing and the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// Two bodies of one name.
    #[error("two bodies are called {name}: give each its own name")]
    DuplicateBody {
        /// The name.
        name: String,
    },
    /// A size, a place or a limit that no thing can have.
    #[error("{what}: {problem}")]
    Invalid {
        /// The body, the camera or the joint.
        what: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// No body of that name, or no such index.
    #[error("there is no body {name}: the world has {known}")]
    NoBody {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}

impl SimError {
    pub(crate) fn invalid(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), problem: problem.into() }
    }
}
