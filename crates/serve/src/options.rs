use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::codec::DecodeLimits;
use crate::decision::Decision;

/// How a server behaves.
#[derive(Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one. Loopback unless told otherwise.
    pub address: SocketAddr,
    /// Where GR00T's clients are listened to, over ZeroMQ; nowhere unless told. Port 0 takes a free one.
    #[cfg(feature = "zmq")]
    pub zmq_address: Option<SocketAddr>,
    /// If given, clients send `Authorization: Api-Key KEY` (or `Bearer KEY`), except for `/healthz`; GR00T's send it as
    /// `api_token` with each request, so that whoever reaches that port takes one of [`Limits::clients`] without it.
    pub api_key: Option<String>,
    /// What is refused for its size or number.
    pub limits: Limits,
    /// How often clients are pinged.
    pub ping_interval: Duration,
    /// How long a client may neither answer a ping nor take what it is sent.
    pub ping_timeout: Duration,
    /// How long a running inference may take to end when the server stops.
    pub shutdown_grace: Duration,
    /// Hears what happens; called on the server's threads, so it must not wait.
    pub on_event: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            #[cfg(feature = "zmq")]
            zmq_address: None,
            api_key: None,
            limits: Limits::default(),
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(30),
            on_event: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("Options")
            .field("address", &self.address)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What is refused for its size or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message. One client can make the server hold five times as many: a message that runs (or is kept for the
    /// next question) and its images converted, one sent ahead, and one on its way in pieces, the next piece beside those before it. In all, memory for
    /// messages is at most 5 · `clients` · `frame_bytes`: 20 GiB with the defaults, should every client be hostile; a
    /// LIBERO client's share is 1 MB.
    pub frame_bytes: usize,
    /// What one message may hold.
    pub decode: DecodeLimits,
    /// Rows and columns of an image. A policy resizes every image, and what that takes depends on its sides.
    pub image_side: usize,
    /// Rows times columns of an image.
    pub image_pixels: usize,
    /// Bytes of an instruction. How many tokens fit is the policy's to say.
    pub prompt_bytes: usize,
    /// Requests that wait for the policy, at most one of each client. One more is answered with an error that says "busy".
    pub queue: usize,
    /// Clients at once. One more gets HTTP status 503.
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 32 << 20,
            decode: DecodeLimits::default(),
            image_side: 4096,
            // A 4K camera's 3840 × 2160 are a little less.
            image_pixels: 8 << 20,
            prompt_bytes: 2 << 10,
            queue: 128,
            clients: 128,
        }
    }
}

/// Number of a connection, counted from 1.
pub type Client = u64;

/// What happened, for a log. `Display` makes a line of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The policy is warm; requests are answered from now on.
    Ready {
        /// What warming up took.
        warm_up_s: f64,
    },
    /// A client is there.
    Connected {
        /// Which.
        client: Client,
        /// From where.
        peer: SocketAddr,
    },
    /// A task was decided on. Told on the policy's thread, in the order in which it ran.
    Decided(Decision),
    /// A request was answered with an error.
    Failed {
        /// Whose.
        client: Client,
        /// What the client was told.
        message: String,
    },
    /// A client is gone.
    Disconnected {
        /// Which.
        client: Client,
        /// Why.
        reason: String,
        /// Requests that were answered with actions.
        answered: u64,
    },
    /// The server ends what it runs and stops.
    Stopping,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { warm_up_s } => write!(f, "ready (warm-up took {warm_up_s:.2} s)"),
            Self::Connected { client, peer } => write!(f, "client {client}: connected from {peer}"),
            Self::Decided(decision) => decision.fmt(f),
            Self::Failed { client, message } => write!(f, "client {client}: error: {message}"),
            Self::Disconnected { client, reason, answered } => {
                write!(f, "client {client}: gone after {answered} answers: {reason}")
            }
            Self::Stopping => write!(f, "stopping"),
        }
    }
}
