use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::codec::encode;
use crate::error::RequestError;
use crate::metrics::Metrics;
use crate::options::{Event, Options};
use crate::policy::{InferError, Metadata, Observation, Policy};
use crate::protocol::{self, Answer};
use crate::queue::{Abandoned, Queue};
use crate::worker::Episode;

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The policy warms up; clients may connect and wait.
    Warming,
    /// Requests are answered.
    Ready,
    /// What runs is finished, nothing else begins.
    Stopping,
}

/// What all threads of a server know.
pub(crate) struct Shared<P: Policy> {
    pub(crate) policy: P,
    pub(crate) metadata: Metadata,
    /// The metadata as every client gets it.
    pub(crate) greeting: Bytes,
    pub(crate) options: Options,
    pub(crate) queue: Queue<Job<P::Session>>,
    pub(crate) metrics: Metrics,
    pub(crate) phase: Arc<watch::Sender<Phase>>,
    pub(crate) warm_up_failed: Mutex<Option<InferError>>,
    pub(crate) last_client: AtomicU64,
}

impl<P: Policy> Shared<P> {
    pub(crate) fn new(policy: P, options: Options) -> Self {
        let metadata = policy.metadata();
        Self {
            greeting: encode(&protocol::metadata(&metadata)).into(),
            metadata,
            queue: Queue::new(options.limits.queue),
            metrics: Metrics::default(),
            phase: Arc::new(watch::Sender::new(Phase::Warming)),
            warm_up_failed: Mutex::new(None),
            last_client: AtomicU64::new(0),
            policy,
            options,
        }
    }

    pub(crate) fn tell(&self, event: &Event) {
        // Whoever keeps the log may fail, and even panic: a log must not stop a robot.
        drop(catch_unwind(AssertUnwindSafe(|| (self.options.on_event)(event))));
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// Phases follow one another and never come back.
pub(crate) fn advance(phase: &watch::Sender<Phase>, to: Phase) -> bool {
    phase.send_if_modified(|now| {
        let earlier = *now < to;
        *now = to.max(*now);
        earlier
    })
}

/// One request on its way to the policy.
pub(crate) struct Job<S> {
    /// Of the connection; locked only while its request runs.
    pub(crate) episode: Arc<Mutex<Episode<S>>>,
    pub(crate) reset: bool,
    pub(crate) observation: Option<Box<Observation>>,
    pub(crate) respond: oneshot::Sender<Result<Answer, RequestError>>,
    pub(crate) queued_at: Instant,
}

impl<S> Abandoned for Job<S> {
    fn abandoned(&self) -> bool {
        self.respond.is_closed()
    }
}
