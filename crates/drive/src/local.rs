use bytes::Bytes;
use skillweld_robot::{Chunk, ChunkError, ChunkRequest, ChunkSource, Expectation};
use skillweld_serve::{Array, Image, Observation, Policy};

use crate::expectation;
use crate::reply;

/// A policy in this process.
pub struct LocalPolicy<P: Policy> {
    policy: P,
    session: P::Session,
    expectation: Expectation,
}

impl<P: Policy> LocalPolicy<P> {
    /// Warms the policy up, so that the first chunk comes as fast as the others.
    ///
    /// # Errors
    /// [`ChunkError::Failed`] if that fails, or if what the policy says of its actions cannot be understood.
    pub fn new(policy: P) -> Result<Self, ChunkError> {
        let failed = |problem: String| ChunkError::Failed(problem);
        policy.warm_up().map_err(|error| failed(error.to_string()))?;
        let expectation = expectation::of_policy(&policy.metadata()).map_err(failed)?;
        Ok(Self { session: policy.session(), policy, expectation })
    }
}

impl<P: Policy> ChunkSource for LocalPolicy<P> {
    fn expects(&self) -> Expectation {
        self.expectation.clone()
    }

    fn start_episode(&mut self) {
        self.policy.reset(&mut self.session);
    }

    fn infer(&mut self, request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        let failed = |error: &dyn std::fmt::Display| ChunkError::Failed(error.to_string());
        let seen = &request.observation;
        let image = |(index, frame): (usize, &skillweld_robot::Frame)| Image {
            name: format!("image_{index}"),
            height: frame.height,
            width: frame.width,
            rgb: Bytes::copy_from_slice(&frame.rgb),
        };
        let prompt = request.prompt.instruction.clone().filter(|_| self.expectation.needs_instruction);
        let left_over = (!request.left_over.is_empty()).then(|| rows(&request.left_over)).transpose();
        let observation = Observation {
            images: seen.frames.iter().take(self.expectation.images).enumerate().map(image).collect(),
            state: match self.expectation.state_dim {
                Some(_) => seen.positions.iter().map(|&position| position as f32).collect(),
                None => Vec::new(),
            },
            prompt: prompt.unwrap_or_default(),
            task: request.prompt.task.clone(),
            inference_delay: Some(request.inference_delay),
            prev_chunk_left_over: left_over.map_err(|error| failed(&error))?,
            extra: Vec::new(),
        };
        let reply = self.policy.infer(&mut self.session, observation).map_err(|error| failed(&error))?;
        Ok(Chunk {
            actions: reply::actions(&reply.actions)?,
            routing: reply.routing.map(|routing| skillweld_robot::Routing {
                task: routing.task,
                reason: routing.reason.as_str().to_owned(),
                margin: routing.scores.map(|scores| scores.margin),
            }),
        })
    }
}

/// Actions as an array, R × D.
pub(crate) fn rows(actions: &[Vec<f64>]) -> Result<Array, skillweld_serve::ArrayError> {
    let values: Vec<f32> = actions.iter().flatten().map(|&number| number as f32).collect();
    Array::from_f32(&[actions.len(), actions.first().map_or(0, Vec::len)], &values)
}
