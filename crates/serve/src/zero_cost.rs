use std::time::Duration;

use crate::{Array, InferError, Metadata, Observation, Policy, Reason, Reply, Routing};

/// A policy that computes nothing: every action is the state's first numbers, which for a robot commanded by position means
/// to stay. It shows what the server itself costs, and stands in for a policy in the tests of clients.
#[derive(Debug, Clone)]
pub struct ZeroCost {
    metadata: Metadata,
    delay: Duration,
}

impl ZeroCost {
    /// A policy of two images, a state of eight numbers and chunks of 8 × 7: what LIBERO's clients send and expect.
    pub fn libero() -> Self {
        Self::new(Metadata {
            name: "zero-cost".into(),
            images: 2,
            state_dim: Some(8),
            action_horizon: 8,
            action_dim: 7,
            tasks: Vec::new(),
            prompt: true,
            extra: Vec::new(),
        })
    }

    /// A policy that wants and gives what `metadata` says.
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, delay: Duration::ZERO }
    }

    /// The same, every inference taking this long.
    #[must_use]
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The task that was asked for, or the first.
    fn routing(&self, requested: Option<String>) -> Option<Routing> {
        let reason = if requested.is_some() { Reason::Requested } else { Reason::Fixed };
        let task = requested.or_else(|| self.metadata.tasks.first().cloned())?;
        Some(Routing { task, reason, scores: None, asked: false })
    }
}

impl Policy for ZeroCost {
    type Session = ();

    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn session(&self) -> Self::Session {}

    fn infer(&self, (): &mut Self::Session, observation: Observation) -> Result<Reply, InferError> {
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let Metadata { action_horizon: horizon, action_dim: dim, .. } = self.metadata;
        let action = (0..dim).map(|index| observation.state.get(index).copied().unwrap_or(0.0));
        let actions: Vec<f32> = std::iter::repeat_n(action, horizon).flatten().collect();
        let actions = Array::from_f32(&[horizon, dim], &actions)
            .map_err(|error| InferError::Failed(error.to_string()))?;
        let routing = self.routing(observation.task);
        Ok(Reply { actions, extra: Vec::new(), routing, timing_ms: Vec::new() })
    }
}
