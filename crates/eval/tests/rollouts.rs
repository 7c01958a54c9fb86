//! Trials by sources that know what they do, and results that survive.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::fs;
use std::num::NonZeroUsize;

use skillweld_eval::{EvalError, Paired, Rate, Results, Rollout, Trial, TrialResult, agree};
use skillweld_robot::{ActionSpace, Chunk, ChunkError, ChunkRequest, ChunkSource, Expectation, Routing};
use skillweld_suites::{Embodiment, Env, Expert, PerturbationKind, Split, Strength, Suite};

const SIZE: usize = 16;
const ROLLOUT: Rollout =
    Rollout { image_size: SIZE, actions_per_chunk: NonZeroUsize::new(4).expect("not zero") };

fn expectation() -> Expectation {
    Expectation {
        action_dim: 7,
        space: ActionSpace::EndEffector,
        names: None,
        units: None,
        state_dim: Some(8),
        images: 2,
        horizon: 8,
        needs_instruction: true,
    }
}

fn trial(task: &str, index: u32) -> Trial {
    Trial {
        task: task.into(),
        split: Split::Selection,
        index,
        perturbation: None,
        embodiment: Embodiment::So101,
    }
}

/// Solves the trial in a world of its own, which goes as the evaluated one does, and checks that it is asked from there.
struct Prophet {
    env: Env,
    expert: Expert,
    asked: u32,
}

impl Prophet {
    fn of(trial: &Trial) -> Self {
        let env = trial.env(SIZE).unwrap();
        Self { expert: Expert::new(&env), env, asked: 0 }
    }
}

impl ChunkSource for Prophet {
    fn expects(&self) -> Expectation {
        expectation()
    }

    fn start_episode(&mut self) {}

    fn infer(&mut self, request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        assert_eq!(request.observation.positions, self.env.state().map(f64::from));
        assert_eq!(request.prompt.instruction.as_deref(), Some(self.env.instruction()));
        let seen = self.env.observe().unwrap();
        for (frame, image) in request.observation.frames.iter().zip(&seen.images) {
            assert!(frame.rgb[..] == image.rgb[..]);
        }
        self.asked += 1;
        let actions = (0..4).map(|_| {
            let action = self.expert.act(&self.env);
            self.env.step(&action).unwrap();
            action.to_vec()
        });
        // More than are carried out.
        let actions = actions.collect::<Vec<_>>().into_iter().chain([vec![1.0; 7]]).collect();
        let routing = Routing { task: format!("task {}", self.asked), reason: "routed".into(), margin: None };
        Ok(Chunk { actions, routing: Some(routing) })
    }
}

/// Answers the same, whatever it sees.
struct Stubborn(Vec<Vec<f64>>);

impl ChunkSource for Stubborn {
    fn expects(&self) -> Expectation {
        Expectation { images: 1, ..expectation() }
    }

    fn start_episode(&mut self) {}

    fn infer(&mut self, request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        assert_eq!(request.observation.frames.len(), 1);
        Ok(Chunk { actions: self.0.clone(), routing: None })
    }
}

#[test]
fn who_knows_succeeds_and_who_stands_still_fails_at_the_limit() {
    for suite in Suite::ALL {
        let trial = trial(suite.tasks()[0].id, 3);
        let mut prophet = Prophet::of(&trial);
        let result = ROLLOUT.run(&trial, &mut prophet, None).unwrap();
        assert!(result.success, "{trial}");
        assert!(result.steps <= suite.tasks()[0].step_limit);
        assert_eq!((result.inferences, result.inferences), (prophet.asked, result.steps.div_ceil(4)));
        assert_eq!(result.routed.as_deref(), Some("task 1"), "the first decision counts");
    }
    let trial = trial("goal_open", 0);
    let still = vec![vec![0.0; 7]; 3];
    let result = ROLLOUT.run(&trial, &mut Stubborn(still), None).unwrap();
    assert!(!result.success);
    assert_eq!(result.steps, trial.task().unwrap().step_limit);
    assert_eq!(result.inferences, result.steps.div_ceil(3), "a shorter chunk is carried out whole");
}

