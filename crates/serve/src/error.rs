use std::io;
use std::net::SocketAddr;

use crate::codec::DecodeError;
use crate::observation::ObservationError;
use crate::policy::InferError;

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {address}: {source}; choose another port, or end what listens there")]
    Bind {
        /// Where it should listen.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// An API key that no header can carry.
    #[error("an API key is one or more visible ASCII characters without spaces")]
    ApiKey,
    /// Threads or sockets are not to be had.
    #[error("cannot start the server: {0}")]
    Start(#[from] io::Error),
    /// The policy does not run.
    #[error("the policy's warm-up failed: {0}")]
    WarmUp(InferError),
}

/// Why one request has no actions. The client gets the text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("a request is one binary message in msgpack, not text")]
    Text,
    #[error("the message is larger than {limit} bytes, which is this server's limit")]
    Oversized { limit: usize },
    #[error(transparent)]
    Observation(#[from] ObservationError),
    #[error("{0}")]
    Envelope(String),
    #[error("{0}")]
    UnknownKind(String),
    #[error("`get_action` without an observation: send `update_obs` before each, or the observation with it")]
    NothingKept,
    #[error("busy: {limit} requests wait for the policy; try again later")]
    Busy { limit: usize },
    #[error("busy: the last two requests of this connection are not answered yet; wait for replies")]
    Pipelined,
    #[error("{0}")]
    Policy(InferError),
    #[error("the policy answered what cannot be sent: {0}")]
    Reply(String),
    #[error("the server is stopping")]
    Stopping,
}

impl RequestError {
    /// An envelope asks for what there is not.
    pub(crate) fn unknown(what: &str, found: &str, known: &str) -> Self {
        let found: String = found.chars().take(80).collect();
        Self::UnknownKind(format!("unknown {what} `{found}`; this server knows {known}"))
    }

    /// For the metric `skillweld_errors_total`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Decode(_) | Self::Text | Self::Envelope(_) | Self::UnknownKind(_) => "malformed",
            Self::Oversized { .. } => "oversized",
            Self::Observation(_)
            | Self::NothingKept
            | Self::Policy(InferError::Observation(_) | InferError::Refused(_)) => "observation",
            Self::Policy(InferError::Abstained { .. }) => "abstained",
            Self::Busy { .. } | Self::Pipelined => "busy",
            Self::Policy(_) | Self::Reply(_) => "policy",
            Self::Stopping => "stopping",
        }
    }
}

/// Every value of [`RequestError::kind`].
pub(crate) const ERROR_KINDS: [&str; 7] =
    ["malformed", "oversized", "observation", "abstained", "busy", "policy", "stopping"];
