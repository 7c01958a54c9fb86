//! The one thread on which the policy runs.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Instant;

use crate::decision::{Decision, Outcome};
use crate::error::RequestError;
use crate::options::{Client, Event};
use crate::policy::{InferError, Observation, Policy, Reply};
use crate::protocol::{self, Answer};
use crate::shared::{Job, Phase, Shared, advance};

/// What is kept between the requests of one connection.
pub(crate) struct Episode<S> {
    /// The policy's part of it.
    session: S,
    client: Client,
    number: u64,
    /// Chunks of actions so far.
    chunks: u64,
    /// Whether one was asked for.
    begun: bool,
    /// What came of asking for the last one: the word for it, and the task.
    last: Option<(&'static str, Option<String>)>,
}

impl<S> Episode<S> {
    /// The first one of a client.
    pub(crate) fn new(client: Client, session: S) -> Self {
        Self { session, client, number: 1, chunks: 0, begun: false, last: None }
    }

    /// Starts the next one, unless this one is still new.
    fn reset(&mut self) {
        self.number += u64::from(self.begun);
        (self.chunks, self.begun, self.last) = (0, false, None);
    }

    /// Takes note of a chunk that was asked for; gives what is told of it, if there is news.
    fn note(&mut self, prompt: String, outcome: Outcome) -> Option<Decision> {
        let (client, episode, chunk) = (self.client, self.number, self.chunks + 1);
        let now = Some((outcome.as_str(), outcome.task().map(str::to_owned)));
        let changed = self.last != now;
        self.last = now;
        let news = changed || outcome.asked();
        news.then_some(Decision { client, episode, chunk, prompt, outcome, changed })
    }
}

/// A task that ran, or an abstention; nothing for other errors and policies without tasks.
fn decided(outcome: &Result<Option<Reply>, InferError>) -> Option<Outcome> {
    match outcome {
        Ok(reply) => Some(Outcome::Ran(reply.as_ref()?.routing.clone()?)),
        Err(InferError::Abstained { scores, .. }) => Some(Outcome::Abstained(scores.clone())),
        Err(_) => None,
    }
}

/// Warms up, then answers what the queue gives until it is closed.
pub(crate) fn run<P: Policy>(shared: &Shared<P>) {
    let start = Instant::now();
    let warmed = catch_unwind(AssertUnwindSafe(|| shared.policy.warm_up()))
        .unwrap_or_else(|panic| Err(panicked(&*panic)));
    if let Err(error) = warmed {
        *shared.warm_up_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        advance(&shared.phase, Phase::Stopping);
        return;
    }
    if advance(&shared.phase, Phase::Ready) {
        shared.tell(&Event::Ready { warm_up_s: start.elapsed().as_secs_f64() });
    }
    while let Some(job) = shared.queue.pop() {
        answer(shared, job);
    }
}

fn answer<P: Policy>(shared: &Shared<P>, job: Job<P::Session>) {
    let queued = job.queued_at.elapsed();
    let mut episode = job.episode.lock().unwrap_or_else(PoisonError::into_inner);
    let prompt = job.observation.as_ref().map(|observation| observation.prompt.clone()).unwrap_or_default();
    let start = Instant::now();
    let run = || run_policy(&shared.policy, &mut episode, job.reset, job.observation);
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        // Whatever the policy left half done goes with the session.
        episode.session = shared.policy.session();
        Err(panicked(&*panic))
    });
    let inference = start.elapsed();
    if let Some(decided) = decided(&outcome) {
        shared.metrics.count_decision(&decided);
        episode.note(prompt, decided).into_iter().for_each(|news| shared.tell(&Event::Decided(news)));
    }
    episode.chunks += u64::from(matches!(outcome, Ok(Some(_))));
    drop(episode);
    let outcome = outcome.map_err(RequestError::Policy).and_then(|reply| {
        reply.as_ref().map_or(Ok(()), protocol::check)?;
        Ok(Answer { reply, inference, queued })
    });
    if matches!(&outcome, Ok(Answer { reply: Some(_), .. })) {
        shared.metrics.inference.observe(inference);
    }
    // The client may be gone.
    drop(job.respond.send(outcome));
}

fn run_policy<P: Policy>(
    policy: &P,
    episode: &mut Episode<P::Session>,
    reset: bool,
    observation: Option<Box<Observation>>,
) -> Result<Option<Reply>, InferError> {
    if reset {
        policy.reset(&mut episode.session);
        episode.reset();
    }
    let Some(observation) = observation else { return Ok(None) };
    episode.begun = true;
    policy.infer(&mut episode.session, *observation).map(Some)
}

fn panicked(panic: &(dyn Any + Send)) -> InferError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    InferError::Failed(format!("the policy panicked: {}", text.unwrap_or("without a message")))
}
