use std::path::PathBuf;

use skillweld_gpu::GpuError;
use skillweld_linalg::LinalgError;
use skillweld_merged::MergedError;
use skillweld_router::{Decision, RuleError};
use skillweld_store::StoreError;

/// Why a policy cannot be opened or cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file of the checkpoint cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the checkpoint says something that contradicts the rest, or lacks something.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A product cannot be computed.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
    /// The GPU cannot compute something, or there is none.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The observation cannot be used.
    #[error("observation: {0}")]
    Observation(String),
    /// A task that the checkpoint does not have.
    #[error("there is no task `{name}`; {tasks}")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The tasks there are, and the nearest of them.
        tasks: String,
    },
    /// A merged checkpoint cannot be opened.
    #[error(transparent)]
    Merged(#[from] MergedError),
    /// The router cannot decide.
    #[error("router: {0}")]
    Router(#[from] RuleError),
    /// The router is not sure enough, and no fallback is named.
    #[error("the router is not sure of any task ({}); name a task, a fallback, or a lower threshold", named(.probabilities))]
    Abstained {
        /// Every candidate with its probability.
        probabilities: Vec<(String, f32)>,
        /// All that was seen, for logs.
        decision: Box<Decision>,
    },
}

fn named(probabilities: &[(String, f32)]) -> String {
    let one = |(task, probability): &(String, f32)| format!("{task} {:.0} %", 100.0 * probability);
    probabilities.iter().map(one).collect::<Vec<_>>().join(", ")
}
