//! One robot's episode: the task is chosen on its first observation, then every observation gives a chunk of actions.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::time::Instant;

use ndarray::{Array2, Array3};
use skillweld_router::{Decision, Rule};

use crate::PolicyError;
use crate::backend::Result;
use crate::cpu::CpuMatrix;
use crate::forward::{Latency, Perception};
use crate::observation::Observation;
use crate::policy::Policy;

/// How a session comes by its task.
#[derive(Debug, Clone, PartialEq)]
pub enum Routing {
    /// This one, by its index.
    Fixed(usize),
    /// The router decides.
    Router {
        /// By this rule.
        rule: Rule,
        /// On the first observation only, or again every so many chunks.
        every_chunks: Option<NonZeroUsize>,
    },
}

/// One episode with a policy. `P` is `&Policy`, or an `Arc` for sessions that outlive a function.
#[derive(Debug)]
pub struct Session<P: Deref<Target = Policy>> {
    policy: P,
    routing: Routing,
    task: Option<usize>,
    chunks: usize,
}

/// What one observation gave.
#[derive(Debug)]
pub struct Step {
    /// The task that ran.
    pub task: usize,
    /// Actions in the robot's units, chunk × action dimension.
    pub actions: Array2<f32>,
    /// The same as the model gives them, −1 … 1.
    pub normalized_actions: Array2<f32>,
    /// How the task was chosen, if this step chose it.
    pub decision: Option<Decision>,
    /// Where the time went.
    pub latency: StepLatency,
    /// What the vision towers saw: (6 · images) × side × side.
    pub pixel_values: Array3<f32>,
    /// Everything that the model made of it on the way.
    pub perception: Perception<CpuMatrix>,
}

/// Wall time of one step in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepLatency {
    /// Images and text into tensors.
    pub preprocess_ms: f64,
    /// Waiting for another session's step.
    pub wait_ms: f64,
    /// Writing weights of other tasks.
    pub switch_ms: f64,
    /// Forwards of the tasks that were scored; 0 in steps that do not route.
    pub routing_ms: f64,
    /// The chosen task's forward.
    pub model: Latency,
    /// All of it.
    pub total_ms: f64,
}

impl<P: Deref<Target = Policy>> Session<P> {
    /// A new episode.
    pub fn new(policy: P, routing: Routing) -> Self {
        Self { policy, routing, task: None, chunks: 0 }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The task of this episode, once it is known.
    pub fn task(&self) -> Option<usize> {
        match self.routing {
            Routing::Fixed(task) => Some(task),
            Routing::Router { .. } => self.task,
        }
    }

    /// Another way to come by the task, from the next observation on.
    pub fn set_routing(&mut self, routing: Routing) {
        self.routing = routing;
        self.task = None;
    }

    /// Forgets the episode: the next observation is a first one.
    pub fn reset(&mut self) {
        self.task = None;
        self.chunks = 0;
    }

    /// A chunk of actions for an observation.
    ///
    /// # Errors
    /// [`PolicyError::Observation`] naming what is wrong with it; [`PolicyError::Abstained`] when the router is not sure
    /// enough and no fallback is named. The session stays as it was and takes the next observation.
    pub fn step(&mut self, observation: &Observation) -> Result<Step> {
        let started = Instant::now();
        let mut latency = StepLatency::default();
        observation.check_finite()?;
        let prepared = self.policy.prepare(observation)?;
        latency.preprocess_ms = since_ms(started);
        let waiting = Instant::now();
        let mut active = self.policy.active();
        latency.wait_ms = since_ms(waiting);

        let mut decision = None;
        let mut perception = None;
        let task = match (&self.routing, self.due()) {
            (Routing::Fixed(task), _) => {
                self.check_task(*task)?;
                *task
            }
            (Routing::Router { .. }, Some(task)) => task,
            (Routing::Router { rule, .. }, None) => {
                let routing = Instant::now();
                let routed = self.policy.route(&mut active, &prepared, rule)?;
                latency.switch_ms = routed.switch_ms;
                latency.routing_ms = since_ms(routing) - routed.switch_ms;
                let task = routed.decision.task().ok_or_else(|| abstained(&self.policy, &routed.decision))?;
                perception = routed.perception;
                decision = Some(routed.decision);
                task
            }
        };
        let proprio = self.policy.proprio(observation, task)?;
        let perception = match perception {
            Some(perception) => perception,
            None => {
                let (model, elapsed_ms) = active.switch_to(task)?;
                latency.switch_ms += elapsed_ms;
                model.perceive(&prepared.pixel_values.view(), &prepared.input_ids)?
            }
        };
        // Expert heads of all tasks are in memory, whichever task's weights the rest of the model has.
        let expert = active.expert_of(task);
        let (normalized_actions, expert_ms) = active.current().act(&perception.hidden, &proprio, expert)?;
        let actions = self.policy.statistics(task).unnormalize_actions(&normalized_actions)?;
        latency.model = Latency { expert_ms, ..perception.latency };
        drop(active);
        self.task = Some(task);
        self.chunks += 1;
        latency.total_ms = since_ms(started);
        let pixel_values = prepared.pixel_values.into_owned();
        Ok(Step { task, actions, normalized_actions, decision, latency, pixel_values, perception })
    }

    /// Only the routing of [`Session::step`]: which task an observation belongs to, by the session's rule. Changes
    /// nothing.
    ///
    /// # Errors
    /// As [`Session::step`]; also when the session's task is fixed.
    pub fn route(&self, observation: &Observation) -> Result<Decision> {
        let Routing::Router { rule, .. } = &self.routing else {
            return Err(PolicyError::Observation("the task is fixed, there is nothing to route".to_owned()));
        };
        observation.check_finite()?;
        let prepared = self.policy.prepare(observation)?;
        Ok(self.policy.route(&mut self.policy.active(), &prepared, rule)?.decision)
    }

    /// The task that was chosen before, unless it is time to choose again.
    fn due(&self) -> Option<usize> {
        let Routing::Router { every_chunks, .. } = &self.routing else { return self.task };
        let again = every_chunks.is_some_and(|every| self.chunks % every == 0);
        self.task.filter(|_| !again)
    }

    fn check_task(&self, task: usize) -> Result<()> {
        let tasks = self.policy.tasks().len();
        if task < tasks {
            return Ok(());
        }
        Err(PolicyError::Observation(format!("there is no task {task}: there are {tasks}")))
    }
}

fn abstained(policy: &Policy, decision: &Decision) -> PolicyError {
    let scores = decision
        .candidates
        .iter()
        .map(|candidate| (policy.tasks()[candidate.task].clone(), candidate.probability));
    PolicyError::Abstained { probabilities: scores.collect() }
}

fn since_ms(clock: Instant) -> f64 {
    clock.elapsed().as_secs_f64() * 1e3
}
