//! Weights written over another task's are those of a model that was opened with the task.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod merge;

use std::num::NonZeroUsize;
use std::path::Path;

use merge::{Merge, Random, observation};
use ndarray::{Array2, Array3};
use proptest::prelude::*;
use skillweld_policy::{Forwards, ModelOptions, Policy, PolicyOptions, Precision, Routing, Rule};

/// All hidden states and the actions of a task.
fn run(policy: &Policy, task: usize) -> (Array3<f32>, Array2<f32>) {
    let step = policy.session_with(Routing::Fixed(task)).step(&observation(task)).unwrap();
    (step.perception.hidden_to_host().unwrap(), step.actions)
}

fn open(dir: &Path, base: Option<&Path>, active_tasks: usize, precision: Precision) -> Policy {
    let model = ModelOptions { base: base.map(Path::to_owned), precision, ..ModelOptions::default() };
    let active_tasks = NonZeroUsize::new(active_tasks).unwrap();
    Policy::open_with(dir, &PolicyOptions { model, active_tasks, ..PolicyOptions::default() }).unwrap()
}

/// A merge with rescalers, and with changes that no mask covers.
fn emr(tasks: usize, seed: u64) -> Merge {
    let mut merge = Merge::new(tasks, seed);
    let mut random = Random(seed ^ 77);
    merge.rescalers = (0..tasks).map(|_| 1.0 + 0.5 * random.unit()).collect();
    let unmasked = [
        "vision_backbone.featurizer.patch_embed.proj.weight",
        "language_model.model.layers.0.input_layernorm.weight",
        "language_model.model.layers.1.self_attn.q_proj.bias",
    ];
    unmasked.iter().for_each(|key| merge.change(key, &mut random));
    merge
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn any_order_of_tasks_gives_what_a_fresh_model_gives(
        seed: u64, tasks in 2..4usize, order in prop::collection::vec(0..3usize, 1..6),
        official: bool, active in 1..4usize, narrow: bool,
    ) {
        let precision = if narrow { Precision::Bf16 } else { Precision::F32 };
        let dir = tempfile::tempdir().unwrap();
        let (merged, base) = (dir.path().join("merged"), dir.path().join("base"));
        let merge = emr(tasks, seed);
        let base = if official {
            merge.write_official(&merged, &base);
            Some(base.as_path())
        } else {
            merge.write(&merged);
            None
        };
        let fresh: Vec<_> = (0..tasks).map(|task| run(&open(&merged, base, 1, precision), task)).collect();
        prop_assert_ne!(&fresh[0], &fresh[1]);
        let policy = open(&merged, base, active, precision);
        for task in order.into_iter().map(|task| task % tasks) {
            prop_assert!(run(&policy, task) == fresh[task], "task {task} of {tasks}");
        }
    }
}

#[test]
fn both_layouts_are_the_same_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (own, official, base) =
        (dir.path().join("own"), dir.path().join("official"), dir.path().join("base"));
    let merge = emr(2, 3);
    merge.write(&own);
    merge.write_official(&official, &base);
    let ours = open(&own, None, 1, Precision::F32);
    let theirs = open(&official, Some(&base), 1, Precision::F32);
    assert_eq!((ours.tasks(), ours.shape()), (theirs.tasks(), theirs.shape()));
    for task in 0..2 {
        assert_eq!(run(&ours, task), run(&theirs, task));
    }
    let [ours, theirs] = [&ours, &theirs].map(|policy| policy.session().unwrap());
    assert_eq!(ours.route(&observation(5)).unwrap(), theirs.route(&observation(5)).unwrap());
}

#[test]
fn stages_that_no_task_differs_in_run_once_for_all_candidates() {
    let mut random = Random(9);
    let fused = "vision_backbone.fused_featurizer.blocks.0.mlp.fc1.weight";
    for (masked, vision) in [(None, 1), (Some("projector.fc1.weight"), 1), (Some(fused), 3)] {
        let mut merge = Merge::new(3, 11);
        if let Some(key) = masked {
            merge.change(key, &mut random);
            merge.mask(key, &mut random);
        }
        let dir = tempfile::tempdir().unwrap();
        merge.write(dir.path());
        let policy = open(dir.path(), None, 1, Precision::F32);
        for best in 0..3 {
            // Nobody is sure of anything, so that each task's perception is looked at in its turn.
            let rule = Rule { min_probability: 1.0, fallback: Some(best), ..Rule::default() };
            let routing = Routing::Router { rule, every_chunks: None };
            let step = policy.session_with(routing).step(&observation(best)).unwrap();
            assert_eq!((step.forwards, step.task), (Forwards { vision, language: 3 }, best), "{masked:?}");
            let seen = (step.perception.hidden_to_host().unwrap(), step.actions);
            assert!(seen == run(&open(dir.path(), None, 1, Precision::F32), best), "{masked:?}");
        }
    }
}

#[test]
fn tasks_in_memory_are_bounded_and_the_one_used_longest_ago_goes() {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(3, 1).write(dir.path());
    let policy = open(dir.path(), None, 2, Precision::F32);
    let in_memory = |task| {
        run(&policy, task);
        policy.tasks_in_memory()
    };
    assert_eq!(in_memory(0), [0]);
    assert_eq!(in_memory(1), [0, 1]);
    assert_eq!(in_memory(0), [1, 0]);
    assert_eq!(in_memory(2), [0, 2]);
    assert_eq!(in_memory(0), [2, 0]);
    assert_eq!(in_memory(1), [0, 1]);
}
