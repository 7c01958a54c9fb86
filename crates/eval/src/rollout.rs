use std::fmt::Display;
use std::num::NonZeroUsize;
use std::time::Instant;

use skillweld_robot::{
    ActionSpace, Chunk, ChunkError, ChunkRequest, ChunkSource, Expectation, Observation, Prompt,
};
use skillweld_suites::{ACTIONS, Env, STATES, Status, SuiteError};

use crate::{EvalError, Trial, TrialResult};

/// Whether a policy sees and says what the suites show and take: two pictures at most, a state of eight numbers or none, moves of
/// the hand of seven numbers.
///
/// # Errors
/// [`EvalError::Disagreement`] that says what it was made for.
pub fn agree(expectation: &Expectation) -> Result<(), EvalError> {
    let refuse = |what: String| Err(EvalError::Disagreement(what));
    // Published checkpoints of LIBERO's form say nothing of their seven numbers, and are taken for joint positions without names.
    let says_joints = expectation.space != ActionSpace::EndEffector
        && (expectation.names.is_some() || expectation.units.is_some());
    if expectation.action_dim != ACTIONS || says_joints {
        return refuse(format!(
            "the policy's actions are {} numbers{}, the suites take {ACTIONS} that move the hand: evaluate one that was trained on \
             `skillweld sim demos`",
            expectation.action_dim,
            if says_joints { " for joints" } else { "" }
        ));
    }
    if expectation.state_dim.is_some_and(|dim| dim != STATES) {
        let dim = expectation.state_dim.unwrap_or_default();
        return refuse(format!("the policy wants a state of {dim} numbers, the suites have {STATES}"));
    }
    if expectation.images > 2 {
        let images = expectation.images;
        return refuse(format!("the policy wants {images} pictures, the suites have two: front and wrist"));
    }
    Ok(())
}

/// How trials are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// Rows and columns of both pictures.
    pub image_size: usize,
    /// Actions of a chunk that are carried out before the next one is asked for; a shorter chunk is carried out whole.
    pub actions_per_chunk: NonZeroUsize,
}

impl Rollout {
    /// One trial. `task` is the expert to run by its name, instead of routing.
    ///
    /// # Errors
    /// [`EvalError`]; a policy that moves wrongly is no error, it fails.
    pub fn run(
        &self,
        trial: &Trial,
        source: &mut dyn ChunkSource,
        task: Option<&str>,
    ) -> Result<TrialResult, EvalError> {
        self.run_watched(trial, source, task, |_| Ok(()))
    }

    /// As [`run`](Self::run); `watch` is shown the episode before every step and after the last one.
    ///
    /// # Errors
    /// As [`run`](Self::run), and those of `watch`.
    pub fn run_watched(
        &self,
        trial: &Trial,
        source: &mut dyn ChunkSource,
        task: Option<&str>,
        mut watch: impl FnMut(&mut Env) -> Result<(), SuiteError>,
    ) -> Result<TrialResult, EvalError> {
        let mut env = trial.env(self.image_size)?;
        let limit = env.task().step_limit;
        let Ran { status, inferences, routed } =
            self.act(&mut env, source, (task, limit), trial, &mut watch)?;
        Ok(TrialResult {
            trial: trial.clone(),
            success: status.success,
            steps: status.steps,
            inferences,
            routed,
        })
    }

    /// Lets a policy act in an episode that is at its beginning, for `limit` steps or until the task is done: then somebody else may go on.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn lead(&self, env: &mut Env, source: &mut dyn ChunkSource, limit: u32) -> Result<Status, EvalError> {
        let name = env.task().id;
        Ok(self.act(env, source, (None, limit), &name, &mut |_| Ok(()))?.status)
    }

    /// `name`: of the episode, for errors.
    fn act(
        &self,
        env: &mut Env,
        source: &mut dyn ChunkSource,
        (task, limit): (Option<&str>, u32),
        name: &dyn Display,
        watch: &mut dyn FnMut(&mut Env) -> Result<(), SuiteError>,
    ) -> Result<Ran, EvalError> {
        let policy = |error: ChunkError| EvalError::Policy { trial: name.to_string(), error };
        let suite = |error| EvalError::Suite { trial: name.to_string(), error };
        let prompt =
            Prompt { instruction: Some(env.instruction().to_owned()), task: task.map(str::to_owned) };
        source.start_episode();
        let mut ran = Ran { status: env.status(), inferences: 0, routed: None };
        while !ran.status.success && ran.status.steps < limit {
            let request = request(env, source, &prompt).map_err(suite)?;
            let Chunk { actions, routing } = source.infer(&request).map_err(policy)?;
            ran.inferences += 1;
            // The first decision counts; later ones repeat it, unless the router is asked again. Without a margin none was asked.
            let decided = routing.filter(|routing| routing.margin.is_some());
            ran.routed = ran.routed.or(decided.map(|routing| routing.task));
            if actions.is_empty() {
                return Err(policy(ChunkError::Empty));
            }
            for (row, action) in actions.iter().take(self.actions_per_chunk.get()).enumerate() {
                let action: [f64; ACTIONS] = action.as_slice().try_into().map_err(|_| {
                    policy(ChunkError::Length { row, found: action.len(), expected: ACTIONS })
                })?;
                watch(env).map_err(suite)?;
                ran.status = env.step(&action).map_err(suite)?;
                if ran.status.success || ran.status.steps >= limit {
                    break;
                }
            }
        }
        watch(env).map_err(suite)?;
        Ok(ran)
    }
}

/// What came of a policy's acting.
struct Ran {
    status: Status,
    inferences: u32,
    routed: Option<String>,
}

/// What a policy is asked where an episode stands.
fn request(env: &mut Env, source: &dyn ChunkSource, prompt: &Prompt) -> Result<ChunkRequest, SuiteError> {
    let seen = env.observe()?;
    let captured = Instant::now();
    let observation = Observation {
        captured,
        positions: seen.state.map(f64::from).to_vec(),
        frames: seen
            .images
            .into_iter()
            .take(source.expects().images)
            .map(|image| image.into_frame(captured))
            .collect(),
        problems: Vec::new(),
    };
    Ok(ChunkRequest { observation, prompt: prompt.clone(), inference_delay: 0, left_over: Vec::new() })
}
