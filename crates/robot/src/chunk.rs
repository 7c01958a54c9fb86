use crate::{Observation, Unit};

/// Whatever turns an observation into a chunk of actions: a policy in this process, or a server. Runs on a thread of its own.
pub trait ChunkSource: Send {
    /// What it wants and gives. The same throughout.
    fn expects(&self) -> Expectation;

    /// Forgets what happened so far: a new episode starts.
    fn start_episode(&mut self);

    /// Actions for one observation. Blocks for as long as it takes; nothing moves on account of that.
    ///
    /// # Errors
    /// [`ChunkError`], after which it may be asked again.
    fn infer(&mut self, request: &ChunkRequest) -> Result<Chunk, ChunkError>;
}

/// What a policy wants and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Numbers of one action, D.
    pub action_dim: usize,
    /// What an action says.
    pub space: ActionSpace,
    /// The D numbers' names if the policy knows them, `shoulder_pan` or `shoulder_pan.pos`.
    pub names: Option<Vec<String>>,
    /// The D numbers' units if the policy knows them.
    pub units: Option<Vec<Unit>>,
    /// Length of the state, if the policy wants one.
    pub state_dim: Option<usize>,
    /// How many images it wants; the robot's first so many cameras are taken.
    pub images: usize,
    /// Actions of one chunk, H; at least 1.
    pub horizon: usize,
    /// Whether it wants an instruction.
    pub needs_instruction: bool,
}

/// What the numbers of an action say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionSpace {
    /// Where each joint is to be.
    Positions,
    /// How far each joint is to move from where it is.
    Deltas,
    /// Where the hand is to be, or how far it is to move.
    EndEffector,
}

/// What a policy is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkRequest {
    /// What the robot sees and feels.
    pub observation: Observation,
    /// What it is told to do, and how tasks are chosen.
    pub prompt: Prompt,
    /// Control steps that will probably have been carried out when the answer comes; openpi's `inference_delay`.
    pub inference_delay: usize,
    /// Actions that are still queued, R × D with R ≤ H, the next one first; openpi's `prev_chunk_left_over`. Empty if none.
    pub left_over: Vec<Vec<f64>>,
}

/// What a policy is told to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The instruction, in words.
    pub instruction: Option<String>,
    /// The task to run, by name, instead of routing.
    pub task: Option<String>,
}

/// Actions for the next control steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// At least one action, D numbers each, in the robot's units. The first belongs to the moment of the observation.
    pub actions: Vec<Vec<f64>>,
    /// Which task gave them; none from a policy without tasks.
    pub routing: Option<Routing>,
}

/// Which task of a merged policy ran, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The task's name.
    pub task: String,
    /// Why this one, in a word: `routed`, `requested`, `fixed` …
    pub reason: String,
    /// Probability of the best task less that of the second, 0 … 1; none where no router was asked.
    pub margin: Option<f64>,
}

/// Why there are no actions.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// No action at all.
    #[error("the policy answered with a chunk of no actions")]
    Empty,
    /// An action of the wrong length.
    #[error("action {row} of the policy's chunk has {found} numbers, the policy announced {expected}")]
    Length {
        /// Which action, from 0.
        row: usize,
        /// Its length.
        found: usize,
        /// D.
        expected: usize,
    },
    /// NaN or infinity.
    #[error("action {row} of the policy's chunk is {value} for {name}: the chunk is not used")]
    NotFinite {
        /// Which action, from 0.
        row: usize,
        /// The number's name, or its index.
        name: String,
        /// NaN, inf or −inf.
        value: f64,
    },
    /// The policy refused, failed or could not be reached.
    #[error("{0}")]
    Failed(String),
    /// The answer is to an observation of too long ago: by now there may be something else to do.
    #[error("the policy's answer is to what was seen {:.1} s ago: it is not used", .age.as_secs_f64())]
    Late {
        /// How old the observation was when the answer came.
        age: std::time::Duration,
    },
    /// The thread that runs the policy has ended by a panic: there will be no more chunks.
    #[error("the policy's thread has ended by a panic: restart, and report what it printed")]
    Ended,
}

impl Chunk {
    /// Checks rows, lengths and numbers, before anything uses them.
    ///
    /// # Errors
    /// [`ChunkError::Empty`], [`ChunkError::Length`] or [`ChunkError::NotFinite`].
    pub(crate) fn check(&self, expectation: &Expectation) -> Result<(), ChunkError> {
        if self.actions.is_empty() {
            return Err(ChunkError::Empty);
        }
        for (row, action) in self.actions.iter().enumerate() {
            if action.len() != expectation.action_dim {
                return Err(ChunkError::Length {
                    row,
                    found: action.len(),
                    expected: expectation.action_dim,
                });
            }
            if let Some(index) = action.iter().position(|number| !number.is_finite()) {
                let name = expectation.names.as_ref().and_then(|names| names.get(index)).cloned();
                let name = name.unwrap_or_else(|| format!("number {index}"));
                return Err(ChunkError::NotFinite { row, name, value: action[index] });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_joints() -> Expectation {
        Expectation {
            action_dim: 2,
            space: ActionSpace::Positions,
            names: Some(vec!["pan".to_owned(), "lift".to_owned()]),
            units: None,
            state_dim: None,
            images: 0,
            horizon: 3,
            needs_instruction: false,
        }
    }

    #[test]
    fn bad_chunks_are_refused_by_name() {
        let check = |actions: Vec<Vec<f64>>| Chunk { actions, routing: None }.check(&two_joints());
        assert_eq!(check(vec![vec![1.0, 2.0]; 3]), Ok(()));
        assert_eq!(check(Vec::new()), Err(ChunkError::Empty));
        let short = ChunkError::Length { row: 1, found: 1, expected: 2 };
        assert_eq!(check(vec![vec![1.0, 2.0], vec![1.0]]), Err(short));
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = check(vec![vec![1.0, 2.0], vec![1.0, bad]]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("action 1 of the policy's chunk is {bad} for lift: the chunk is not used")
            );
        }
    }

    #[test]
    fn numbers_without_names_have_an_index() {
        let chunk = Chunk { actions: vec![vec![f64::NAN, 0.0]], routing: None };
        let error = chunk.check(&Expectation { names: None, ..two_joints() }).unwrap_err();
        assert!(error.to_string().contains("number 0"), "{error}");
    }
}
