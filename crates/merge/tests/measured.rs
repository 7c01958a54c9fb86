//! Methods that weigh experts by statistics: what is read, what is averaged, what is refused.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use serde_json::Value;
use skillweld_merge::recipe::Recipe;
use skillweld_merge::{MergeError, Models, Plan, PlanSummary};
use skillweld_plugin_host::Registry;
use skillweld_store::Checkpoint;
use support::{checkpoint, control, merge, tensor};
use tempfile::TempDir;

const SHAPE: &[usize] = &[2, 2];
const FISHER: &str = "merge_method: fisher\nparameters: {normalize: false, floor: 0}\n";

/// Name, shape and values.
type Tensor<'a> = (&'a str, &'a [usize], &'a [f32]);

/// Base and two experts of a matrix `w`, a vector `b`, and a matrix `u` that nobody measured; statistics of both.
fn world(statistics: [&[Tensor<'_>]; 2]) -> TempDir {
    let root = TempDir::new().unwrap();
    let model = |name, w: &[f32], b: &[f32], u: &[f32]| {
        checkpoint(root.path(), name, &[("w", SHAPE, w), ("b", &[2], b), ("u", SHAPE, u)]);
    };
    model("base", &[1.0, 1.0, 1.0, 1.0], &[0.0, 0.0], &[0.0; 4]);
    model("pick", &[2.0, 1.0, 1.0, 1.0], &[4.0, 0.0], &[2.0; 4]);
    model("push", &[1.0, 1.0, 3.0, 5.0], &[0.0, 8.0], &[4.0; 4]);
    for (name, tensors) in ["pick-statistics", "push-statistics"].into_iter().zip(statistics) {
        checkpoint(root.path(), name, tensors);
    }
    root
}

fn recipe(head: &str) -> String {
    format!(
        "{head}base_model: base\nmodels:\n- {{model: pick, statistics: pick-statistics}}\n- {{model: push, statistics: push-statistics/model.safetensors}}\n"
    )
}

fn plan(root: &TempDir, recipe: &str) -> Result<PlanSummary, MergeError> {
    let file = root.path().join("recipe.yaml");
    std::fs::write(&file, recipe).unwrap();
    let recipe = Recipe::read(&file)?;
    // What provenance keeps is itself a recipe, with the statistics in it.
    let again = Recipe::parse(&serde_json::to_string(&recipe.to_value()).unwrap())?;
    assert_eq!(again.to_value(), recipe.to_value());
    let models = Models::open(&recipe)?;
    let registry = Registry::discover(&[])?;
    Ok(Plan::new(&recipe, &models, &registry, &control(1))?.summary())
}

fn merged(root: &TempDir, recipe: &str) -> Result<(Checkpoint, Value), MergeError> {
    let out = root.path().join("merged");
    merge(root.path(), recipe, &out, 2)?;
    let provenance = std::fs::read(out.join("skillweld.json")).unwrap();
    Ok((Checkpoint::open(&out).unwrap(), serde_json::from_slice(&provenance).unwrap()))
}

fn flat(checkpoint: &Checkpoint, key: &str) -> Vec<f32> {
    tensor(checkpoint, key).into_iter().collect()
}

const PICK: &[Tensor<'_>] = &[("w", SHAPE, &[3.0, 1.0, 1.0, 0.0]), ("b", &[2], &[1.0, 1.0])];
const PUSH: &[Tensor<'_>] = &[("w", SHAPE, &[1.0, 1.0, 1.0, 2.0]), ("b", &[2], &[3.0, 1.0])];

#[test]
fn what_is_measured_is_weighed_and_the_rest_averaged() {
    let root = world([PICK, PUSH]);
    let summary = plan(&root, &recipe(FISHER)).unwrap();
    assert_eq!(summary.notes, ["averaged, because no expert's statistics have it: u"]);
    let (merged, provenance) = merged(&root, &recipe(FISHER)).unwrap();
    assert_eq!(flat(&merged, "w"), [1.75, 1.0, 2.0, 5.0]);
    assert_eq!(flat(&merged, "b"), [1.0, 4.0]);
    assert_eq!(flat(&merged, "u"), [3.0; 4]);
    let hash = |input: usize| provenance["inputs"][input]["statistics_blake3"].as_str().map(str::to_owned);
    let expected = |name: &str| {
        let statistics = Checkpoint::open(root.path().join(name)).unwrap();
        Some(statistics.content_hash().to_hex().to_string())
    };
    assert_eq!([hash(0), hash(1), hash(2)], [None, expected("pick-statistics"), expected("push-statistics")]);
}

#[test]
fn gram_matrices_are_handed_over_whole_and_vectors_averaged() {
    let gram = |values: &'static [f32]| -> Vec<Tensor<'static>> {
        vec![("w", SHAPE, values), ("u", SHAPE, &[1.0, 0.0, 0.0, 1.0])]
    };
    let root = world([&gram(&[3.0, 0.0, 0.0, 1.0]), &gram(&[1.0, 0.0, 0.0, 1.0])]);
    let head = "merge_method: regmean\n";
    let summary = plan(&root, &recipe(head)).unwrap();
    assert_eq!(summary.notes, ["averaged, because `regmean` merges matrices alone: b"]);
    let (merged, _) = merged(&root, &recipe(head)).unwrap();
    assert_eq!(flat(&merged, "w"), [1.75, 1.0, 1.5, 3.0]);
    assert_eq!(flat(&merged, "b"), [2.0, 4.0]);
}

#[test]
fn statistics_of_a_method_that_uses_none_are_not_read() {
    let bad: &[Tensor<'_>] = &[("w", &[1], &[f32::NAN])];
    let root = world([bad, bad]);
    let head = "merge_method: task_arithmetic\n";
    let summary = plan(&root, &recipe(head)).unwrap();
    assert_eq!(summary.notes, ["`statistics` of pick, push are not read: `task_arithmetic` uses none"]);
    let (_, provenance) = merged(&root, &recipe(head)).unwrap();
    assert_eq!(provenance["inputs"][1]["statistics_blake3"], Value::Null);
}

#[track_caller]
fn refused(statistics: [&[Tensor<'_>]; 2], recipe: &str, expected: &str) {
    let root = world(statistics);
    let error = merged(&root, recipe).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(!root.path().join("merged").exists());
}

#[test]
fn bad_statistics_are_refused_by_name() {
    fn of_w(shape: &'static [usize], values: &'static [f32]) -> [Tensor<'static>; 1] {
        [("w", shape, values)]
    }
    let fisher = recipe(FISHER);
    refused(
        [PICK, &of_w(&[4], &[1.0; 4])],
        &fisher,
        "w: its statistics of push have shape [4], needed is [2, 2], that of the tensor",
    );
    refused(
        [PICK, &of_w(SHAPE, &[1.0; 4])],
        &fisher,
        "b: missing in the statistics of push, though pick has it; all experts' need it, or none",
    );
    refused(
        [&of_w(SHAPE, &[1.0; 4]), &of_w(SHAPE, &[1.0, 2.0, f32::NAN, 1.0])],
        &format!("{fisher}allow_non_finite: true\n"),
        "the statistics of push hold NaN or infinity in tensor `w`, first at element 2; measure them again",
    );
    refused(
        [&of_w(SHAPE, &[1.0; 4]), &of_w(SHAPE, &[1.0, 1.0, 1.0, -1.0])],
        &fisher,
        "the statistics of expert 2 of 2 are negative (-1 at element 3)",
    );
    refused(
        [PICK, &[("layer.w", SHAPE, &[1.0; 4])]],
        &fisher,
        "holds statistics of no tensor of push: they are named like `layer.w`, its tensors like `b`",
    );
    let square: &[Tensor<'_>] = &[("w", SHAPE, &[1.0; 4])];
    refused(
        [square, &of_w(&[2, 1], &[1.0; 2])],
        &recipe("merge_method: regmean\n"),
        "w: its statistics of push have shape [2, 1], needed is [2, 2], one row and one column for each of its inputs",
    );
    let without = "merge_method: fisher\nbase_model: base\nmodels: [{model: pick, statistics: pick-statistics}, {model: push}]\n";
    refused([PICK, PUSH], without, "there are none of push; write `statistics: PATH` beside `model:`");
    let missing =
        "merge_method: fisher\nbase_model: base\nmodels: [{model: pick, statistics: gone}, {model: push}]\n";
    refused([PICK, PUSH], missing, "models[0].statistics");
}

#[test]
fn keys_that_the_model_does_not_have_are_noted() {
    let more = [PICK, &[("w.bias", &[1], &[1.0]), ("x", &[1], &[1.0])]].concat();
    let root = world([&more, PUSH]);
    let notes = plan(&root, &recipe(FISHER)).unwrap().notes;
    assert_eq!(notes[1], "not read, because pick has no such tensor: statistics of w.bias and 1 more");
}

#[test]
fn the_same_bytes_for_any_number_of_threads_and_with_masks() {
    // More than one slab, so that threads share the tensor.
    const NUMEL: usize = (1 << 20) + 4096;
    let root = TempDir::new().unwrap();
    let wave = |scale: f32, phase: usize| -> Vec<f32> {
        (0..NUMEL).map(|i| scale * ((i * 7919 + phase * 31) % 1013) as f32 / 1013.0).collect()
    };
    let shape: &[usize] = &[NUMEL];
    for (k, name) in ["base", "pick", "push"].into_iter().enumerate() {
        checkpoint(root.path(), name, &[("w", shape, &wave(1.0, k))]);
    }
    for (k, name) in ["pick-statistics", "push-statistics"].into_iter().enumerate() {
        checkpoint(root.path(), name, &[("w", shape, &wave(1e-3, 7 + k))]);
    }
    let run = |head: &str, threads: usize| -> Vec<u8> {
        let out = root.path().join(format!("out-{threads}"));
        merge(root.path(), &recipe(head), &out, threads).unwrap();
        let read = |name: &str| std::fs::read(out.join(name)).unwrap_or_default();
        let bytes =
            [read("model.safetensors"), read("task_vector.safetensors"), read("masks.safetensors")].concat();
        std::fs::remove_dir_all(&out).unwrap();
        bytes
    };
    for head in ["merge_method: fisher\n", "merge_method: fisher\nmask: tall\n"] {
        let one = run(head, 1);
        assert!(one.len() > 4 * NUMEL);
        assert!(one == run(head, 3), "{head}");
    }
}

/// Paths of statistics are inputs: an output must not replace them.
#[test]
fn an_output_over_statistics_is_refused() {
    let root = world([PICK, PUSH]);
    let out = root.path().join("pick-statistics");
    let error = merge(root.path(), &recipe(FISHER), &out, 1).unwrap_err().to_string();
    assert!(error.contains("is or holds an input"), "{error}");
    assert!(Path::new(&out).join("model.safetensors").is_file());
}
