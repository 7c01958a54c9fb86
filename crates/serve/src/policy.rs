use bytes::Bytes;

use crate::decision::{Routing, Scores};
use crate::observation::ObservationError;
use crate::{Array, Value};

/// What stands behind the server. One thread calls [`warm_up`](Self::warm_up), [`reset`](Self::reset) and
/// [`infer`](Self::infer); the rest is called from any.
pub trait Policy: Send + Sync + 'static {
    /// What is kept between the requests of one connection: the routed task, for example.
    type Session: Send + 'static;

    /// What the policy wants and gives. Sent to every client, and what observations are checked against.
    fn metadata(&self) -> Metadata;

    /// What a new connection starts with.
    fn session(&self) -> Self::Session;

    /// Forgets what happened so far: a new episode starts.
    fn reset(&self, session: &mut Self::Session) {
        *session = self.session();
    }

    /// Actions for one observation.
    ///
    /// # Errors
    /// [`InferError`], whose text is sent to the client.
    fn infer(&self, session: &mut Self::Session, observation: Observation) -> Result<Reply, InferError>;

    /// Whatever makes the first inference as fast as the others. The server is not ready before it has returned.
    ///
    /// # Errors
    /// [`InferError`], which ends the server.
    fn warm_up(&self) -> Result<(), InferError> {
        Ok(())
    }

    /// Memory taken on an accelerator, for `/metrics`; none without one.
    fn device_memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// What a policy wants and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// Name of the checkpoint or policy.
    pub name: String,
    /// How many images an observation needs; the first so many of a client's cameras are taken.
    pub images: usize,
    /// Length of the state, if one is needed.
    pub state_dim: Option<usize>,
    /// Actions of one chunk, H.
    pub action_horizon: usize,
    /// Numbers of one action, D.
    pub action_dim: usize,
    /// Tasks that a client may ask for by name.
    pub tasks: Vec<String>,
    /// Whether an observation needs an instruction.
    pub prompt: bool,
    /// What else clients are told.
    pub extra: Vec<(String, Value)>,
}

/// What the robot saw, after [the table of key sets](crate::KEY_SETS) and [`Metadata`] have been applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// As many as the policy wants, in the key set's order.
    pub images: Vec<Image>,
    /// The robot's state; empty for a policy without.
    pub state: Vec<f32>,
    /// The instruction; empty for a policy without.
    pub prompt: String,
    /// The task to use instead of routing; one of [`Metadata::tasks`].
    pub task: Option<String>,
    /// Control steps that will have passed when the actions arrive, for asynchronous chunking.
    pub inference_delay: Option<usize>,
    /// Actions of the last chunk that the robot has not carried out, R × D, for asynchronous chunking.
    pub prev_chunk_left_over: Option<Array>,
    /// All other keys, as they came.
    pub extra: Vec<(String, Value)>,
}

/// An image, 8-bit RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The key that it came under.
    pub name: String,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// height × width × 3 bytes; the received frame's memory, unless the image had to be converted.
    pub rgb: Bytes,
}

/// What a policy answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// H × D, f32: one action a row.
    pub actions: Array,
    /// More arrays by name; each has H as its first dimension, because clients slice every array.
    pub extra: Vec<(String, Array)>,
    /// Which task ran, and why; none from a policy that has no tasks.
    pub routing: Option<Routing>,
    /// Milliseconds by stage. The server adds `infer_ms` unless it is there.
    pub timing_ms: Vec<(String, f64)>,
}

/// Why there are no actions.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The observation is at fault.
    #[error(transparent)]
    Observation(#[from] ObservationError),
    /// The observation is at fault, in a way that only the policy knows of: a prompt of too many tokens, for example.
    #[error("{0}")]
    Refused(String),
    /// The router is not sure enough of any task. The session takes the next observation as if this one had not been.
    #[error("{message}")]
    Abstained {
        /// What the client is told.
        message: String,
        /// What there was to choose from.
        scores: Scores,
    },
    /// The policy is at fault.
    #[error("inference failed: {0}")]
    Failed(String),
}
