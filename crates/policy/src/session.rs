//! One robot's episode: the task is chosen on its first observation, then every observation gives a chunk of actions.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::time::Instant;

use ndarray::{Array2, Array3};
use skillweld_router::{Decision, Outcome, Rule};

use crate::PolicyError;
use crate::backend::{Backend, Result};
use crate::batch::{Answer, Request};
use crate::cpu::{Cpu, CpuMatrix};
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
        /// On the first observation only, or again when so many chunks have been given since its last decision.
        every_chunks: Option<NonZeroUsize>,
    },
}

/// Why a step ran the task that it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The session was opened with this task.
    Fixed,
    /// It was asked for: [`Session::request`].
    Requested,
    /// The router chose it, on this observation or on an earlier one.
    Routed,
    /// The router was not sure enough of any: the rule's fallback.
    FellBack,
    /// Asked again, the router was not sure enough of any, and there is no fallback: the task that ran before goes on.
    Kept,
}

impl Reason {
    /// For logs and replies: `fixed`, `requested`, `routed`, `fallback`, `kept`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Requested => "requested",
            Self::Routed => "routed",
            Self::FellBack => "fallback",
            Self::Kept => "kept",
        }
    }
}

/// One episode with a policy. `P` is `&Policy`, or an `Arc` for sessions that outlive a function.
#[derive(Debug)]
pub struct Session<P: Deref<Target = Policy<B>>, B: Backend = Cpu> {
    policy: P,
    routing: Routing,
    requested: Option<usize>,
    chosen: Option<Chosen>,
    backend: PhantomData<fn() -> B>,
}

/// The router's last decision and what followed from it.
#[derive(Debug)]
struct Chosen {
    task: usize,
    reason: Reason,
    decision: Decision,
    /// Chunks given since.
    chunks: usize,
}

/// What a step does about its task.
enum Plan<'a> {
    Run(usize, Reason),
    Route(&'a Rule),
}

/// What one observation gave.
#[derive(Debug)]
pub struct Step<M = CpuMatrix> {
    /// The task that ran.
    pub task: usize,
    /// Why this one. [`Session::decision`] has the scores behind it, also in the steps that follow.
    pub reason: Reason,
    /// The router's decision, if this step asked it.
    pub decision: Option<Decision>,
    /// Actions in the robot's units, chunk × action dimension.
    pub actions: Array2<f32>,
    /// The same as the model gives them, −1 … 1.
    pub normalized_actions: Array2<f32>,
    /// How often the parts of the vision-language model ran.
    pub forwards: Forwards,
    /// Where the time went.
    pub latency: StepLatency,
    /// What the vision towers saw: (6 · images) × side × side.
    pub pixel_values: Array3<f32>,
    /// Everything that the model made of it on the way.
    pub perception: Perception<M>,
}

/// How often the parts of the vision-language model ran in one step: once, or once a candidate in steps that route (and
/// once more for a fallback that is no candidate).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwards {
    /// Vision towers. Once for all candidates where tasks do not differ in them.
    pub vision: usize,
    /// Language model.
    pub language: usize,
}

/// Wall time of one step in milliseconds. All but `total_ms` add up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepLatency {
    /// Images and text into tensors.
    pub preprocess_ms: f64,
    /// Waiting for another session's step.
    pub wait_ms: f64,
    /// Writing weights of other tasks.
    pub switch_ms: f64,
    /// Forwards of tasks that were scored and not chosen, and scoring; 0 in steps that do not route.
    pub routing_ms: f64,
    /// The chosen task's forward.
    pub model: Latency,
    /// All of it.
    pub total_ms: f64,
}

