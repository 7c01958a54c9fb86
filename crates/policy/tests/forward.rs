//! The forward of synthetic checkpoints of other shapes than the fixtures', against the reference in f64.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod reference;
mod support;

use std::num::NonZeroUsize;
use std::path::Path;

use ndarray::{Array2, Array3, Axis, s};
use reference::language::Qwen2;
use reference::{Tensors, columns, expert, language, rows, vision};
use skillweld_linalg::Threads;
use skillweld_policy::backend::Matrix;
use skillweld_policy::{Inputs, Model, ModelOptions, PolicyError, Precision};
use skillweld_store::{Checkpoint, ExpertFiles};
use skillweld_synth::{ExpertForm, LanguageModel, PrismaticSpec, VitSpec};
use skillweld_tensor::Dtype;
use support::assert_close;

const PROMPT: [u32; 5] = [7, 250, 0, 31, 99];
const PROPRIO: [f32; 8] = [0.3, -0.9, 0.1, 0.0, 1.0, -0.4, 0.7, -1.0];

fn spec() -> PrismaticSpec {
    PrismaticSpec {
        language: LanguageModel {
            hidden: 48,
            intermediate: 80,
            layers: 3,
            heads: 6,
            kv_heads: 3,
            vocab: 300,
            tied: true,
        },
        featurizer: VitSpec { width: 24, depth: 3, heads: 3, mlp: 40 },
        fused_featurizer: VitSpec { width: 40, depth: 2, heads: 5, mlp: 33 },
        dtype: Dtype::F32,
        rank: 4,
        seed: 5,
        ..PrismaticSpec::tiny()
    }
}

/// One image's pixels, 6 × 224 × 224.
fn pixels() -> Array3<f32> {
    Array3::from_shape_fn((6, 224, 224), |(c, y, x)| {
        ((x as f32 * 0.05 + c as f32).sin() + (y as f32 * 0.03).cos() * (x * y % 17) as f32 * 0.1)
            .clamp(-2.0, 2.0)
    })
}

fn inputs(pixels: &Array3<f32>) -> Inputs<'_> {
    Inputs { pixel_values: pixels.view(), input_ids: &PROMPT, proprio: &PROPRIO }
}

fn options(threads: usize) -> ModelOptions {
    ModelOptions { threads: Threads::new(NonZeroUsize::new(threads).unwrap()), ..ModelOptions::default() }
}

/// Features, projected, hidden states' slices and actions of the reference.
fn slow(spec: &PrismaticSpec, t: &Tensors, expert_dir: &Path, pixels: &Array3<f32>) -> [Array2<f64>; 4] {
    let pixels = pixels.mapv(f64::from);
    let tower = |name: &str, vit: VitSpec, first: usize| {
        let image = pixels.slice(s![first..first + 3, .., ..]);
        vision::features(t, &format!("vision_backbone.{name}"), vit.heads, &image)
    };
    let features = columns(&[
        tower("featurizer", spec.featurizer, 0),
        tower("fused_featurizer", spec.fused_featurizer, 3),
    ]);
    let projected = vision::project(t, &features);
    let sequence = language::sequence(t, &projected, &PROMPT, 2);
    let (heads, kv_heads) = (spec.language.heads, spec.language.kv_heads);
    let qwen = Qwen2 { heads, kv_heads, theta: 1e6, epsilon: 1e-6 };
    let states = language::hidden_states(t, &qwen, sequence);
    let states: Vec<_> =
        states.iter().map(|s| expert::slices(s, projected.nrows(), PROMPT.len(), 64)).collect();
    let files = ExpertFiles::discover(expert_dir).unwrap();
    let head = Tensors::read(&files.action_head().unwrap().unwrap());
    let projector = Tensors::read(&files.proprio_projector().unwrap().unwrap());
    let proprio = Array2::from_shape_fn((1, 8), |(_, i)| f64::from(PROPRIO[i]));
    let actions = expert::actions(&head, &projector, &states, &proprio, 8);
    let hidden: Vec<_> = states.into_iter().map(|(task, action)| rows(&[task, action])).collect();
    [features, projected, rows(&hidden), actions]
}

