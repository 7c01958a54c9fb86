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
use crate::queue::{Abandoned, Queue, Refused};
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

    /// Puts a request into the queue of the policy, for the client whose episode it is.
    ///
    /// # Errors
    /// [`RequestError::Busy`] and [`RequestError::Stopping`].
    pub(crate) fn submit(
        &self,
        episode: &Arc<Mutex<Episode<P::Session>>>,
        reset: bool,
        observation: Option<Box<Observation>>,
        arrived: Instant,
    ) -> Result<Outcome, RequestError> {
        let (respond, outcome) = oneshot::channel();
        let job = Job { episode: episode.clone(), reset, observation, respond, queued_at: arrived };
        match self.queue.push(job) {
            Ok(()) => Ok(outcome),
            Err(Refused::Full) => Err(RequestError::Busy { limit: self.queue.limit() }),
            Err(Refused::Closed) => Err(RequestError::Stopping),
        }
    }
}

/// What comes of a request; broken if the queue was closed with the request in it.
pub(crate) type Outcome = oneshot::Receiver<Result<Answer, RequestError>>;

/// Waits for a phase or one after it.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, waited_for: Phase) -> Phase {
    // Without a sender there is no server.
    phase.wait_for(|now| *now >= waited_for).await.map_or(Phase::Stopping, |now| *now)
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
