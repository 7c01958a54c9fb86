//! Trials by sources that know what they do, and results that survive.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use skillweld_eval::{
    EvalError, Results, Rollout, Trial, TrialResult, agree, groups, paired, rate, results_csv, success_plot,
};
use skillweld_rate::{Paired, Rate};
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
        let routing = Routing {
            task: format!("task {}", self.asked),
            reason: "routed".into(),
            margin: (self.asked > 1).then_some(0.5),
        };
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
        assert_eq!(result.routed.as_deref(), Some("task 2"), "the first decision of a router counts");
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
    let both = paired(&first, &second);
    assert_eq!(both, Paired { both: 1, only_first: 1, only_second: 1, neither: 1 });
    assert_eq!(rate(&first), Rate { successes: 3, trials: 6 });
}

/// Stands still for its first trials and then gives no actions: which trial that is, nobody says.
struct Failing(usize);

impl ChunkSource for Failing {
    fn expects(&self) -> Expectation {
        expectation()
    }

    fn start_episode(&mut self) {
        self.0 = self.0.wrapping_sub(1);
    }

    fn infer(&mut self, _: &ChunkRequest) -> Result<Chunk, ChunkError> {
        let actions = if self.0 > 1000 { Vec::new() } else { vec![vec![0.0; 7]; 8] };
        Ok(Chunk { actions, routing: None })
    }
}

#[test]
fn trials_side_by_side_give_what_they_give_alone() {
    let trials: Vec<Trial> = (0..6).map(|index| trial("goal_push", index)).collect();
    let sources = |count: usize, make: &dyn Fn() -> Box<dyn ChunkSource>| {
        (0..count).map(|_| make()).collect::<Vec<_>>()
    };
    // A hand that goes down, whose fate depends on the layout.
    let down =
        || Box::new(Stubborn(vec![vec![0.1, 0.05, -0.4, 0.0, 0.0, 0.3, 1.0]; 5])) as Box<dyn ChunkSource>;
    let run = |jobs: usize| {
        let mut results = Vec::new();
        let all = ROLLOUT.run_all(
            &trials,
            &mut sources(jobs, &down),
            None,
            |_, _| Ok(()),
            |result| {
                results.push(result);
                Ok(ControlFlow::Continue(()))
            },
        );
        all.unwrap();
        results.sort_by_key(|result| result.trial.index);
        results
    };
    let alone: Vec<TrialResult> =
        trials.iter().map(|trial| ROLLOUT.run(trial, down().as_mut(), None).unwrap()).collect();
    assert_eq!(run(1), alone);
    assert_eq!(run(3), alone);
    assert_eq!(run(9), alone, "more sources than trials");
}

#[test]
fn side_by_side_nothing_is_begun_after_a_failure_or_a_stop() {
    let trials: Vec<Trial> = (0..8).map(|index| trial("goal_open", index)).collect();
    let mut seen = 0;
    let failing = || Box::new(Failing(2)) as Box<dyn ChunkSource>;
    let outcome = ROLLOUT.run_all(
        &trials,
        &mut [failing()],
        None,
        |_, _| Ok(()),
        |_| {
            seen += 1;
            Ok(ControlFlow::Continue(()))
        },
    );
    let error = outcome.unwrap_err().to_string();
    assert!(error.starts_with("goal_open selection 2: "), "{error}");
    assert_eq!(seen, 2);

    let still = || Box::new(Stubborn(vec![vec![0.0; 7]; 8])) as Box<dyn ChunkSource>;
    let mut seen = 0;
    let stopped = ROLLOUT.run_all(
        &trials,
        &mut [still(), still()],
        None,
        |_, _| Ok(()),
        |_| {
            seen += 1;
            Ok(if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        },
    );
    stopped.unwrap();
    assert!((2..=4).contains(&seen), "{seen}: two, and at most those that were under way");
}

#[test]
fn a_watcher_sees_every_step() {
    let trial = trial("goal_open", 1);
    let mut steps = Vec::new();
    let still = vec![vec![0.0; 7]; 3];
    let watched = ROLLOUT.run_watched(&trial, &mut Stubborn(still.clone()), None, |env| {
        steps.push(env.status().steps);
        Ok(())
    });
    let limit = trial.task().unwrap().step_limit;
    assert_eq!(steps, (0..=limit).collect::<Vec<_>>());
    assert_eq!(watched.unwrap(), ROLLOUT.run(&trial, &mut Stubborn(still), None).unwrap());
}

#[test]
fn summaries_do_not_depend_on_the_order_of_results() {
    let result = |task: &str, index, success, routed: Option<&str>| TrialResult {
        trial: trial(task, index),
        success,
        steps: 40,
        inferences: 5,
        routed: routed.map(str::to_owned),
    };
    let mut all = vec![
        result("goal_open", 10, true, Some("a, b")),
        result("goal_open", 2, false, None),
        result("spatial_box", 0, true, None),
    ];
    let shares: Vec<(String, f64)> = groups(&all).into_iter().map(|g| (g.name, g.rate.share())).collect();
    let expected = [("spatial", 1.0), ("spatial_box", 1.0), ("goal", 0.5), ("goal_open", 0.5)];
    assert_eq!(shares, expected.map(|(name, share)| (name.to_owned(), share)));
    let files = |all: &[TrialResult]| {
        [String::from_utf8(results_csv(all).unwrap()).unwrap(), success_plot("a policy", all).unwrap()]
    };
    let first = files(&all);
    all.reverse();
    assert_eq!(first, files(&all));
    assert_eq!(
        first[0],
        "task,split,index,perturbation,embodiment,success,steps,inferences,routed\n\
         goal_open,selection,2,,so101,0,40,5,\n\
         goal_open,selection,10,,so101,1,40,5,\"a, b\"\n\
         spatial_box,selection,0,,so101,1,40,5,\n"
    );
    assert!(first[1].starts_with("<svg") && first[1].contains("goal_open"));
    assert!(success_plot("a policy", &[]).is_err());
}
