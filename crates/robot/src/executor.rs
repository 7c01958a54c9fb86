//! Carries out chunks of actions while the next one is being computed.

mod latency;
mod queue;
mod worker;

use std::time::{Duration, Instant};

use latency::Latency;
use queue::ChunkQueue;
use worker::{Answer, Inference, Worker};

use crate::source::{ActionSource, Moment, Next};
use crate::{
    ChunkError, ChunkRequest, ChunkSource, Description, Disagreement, Durations, Event, Expectation,
    Observation, Origin, Prompt, RobotError, Routing, agree,
};

pub use queue::Overlap;

/// Steps to spare beyond the slowest of the last inferences.
const MARGIN_STEPS: f64 = 2.0;
/// The next chunk is asked for when so much of one is left at the latest: then one inference that takes much longer than all
/// before it does not find the queue empty.
const LATEST_REFILL: f64 = 2.0 / 3.0;

/// An answer to an observation that is older than this is not carried out: the arm has stood still, but the world has not. That
/// goes for the first answer too, which may have waited for a policy to load: asking again costs an inference, which then is a
/// fast one.
const MAX_AGE: Duration = Duration::from_secs(2);

/// After a failure, the policy is asked again no sooner than this: a server that refuses at once is not stormed.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Drives an arm by a [`ChunkSource`].
///
/// The plan counts its own steps: a control period in which no action was carried out, for whatever reason, is none of them. A
/// chunk's first action belongs to the step at which its observation was taken; when the chunk arrives, the actions of the steps
/// that have passed since are dropped (LeRobot's asynchronous client counts in the same way). An answer that takes more than 2 s
/// is not used, and asked for again. Where the policy would not keep up, actions are carried out slower, never faster, than one a
/// step: an arm that moves slowly instead of one that stops and goes. What is sent between two actions then lies on the line
/// between them.
pub struct ChunkExecutor {
    inference: Box<dyn Inference>,
    expectation: Expectation,
    prompt: Prompt,
    queue: ChunkQueue,
    /// How far the arm is on its way from the queue's first action to the second, 0 … 1.
    fraction: f64,
    /// Actions a period.
    speed: f64,
    flight: Option<Flight>,
    not_before: Option<Instant>,
    latency: Latency,
    task: Option<Routing>,
    /// Whether a chunk has come since the start or the last interruption.
    begun: bool,
    /// Whether there will be no more chunks.
    ended: bool,
}

/// A request that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// When it was asked.
    asked: Instant,
    /// Step of the plan at which its observation was taken; between two steps, the later one.
    step: u64,
    /// How far ahead of the observation that step was, 0 … 1 steps.
    ahead: f64,
    /// Whether the answer is still wanted.
    wanted: bool,
}

impl ChunkExecutor {
    /// Starts the source's thread; `overlap` is what happens where chunks overlap.
    ///
    /// # Errors
    /// [`ChunkError::Failed`] if the system gives no thread.
    pub fn new(
        source: impl ChunkSource + 'static,
        prompt: Prompt,
        overlap: Overlap,
    ) -> Result<Self, ChunkError> {
        let expectation = source.expects();
        let worker = Worker::spawn(Box::new(source))?;
        Ok(Self::with_inference(Box::new(worker), expectation, prompt, overlap))
    }

    fn with_inference(
        inference: Box<dyn Inference>,
        expectation: Expectation,
        prompt: Prompt,
        overlap: Overlap,
    ) -> Self {
        Self {
            inference,
            expectation,
            prompt,
            queue: ChunkQueue::new(overlap),
            fraction: 0.0,
            speed: 1.0,
            flight: None,
            not_before: None,
            latency: Latency::default(),
            task: None,
            begun: false,
            ended: false,
        }
    }

    /// Takes in an answer, if one has come.
    fn receive(&mut self, moment: &Moment<'_>, events: &mut Vec<Event>) {
        let Some(flight) = self.flight else { return };
        let Some(Answer { chunk, took }) = self.inference.poll() else { return };
        self.flight = None;
        let checked = chunk.and_then(|chunk| chunk.check(&self.expectation).map(|()| chunk));
        match checked {
            Ok(chunk) => {
                self.latency.record(took);
                if !flight.wanted {
                    return;
                }
                let age = moment.now.saturating_duration_since(flight.asked);
                if age > MAX_AGE {
                    events.push(Event::ChunkFailed(ChunkError::Late { age }));
                    return;
                }
                self.begun = true;
                let actions = chunk.actions.len();
                let dropped = self.queue.insert(flight.step, shift(&chunk.actions, flight.ahead));
                self.speed = self.cruise(actions, moment.period);
                let routing = chunk.routing.filter(|routing| {
                    self.task
                        .as_ref()
                        .is_none_or(|last| (&last.task, &last.reason) != (&routing.task, &routing.reason))
                });
                if let Some(routing) = &routing {
                    self.task = Some(routing.clone());
                }
                events.push(Event::Chunk { actions, dropped, latency: took, speed: self.speed, routing });
            }
            Err(error) => {
                self.not_before = Some(moment.now + RETRY_AFTER);
                self.ended = error == ChunkError::Ended;
                events.push(Event::ChunkFailed(error));
            }
        }
    }