impl<P: Deref<Target = Policy<B>>, B: Backend> Session<P, B> {
    /// A new episode.
    pub fn new(policy: P, routing: Routing) -> Self {
        Self { policy, routing, requested: None, chosen: None, backend: PhantomData }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy<B> {
        &self.policy
    }

    /// The task of this episode, once it is known.
    pub fn task(&self) -> Option<usize> {
        let fixed = match self.routing {
            Routing::Fixed(task) => Some(task),
            Routing::Router { .. } => self.chosen.as_ref().map(|chosen| chosen.task),
        };
        self.requested.or(fixed)
    }

    /// The router's last decision in this episode; none before the first, and none while a task is requested or fixed.
    pub fn decision(&self) -> Option<&Decision> {
        self.chosen.as_ref().map(|chosen| &chosen.decision)
    }

    /// Another way to come by the task, from the next observation on.
    pub fn set_routing(&mut self, routing: Routing) {
        self.routing = routing;
        self.chosen = None;
    }

    /// Runs this task from the next observation on, whatever the session's own [`Routing`] says; `None` goes back to that,
    /// and a router is then asked anew. Asking for the same again changes nothing, so that a server may pass on what each
    /// request says.
    pub fn request(&mut self, task: Option<usize>) {
        if self.requested != task {
            self.requested = task;
            self.chosen = None;
        }
    }

    /// Forgets the episode: the next observation is a first one. A requested task stays requested.
    pub fn reset(&mut self) {
        self.chosen = None;
    }

    /// A chunk of actions for an observation.
    ///
    /// # Errors
    /// [`PolicyError::Observation`] naming what is wrong with it; [`PolicyError::Abstained`] when the router, asked for
    /// the first time in an episode, is not sure enough and no fallback is named. The session stays as it was and takes
    /// the next observation.
    pub fn step(&mut self, observation: &Observation) -> Result<Step<B::Matrix>> {
        let started = Instant::now();
        let mut latency = StepLatency::default();
        self.check(observation)?;
        let prepared = self.policy.prepare(observation)?;
        let mut clock = started;
        latency.preprocess_ms = lap_ms(&mut clock);
        let mut decision = None;
        // What a forward of the router's gave, where the task that it chose is among those that it tried.
        let mut forward = None;
        let mut forwards = Forwards::default();
        let (task, reason) = match self.plan() {
            Plan::Run(task, reason) => (task, reason),
            Plan::Route(rule) => {
                let running = self.chosen.as_ref().map(|chosen| chosen.task);
                let mut active = self.policy.active();
                latency.wait_ms = lap_ms(&mut clock);
                let mut routed = self.policy.route(&mut active, &prepared, rule, running)?;
                let (task, reason) = match (routed.decision.outcome, running) {
                    (Outcome::Routed(task), _) => (task, Reason::Routed),
                    (Outcome::FellBack(task), _) => (task, Reason::FellBack),
                    (Outcome::Abstained, Some(task)) => (task, Reason::Kept),
                    (Outcome::Abstained, None) => {
                        return Err(abstained(self.policy.tasks(), &routed.decision));
                    }
                };
                forwards = routed.forwards;
                latency.switch_ms = routed.switch_ms;
                let perception = routed.perception_of(task);
                latency.model = perception.as_ref().map(|perception| perception.latency).unwrap_or_default();
                latency.routing_ms = lap_ms(&mut clock) - routed.switch_ms - latency.model.total_ms();
                decision = Some(routed.decision);
                if let Some(perception) = perception {
                    let proprio = self.policy.proprio(observation, task)?;
                    // Expert heads of all tasks are in memory, whichever task's weights the rest of the model has.
                    let expert = active.expert_of(task);
                    let (actions, _) = active.current().act(&perception.hidden, &proprio, expert)?;
                    forward = Some((perception, actions));
                }
                (task, reason)
            }
        };
        let (perception, normalized_actions) = match forward {
            Some(forward) => forward,
            None => {
                let proprio = self.policy.proprio(observation, task)?;
                let (pixel_values, input_ids) =
                    (prepared.pixel_values.as_ref().clone(), prepared.input_ids.to_vec());
                let request = Request { task, pixel_values, input_ids, proprio };
                let Answer { forward, switch_ms } = self.policy.answer(request)?;
                forwards.vision += 1;
                forwards.language += 1;
                latency.switch_ms += switch_ms;
                latency.model = forward.latency;
                // Other sessions' forwards, but for the one that was shared.
                latency.wait_ms += lap_ms(&mut clock) - switch_ms - forward.latency.total_ms();
                (forward.perception, forward.normalized_actions)
            }
        };
        let actions = self.policy.statistics(task).unnormalize_actions(&normalized_actions)?;
        self.given(task, reason, decision.as_ref());
        latency.model.expert_ms += lap_ms(&mut clock);
        latency.total_ms = clock.duration_since(started).as_secs_f64() * 1e3;
        let pixel_values = prepared.pixel_values.into_owned();
        Ok(Step {
            task,
            reason,
            decision,
            actions,
            normalized_actions,
            forwards,
            latency,
            pixel_values,
            perception,
        })
    }

    /// Only the routing of [`Session::step`]: which task an observation belongs to, by the session's rule. Changes
    /// nothing.
    ///
    /// # Errors
    /// As [`Session::step`], but that abstaining is an answer; also when the session's task is fixed.
    pub fn route(&self, observation: &Observation) -> Result<Decision> {
        let Routing::Router { rule, .. } = &self.routing else {
            return Err(PolicyError::Observation("the task is fixed, there is nothing to route".to_owned()));
        };
        observation.check_finite()?;
        let prepared = self.policy.prepare(observation)?;
        Ok(self.policy.route(&mut self.policy.active(), &prepared, rule, None)?.decision)
    }

    /// The task that was asked for, fixed or chosen before; or the rule to choose by, if it is time to.
    fn plan(&self) -> Plan<'_> {
        let (rule, every) = match (&self.routing, self.requested) {
            (_, Some(task)) => return Plan::Run(task, Reason::Requested),
            (Routing::Fixed(task), None) => return Plan::Run(*task, Reason::Fixed),
            (Routing::Router { rule, every_chunks }, None) => (rule, every_chunks),
        };
        let settled = |chosen: &&Chosen| every.is_none_or(|every| chosen.chunks < every.get());
        match self.chosen.as_ref().filter(settled) {
            Some(chosen) => Plan::Run(chosen.task, chosen.reason),
            None => Plan::Route(rule),
        }
    }