#[test]
fn answers_that_are_none_name_the_trial() {
    let trial = trial("goal_open", 7);
    let fails = |actions: Vec<Vec<f64>>, words: &str| {
        let error = ROLLOUT.run(&trial, &mut Stubborn(actions), None).unwrap_err().to_string();
        assert!(error.starts_with("goal_open selection 7: ") && error.contains(words), "{error}");
    };
    fails(Vec::new(), "no actions");
    fails(vec![vec![0.0; 6]], "6 numbers");
    fails(vec![vec![f64::NAN; 7]], "NaN");
    let error = self::trial("goal_shut", 0).env(SIZE).unwrap_err().to_string();
    assert!(error.contains("no task goal_shut"), "{error}");
}

#[test]
fn policies_for_something_else_are_refused() {
    agree(&expectation()).unwrap();
    agree(&Expectation { state_dim: None, images: 1, ..expectation() }).unwrap();
    // It says nothing.
    agree(&Expectation { space: ActionSpace::Positions, ..expectation() }).unwrap();
    for (other, words) in [
        (Expectation { action_dim: 6, ..expectation() }, "sim demos"),
        (
            Expectation {
                space: ActionSpace::Positions,
                names: Some(vec!["joint".into(); 7]),
                ..expectation()
            },
            "7 numbers for joints",
        ),
        (Expectation { state_dim: Some(14), ..expectation() }, "a state of 14"),
        (Expectation { images: 3, ..expectation() }, "3 pictures"),
    ] {
        let error = agree(&other).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn results_go_on_where_they_were_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trials.jsonl");
    let result = |index: u32, success: bool| TrialResult {
        trial: Trial {
            perturbation: (index % 2 == 1).then_some((PerturbationKind::RobotState, Strength::Medium)),
            embodiment: Embodiment::ALL[index as usize % 3],
            ..trial("goal_open", index)
        },
        success,
        steps: index,
        inferences: 1,
        routed: None,
    };
    let all: Vec<TrialResult> = (0..6).map(|index| result(index, index < 4)).collect();
    let mut results = Results::open(folder.path(), "merged").unwrap();
    all.iter().for_each(|result| results.add(result.clone()).unwrap());
    let whole = fs::read(&file).unwrap();
    assert!(matches!(Results::open(folder.path(), "merged"), Err(EvalError::Busy(_))));
    drop(results);

    // Cut anywhere after the heading, the whole lines before are there, and adding the others gives the same bytes.
    let heading = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for cut in heading..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let mut results = Results::open(folder.path(), "merged").unwrap();
        let lines = whole[heading..cut].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(results.all(), &all[..lines]);
        for result in &all {
            if !results.has(&result.trial) {
                results.add(result.clone()).unwrap();
            }
        }
        assert_eq!(fs::read(&file).unwrap(), whole);
    }

    let another = Results::open(folder.path(), "another").unwrap_err();
    assert!(matches!(&another, EvalError::Another { there, .. } if there == "merged"), "{another}");
    fs::write(&file, [&whole[..heading], b"{}\n"].concat()).unwrap();
    let damaged = Results::open(folder.path(), "merged").unwrap_err().to_string();
    assert!(damaged.contains("line 2") && damaged.contains("trial"), "{damaged}");
}

#[test]
fn two_policies_are_compared_on_the_trials_that_both_have() {
    let result = |index: u32, success: bool| TrialResult {
        trial: trial("goal_open", index),
        success,
        steps: 1,
        inferences: 1,
        routed: None,
    };
    let first: Vec<_> = (0..6).map(|index| result(index, index % 2 == 0)).collect();
    let second: Vec<_> = (2..9).rev().map(|index| result(index, index < 4)).collect();
    let paired = Paired::of(&first, &second);
    assert_eq!(paired, Paired { both: 1, only_first: 1, only_second: 1, neither: 1 });
    assert_eq!(Rate::of(&first), Rate { successes: 3, trials: 6 });
}