/// Every stage is within `tolerance` of the reference, relative to its largest value.
fn compare(model: &Model, expected: &[Array2<f64>; 4], pixels: &Array3<f32>, tolerance: f32) {
    let forward = model.forward(inputs(pixels), 0).unwrap();
    let perception = &forward.perception;
    let hidden = perception.hidden_to_host().unwrap();
    let shape = (hidden.len_of(Axis(0)) * hidden.len_of(Axis(1)), hidden.len_of(Axis(2)));
    let actual = [
        perception.vision_features.to_host().unwrap(),
        perception.projected.to_host().unwrap(),
        hidden.into_shape_with_order(shape).unwrap(),
        forward.normalized_actions,
    ];
    for ((what, actual), expected) in
        ["features", "projected", "hidden", "actions"].iter().zip(actual).zip(expected)
    {
        let expected = expected.mapv(|x| x as f32).into_dyn();
        assert_close(what, &actual.into_dyn().view(), &expected.view(), tolerance);
    }
}

#[test]
fn a_whole_expert() {
    let dir = tempfile::tempdir().unwrap();
    spec().write_expert(dir.path(), 2, ExpertForm::Full).unwrap();
    let tensors = Tensors::read(&Checkpoint::open(dir.path()).unwrap());
    let expected = slow(&spec(), &tensors, dir.path(), &pixels());
    for threads in [1, 3] {
        compare(&Model::open(dir.path(), &options(threads)).unwrap(), &expected, &pixels(), 1e-5);
    }
}

#[test]
fn weights_in_bf16() {
    let dir = tempfile::tempdir().unwrap();
    let spec = PrismaticSpec { dtype: Dtype::BF16, ..spec() };
    spec.write_expert(dir.path(), 1, ExpertForm::Full).unwrap();
    let tensors = Tensors::read(&Checkpoint::open(dir.path()).unwrap());
    let expected = slow(&spec, &tensors, dir.path(), &pixels());
    compare(&Model::open(dir.path(), &options(2)).unwrap(), &expected, &pixels(), 1e-5);
    // Stored as they are, but what they are multiplied with is rounded to eight bits.
    let options = ModelOptions { precision: Precision::Bf16, ..options(2) };
    compare(&Model::open(dir.path(), &options).unwrap(), &expected, &pixels(), 2e-2);
}

#[test]
fn an_adapter_on_its_base() {
    let (base, expert, full) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    spec().write_base(base.path()).unwrap();
    spec().write_expert(expert.path(), 0, ExpertForm::Adapter).unwrap();
    // The same expert's whole weights are base + adapter.
    spec().write_expert(full.path(), 0, ExpertForm::Full).unwrap();
    let tensors = Tensors::read(&Checkpoint::open(full.path()).unwrap());
    let expected = slow(&spec(), &tensors, expert.path(), &pixels());
    let options = ModelOptions { base: Some(base.path().to_owned()), ..options(2) };
    compare(&Model::open(expert.path(), &options).unwrap(), &expected, &pixels(), 1e-5);

    let without_base = Model::open(expert.path(), &ModelOptions::default()).err().unwrap();
    assert!(without_base.to_string().contains("name their folder as base"), "{without_base}");
}

#[test]
fn results_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    spec().write_expert(dir.path(), 1, ExpertForm::Full).unwrap();
    let run = |threads| {
        let model = Model::open(dir.path(), &options(threads)).unwrap();
        let forward = model.forward(inputs(&pixels()), 0).unwrap();
        (forward.normalized_actions, forward.perception.hidden_to_host().unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn bad_inputs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    spec().write_expert(dir.path(), 0, ExpertForm::Full).unwrap();
    let model = Model::open(dir.path(), &options(2)).unwrap();
    let pixels = pixels();
    let good = inputs(&pixels);
    let mut nan = pixels.clone();
    nan[[3, 4, 5]] = f32::NAN;
    let long = vec![1; 513];
    let cases = [
        (
            Inputs { pixel_values: pixels.slice(s![..5, .., ..]), ..good },
            0,
            "pixel_values: shape [5, 224, 224]",
        ),
        (Inputs { pixel_values: nan.view(), ..good }, 0, "pixel_values: a value is NaN"),
        (Inputs { input_ids: &[], ..good }, 0, "input_ids: the prompt is empty"),
        (Inputs { input_ids: &[300], ..good }, 0, "token 300 is not one of the model's 300"),
        (Inputs { input_ids: &long, ..good }, 0, "a prompt of 513 tokens, but 512 are"),
        (Inputs { proprio: &PROPRIO[1..], ..good }, 0, "proprio: 7 values, expected 8"),
        (Inputs { proprio: &[f32::INFINITY; 8], ..good }, 0, "proprio: a value is NaN or infinite"),
        (good, 1, "no expert 1: there are 1"),
    ];
    for (inputs, expert, expected) in cases {
        let error = model.forward(inputs, expert).err().unwrap();
        assert!(matches!(error, PolicyError::Observation(_)));
        assert!(error.to_string().contains(expected), "{error}");
    }
}
