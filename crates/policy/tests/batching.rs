//! Observations that are computed together give what each gives alone, bit for bit.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod merge;

use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::thread;

use merge::{Merge, Random, observation, spec};
use ndarray::{Array2, Array3};
use proptest::prelude::*;
use skillweld_linalg::Threads;
use skillweld_policy::{
    Forward, Inputs, Model, ModelOptions, Observation, Policy, PolicyError, Precision, Routing,
};
use skillweld_synth::ExpertForm;

/// What a model is shown; by the seed.
struct Shown {
    pixel_values: Array3<f32>,
    input_ids: Vec<u32>,
    proprio: Vec<f32>,
}

impl Shown {
    fn new(seed: u64, prompt: usize) -> Self {
        let mut random = Random(seed);
        Self {
            pixel_values: Array3::from_shape_simple_fn((6, 224, 224), || random.unit()),
            input_ids: (0..prompt).map(|_| random.next() % 100).collect(),
            proprio: (0..8).map(|_| random.unit()).collect(),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { pixel_values: self.pixel_values.view(), input_ids: &self.input_ids, proprio: &self.proprio }
    }
}

fn open(threads: usize, precision: Precision) -> Model {
    let dir = tempfile::tempdir().unwrap();
    spec().write_expert(dir.path(), 0, ExpertForm::Full).unwrap();
    let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
    Model::open(dir.path(), &ModelOptions { threads, precision, ..ModelOptions::default() }).unwrap()
}

fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

fn found<M: skillweld_policy::backend::Matrix>(forward: &Forward<M>) -> [Vec<u32>; 3] {
    [
        bits(forward.perception.vision_features.to_host().unwrap()),
        bits(forward.perception.hidden_to_host().unwrap()),
        bits(forward.normalized_actions.iter().copied()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_batch_gives_what_each_gives_alone(
        seed in 0..u64::MAX / 2, prompts in prop::collection::vec(1..4usize, 1..6), threads in 1..3usize, narrow: bool,
    ) {
        let precision = if narrow { Precision::Bf16 } else { Precision::F32 };
        let model = open(threads, precision);
        let shown: Vec<_> =
            prompts.iter().zip(seed..).map(|(prompt, seed)| Shown::new(seed, 3 * prompt)).collect();
        let inputs: Vec<_> = shown.iter().map(Shown::inputs).collect();
        let together = model.forward_all(&inputs, 0).unwrap();
        prop_assert_eq!(together.len(), shown.len());
        for (inputs, together) in inputs.iter().zip(&together) {
            let alone = model.forward(*inputs, 0).unwrap();
            prop_assert_eq!(found(together), found(&alone));
        }
    }
}

#[test]
fn a_batch_of_nothing_is_nothing_and_a_wrong_one_is_refused() {
    let model = open(1, Precision::F32);
    assert!(model.forward_all(&[], 0).unwrap().is_empty());
    let (good, bad) = (Shown::new(1, 5), Shown { proprio: vec![f32::NAN; 8], ..Shown::new(2, 5) });
    let refused = model.forward_all(&[good.inputs(), bad.inputs()], 0).unwrap_err();
    assert!(matches!(&refused, PolicyError::Observation(text) if text.contains("proprio")), "{refused}");
    let pictures = Shown { pixel_values: Array3::zeros((12, 224, 224)), ..Shown::new(2, 5) };
    let refused = model.forward_all(&[good.inputs(), pictures.inputs()], 0).unwrap_err();
    assert!(matches!(&refused, PolicyError::Observation(text) if text.contains("images")), "{refused}");
}

/// Actions of one observation after another.
fn episode(policy: &Policy, task: usize, observations: &[Observation]) -> Vec<Array2<f32>> {
    let mut session = policy.session_with(Routing::Fixed(task));
    observations.iter().map(|observation| session.step(observation).unwrap().actions).collect()
}

#[test]
fn sessions_side_by_side_get_what_each_would_get_alone() {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(2, 3).write(dir.path());
    let policy = Policy::open(dir.path()).unwrap();
    let seen = |robot: usize| (0..4).map(|step| observation(4 * robot + step)).collect::<Vec<_>>();
    // Two of each task.
    let alone: Vec<_> = (0..4).map(|robot| episode(&policy, robot % 2, &seen(robot))).collect();
    let begin = Barrier::new(5);
    thread::scope(|scope| {
        let robots: Vec<_> = (0..4)
            .map(|robot| {
                let (policy, begin) = (&policy, &begin);
                scope.spawn(move || {
                    let observations = seen(robot);
                    begin.wait();
                    episode(policy, robot % 2, &observations)
                })
            })
            .collect();
        // One that sends nonsense gets its own error, and spoils nobody's chunk.
        begin.wait();
        let mut nonsense = policy.session_with(Routing::Fixed(0));
        for _ in 0..4 {
            let pixel_values = Array3::zeros((12, 224, 224));
            let wrong =
                Observation::Prepared { pixel_values, proprio: vec![0.0; 8], input_ids: vec![u32::MAX] };
            let error = nonsense.step(&wrong).unwrap_err();
            assert!(error.to_string().contains("token 4294967295"), "{error}");
        }
        for (robot, alone) in robots.into_iter().zip(&alone) {
            assert_eq!(&robot.join().unwrap(), alone);
        }
    });
}
