use std::num::NonZeroUsize;
use std::time::Instant;

use skillweld_robot::{
    ActionSpace, Chunk, ChunkError, ChunkRequest, ChunkSource, Expectation, Frame, Observation, Prompt,
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
        let policy = |error: ChunkError| EvalError::Policy { trial: trial.to_string(), error };
        let suite = |error| EvalError::Suite { trial: trial.to_string(), error };
        let mut env = trial.env(self.image_size)?;
        let prompt =
            Prompt { instruction: Some(env.instruction().to_owned()), task: task.map(str::to_owned) };
        let limit = env.task().step_limit;
        let images = source.expects().images;
        source.start_episode();
        let mut status = Status::default();
        let mut routed = None;
        let mut inferences = 0;
        while !status.success && status.steps < limit {
            let seen = env.observe().map_err(suite)?;
            let captured = Instant::now();
            let frame = |image: skillweld_suites::Image| Frame {
                rgb: image.rgb.into(),
                height: image.height,
                width: image.width,
                captured,
            };
            let observation = Observation {
                captured,
                positions: seen.state.map(f64::from).to_vec(),
                frames: seen.images.into_iter().take(images).map(frame).collect(),
            };
            let request = ChunkRequest {
                observation,
                prompt: prompt.clone(),
                inference_delay: 0,
                left_over: Vec::new(),
            };
            let Chunk { actions, routing } = source.infer(&request).map_err(policy)?;
            inferences += 1;
            // The first decision is the router's; later ones repeat it, unless it is asked again.
            routed = routed.or(routing.map(|routing| routing.task));
            if actions.is_empty() {
                return Err(policy(ChunkError::Empty));
            }
            for (row, action) in actions.iter().take(self.actions_per_chunk.get()).enumerate() {
                let action: [f64; ACTIONS] = action.as_slice().try_into().map_err(|_| {
                    policy(ChunkError::Length { row, found: action.len(), expected: ACTIONS })
                })?;
                watch(&mut env).map_err(suite)?;
                status = env.step(&action).map_err(suite)?;
                if status.success || status.steps >= limit {
                    break;
                }
            }
        }
        watch(&mut env).map_err(suite)?;
        Ok(TrialResult {
            trial: trial.clone(),
            success: status.success,
            steps: status.steps,
            inferences,
            routed,
        })
    }
}