    /// Refuses what no task that may run could use, before a forward is spent on it.
    fn check(&self, observation: &Observation) -> Result<()> {
        observation.check_finite()?;
        let tasks = self.policy.tasks().len();
        let may_run = match self.plan() {
            Plan::Run(task, _) if task >= tasks => {
                return Err(PolicyError::Observation(format!("there is no task {task}: there are {tasks}")));
            }
            Plan::Run(task, _) => vec![task],
            Plan::Route(rule) => rule.tasks_to_score(tasks)?.into_iter().chain(rule.fallback).collect(),
        };
        may_run.into_iter().try_for_each(|task| self.policy.proprio(observation, task).map(drop))
    }

    /// Remembers what the router said and how long ago.
    fn given(&mut self, task: usize, reason: Reason, decision: Option<&Decision>) {
        if let Some(decision) = decision.cloned() {
            self.chosen = Some(Chosen { task, reason, decision, chunks: 0 });
        }
        if let Some(chosen) = &mut self.chosen {
            chosen.chunks += 1;
        }
    }
}

fn abstained(tasks: &[String], decision: &Decision) -> PolicyError {
    let scores =
        decision.candidates.iter().map(|candidate| (tasks[candidate.task].clone(), candidate.probability));
    PolicyError::Abstained { probabilities: scores.collect(), decision: Box::new(decision.clone()) }
}

/// Milliseconds since `clock`, which starts again: no time is lost between two stages.
fn lap_ms(clock: &mut Instant) -> f64 {
    let now = Instant::now();
    now.duration_since(std::mem::replace(clock, now)).as_secs_f64() * 1e3
}