    /// Asks for the next chunk, if it is time.
    fn request(&mut self, moment: &Moment<'_>) {
        let early = self.not_before.is_some_and(|retry| moment.now < retry);
        let queued = self.queue.len() as f64 - self.fraction;
        if self.flight.is_some() || early || queued > self.threshold(moment.period) {
            return;
        }
        if queued > 0.0 {
            // What is queued has to last until the answer comes.
            self.speed = self.speed.min(queued / self.need(moment.period)).min(1.0);
        }
        let request = ChunkRequest {
            observation: self.seen(moment.observation),
            prompt: self.prompt.clone(),
            inference_delay: (self.passing(moment.period) * self.speed).ceil() as usize,
            left_over: self.queue.left_over().take(self.expectation.horizon).collect(),
        };
        self.inference.submit(request);
        let whole = self.fraction.ceil();
        let (step, ahead) = (self.queue.step() + whole as u64, whole - self.fraction);
        self.flight = Some(Flight { asked: moment.now, step, ahead, wanted: true });
    }

    /// The observation with the images that the policy wants.
    fn seen(&self, observation: &Observation) -> Observation {
        let mut seen = observation.clone();
        seen.frames.truncate(self.expectation.images);
        seen
    }

    /// Periods that pass during an inference, as the slowest of the last ones took. What takes longer than is waited for is none
    /// to plan with.
    fn passing(&self, period: Duration) -> f64 {
        (self.latency.slowest().min(MAX_AGE).as_secs_f64() / period.as_secs_f64()).ceil()
    }

    /// Periods until an answer can be here.
    fn need(&self, period: Duration) -> f64 {
        self.passing(period) + MARGIN_STEPS
    }

    /// How many actions may be queued when the next chunk is asked for.
    fn threshold(&self, period: Duration) -> f64 {
        self.need(period).max((self.expectation.horizon as f64 * LATEST_REFILL).ceil())
    }

    /// Actions a period that inferences of the measured latency can keep up with: one after the other, each brings a chunk less
    /// what is carried out meanwhile, and that has to last for the next.
    fn cruise(&self, actions: usize, period: Duration) -> f64 {
        let sustained = actions as f64 / (self.passing(period) + self.need(period));
        sustained.min(1.0)
    }

    /// The present action, and one period's way on.
    fn take(&mut self) -> Option<Vec<f64>> {
        let Some(mut action) = self.queue.get(0) else {
            self.fraction = 0.0;
            return None;
        };
        if let Some(next) = self.queue.get(1) {
            action = between(&action, &next, self.fraction);
        }
        self.fraction = if self.speed < 1.0 { self.fraction + self.speed } else { 1.0 };
        if self.fraction >= 1.0 {
            self.queue.advance();
            self.fraction -= 1.0;
        }
        Some(action)
    }
}

/// The actions `ahead` (0 … 1) steps later than theirs; the last stays.
fn shift(actions: &[Vec<f64>], ahead: f64) -> Vec<Vec<f64>> {
    let later = actions.iter().skip(1).chain(actions.last());
    actions.iter().zip(later).map(|(action, next)| between(action, next, ahead)).collect()
}

/// What lies at `share` (0 … 1) of the way from one action to another.
fn between(from: &[f64], to: &[f64], share: f64) -> Vec<f64> {
    from.iter().zip(to).map(|(from, to)| from * (1.0 - share) + to * share).collect()
}

impl ActionSource for ChunkExecutor {
    fn agree(&self, robot: &Description) -> Result<(), Disagreement> {
        agree(&self.expectation, &self.prompt, robot)
    }

    fn start(&mut self) -> Result<(), RobotError> {
        self.interrupt();
        self.task = None;
        self.inference.start_episode();
        Ok(())
    }

    fn next(&mut self, moment: &Moment<'_>, events: &mut Vec<Event>) -> Next {
        self.receive(moment, events);
        if self.ended {
            return Next::Broken(ChunkError::Ended.to_string());
        }
        self.request(moment);
        match self.take() {
            Some(action) => Next::Act(action, Origin::Policy),
            None if self.begun => Next::Starved,
            None => Next::Waiting,
        }
    }

    fn interrupt(&mut self) {
        self.queue.clear();
        self.fraction = 0.0;
        self.begun = false;
        if let Some(flight) = &mut self.flight {
            flight.wanted = false;
        }
    }

    fn queued(&self) -> Option<usize> {
        Some(self.queue.len())
    }

    fn latencies(&self) -> Option<&Durations> {
        Some(self.latency.all())
    }
}

#[cfg(test)]
mod tests;
