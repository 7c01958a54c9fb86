//! A policy as the server sees it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use skillweld_gpu::Device;
use skillweld_policy::backend::Backend;
use skillweld_policy::{ActionSpace, Decision, Observation, Policy, PolicyError, Routing, Session};
use skillweld_serve::{Array, InferError, Metadata, Reason, Reply, Scores, Value};

use crate::policy::stages;

/// Steps until all that a GPU repeats has been recorded.
const STEPS_OF_A_GPU: usize = 4;

/// Answers the server's clients.
pub(crate) struct Served<B: Backend> {
    pub(crate) policy: Arc<Policy<B>>,
    /// What a session does unless its client names a task.
    pub(crate) routing: Routing,
    /// How many tasks' weights stay in memory.
    pub(crate) active_tasks: NonZeroUsize,
    /// The GPU that it runs on.
    pub(crate) device: Option<Device>,
}

impl<B: Backend + 'static> skillweld_serve::Policy for Served<B> {
    type Session = Session<Arc<Policy<B>>, B>;

    fn metadata(&self) -> Metadata {
        let shape = self.policy.shape();
        let name = self
            .policy
            .dir()
            .file_name()
            .map_or_else(|| "policy".into(), |name| name.to_string_lossy().into());
        Metadata {
            name,
            images: shape.images,
            state_dim: Some(shape.proprio_dim),
            action_horizon: shape.chunk_len,
            action_dim: shape.action_dim,
            tasks: self.policy.tasks().to_vec(),
            prompt: true,
            extra: self.policy.action_space().map(action_space).into_iter().collect(),
        }
    }

    fn session(&self) -> Self::Session {
        Session::new(Arc::clone(&self.policy), self.routing.clone())
    }

    fn infer(
        &self,
        session: &mut Self::Session,
        request: skillweld_serve::Observation,
    ) -> Result<Reply, InferError> {
        let requested = request.task.as_deref().map(|task| self.policy.task_index(task));
        session.request(requested.transpose().map_err(|error| self.failed(error))?);
        let step = session.step(&observation(request)?).map_err(|error| self.failed(error))?;
        let (chunk, dimensions) = step.actions.dim();
        let values: Vec<f32> = step.actions.iter().copied().collect();
        let actions = Array::from_f32(&[chunk, dimensions], &values)
            .map_err(|error| InferError::Failed(error.to_string()))?;
        let routing = skillweld_serve::Routing {
            task: self.policy.tasks()[step.task].clone(),
            reason: reason(step.reason),
            scores: session.decision().map(|decision| self.scores(decision)),
            asked: step.decision.is_some(),
        };
        let timing_ms = stages(&step.latency).map(|(name, ms)| (name.to_owned(), ms)).to_vec();
        Ok(Reply { actions, extra: Vec::new(), routing: Some(routing), timing_ms })
    }

    fn warm_up(&self) -> Result<(), InferError> {
        let shape = self.policy.shape();
        let black = ndarray::Array3::zeros((shape.image_side, shape.image_side, 3));
        let images = vec![black.view(); shape.images];
        let observation = Observation::new(&images, &vec![0.0; shape.proprio_dim], "warm up");
        // The first requests shall load nothing: a forward under each task that may be served, as far as memory is for them.
        for task in self.served_tasks()?.into_iter().take(self.active_tasks.get()) {
            let steps = if self.device.is_some() { STEPS_OF_A_GPU } else { 1 };
            for _ in 0..steps {
                let mut session = self.policy.session_with(Routing::Fixed(task));
                session.step(&observation).map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    fn device_memory_bytes(&self) -> Option<u64> {
        let (free, total) = self.device.as_ref()?.memory_bytes().ok()?;
        Some((total - free) as u64)
    }
}

impl<B: Backend> Served<B> {
    /// The tasks that run when no client names one.
    fn served_tasks(&self) -> Result<Vec<usize>, InferError> {
        let (rule, fallback) = match &self.routing {
            Routing::Fixed(task) => return Ok(vec![*task]),
            Routing::Router { rule, .. } => (rule, rule.fallback),
        };
        let tasks = rule.tasks_to_score(self.policy.tasks().len());
        let mut tasks = tasks.map_err(|error| InferError::Failed(error.to_string()))?;
        tasks.extend(fallback.filter(|task| !tasks.contains(task)));
        Ok(tasks)
    }

    /// What the client is told, and whose fault it is.
    fn failed(&self, error: PolicyError) -> InferError {
        let message = error.to_string();
        match error {
            PolicyError::Observation(_) | PolicyError::UnknownTask { .. } => InferError::Refused(message),
            PolicyError::Abstained { decision, .. } => {
                InferError::Abstained { message, scores: self.scores(&decision) }
            }
            _ => InferError::Failed(message),
        }
    }

    fn scores(&self, decision: &Decision) -> Scores {
        let name = |task: usize| self.policy.tasks()[task].clone();
        let candidates = decision.candidates.iter().map(|c| (name(c.task), f64::from(c.score))).collect();
        Scores { candidates, margin: f64::from(decision.margin) }
    }
}

/// What clients are told of the numbers of an action.
fn action_space(space: &ActionSpace) -> (String, Value) {
    let list = |texts: &Option<Vec<String>>| texts.clone().map_or(Value::Nil, Value::from);
    let entries =
        [("kind", space.kind.name().into()), ("names", list(&space.names)), ("units", list(&space.units))];
    let entries = entries.map(|(key, value): (&str, Value)| (key.to_owned(), value));
    ("action_space".to_owned(), Value::Map(entries.to_vec()))
}

fn reason(reason: skillweld_policy::Reason) -> Reason {
    match reason {
        skillweld_policy::Reason::Fixed => Reason::Fixed,
        skillweld_policy::Reason::Requested => Reason::Requested,
        skillweld_policy::Reason::Routed => Reason::Routed,
        skillweld_policy::Reason::FellBack => Reason::Fallback,
        skillweld_policy::Reason::Kept => Reason::Kept,
    }
}

fn observation(request: skillweld_serve::Observation) -> Result<Observation, InferError> {
    let image = |image: skillweld_serve::Image| {
        let shape = (image.height, image.width, 3);
        let array = ndarray::Array3::from_shape_vec(shape, image.rgb.to_vec());
        array.map_err(|error| InferError::Refused(format!("{}: {error}", image.name)))
    };
    let images = request.images.into_iter().map(image).collect::<Result<_, _>>()?;
    let state = request.state.into_iter().map(f64::from).collect();
    Ok(Observation::Raw { images, state, instruction: request.prompt })
}
