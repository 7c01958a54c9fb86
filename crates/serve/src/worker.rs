//! The one thread on which the policy runs.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Instant;

use crate::error::RequestError;
use crate::options::Event;
use crate::policy::{InferError, Observation, Policy, Reply};
use crate::protocol::{self, Answer};
use crate::shared::{Job, Phase, Shared, advance};

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
    let mut session = job.session.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let run = || run_policy(&shared.policy, &mut session, job.reset, job.observation);
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        // Whatever the policy left half done goes with the session.
        *session = shared.policy.session();
        Err(panicked(&*panic))
    });
    let inference = start.elapsed();
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
    session: &mut P::Session,
    reset: bool,
    observation: Option<Box<Observation>>,
) -> Result<Option<Reply>, InferError> {
    if reset {
        policy.reset(session);
    }
    observation.map(|observation| policy.infer(session, *observation)).transpose()
}

fn panicked(panic: &(dyn Any + Send)) -> InferError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    InferError::Failed(format!("the policy panicked: {}", text.unwrap_or("without a message")))
}
