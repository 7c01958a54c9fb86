//! Masks and rescalers belong to tasks, in whatever order a slice lists the experts, and whichever it leaves out.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::{Path, PathBuf};

use skillweld_merge::{MergeError, Mixed, Report};
use skillweld_store::Checkpoint;
use skillweld_tensor::BitMask;
use support::{checkpoint, files, merge, tensor};

/// Elements of each tensor: more than a block, and no whole byte of mask at the end.
const LEN: usize = 20_011;
const TASKS: [&str; 3] = ["e0", "e1", "e2"];

/// Values of a layer, unlike those of any other task and layer.
fn task_vector(task: usize, layer: usize) -> Vec<f32> {
    let value = |i: usize| ((i * (7 + 4 * task) + 13 * layer + 5 * task) % 97) as f32 - 48.0;
    (0..LEN).map(value).collect()
}

/// A base of zeros and three experts, two layers each.
fn models(root: &Path) {
    let (shape, zeros) = ([LEN], vec![0.0; LEN]);
    let layers = ["model.layers.0.w", "model.layers.1.w"];
    checkpoint(root, "base", &layers.map(|key| (key, &shape[..], &zeros[..])));
    for (task, name) in TASKS.into_iter().enumerate() {
        let values = [0, 1].map(|layer| task_vector(task, layer));
        checkpoint(root, name, &[0, 1].map(|l| (layers[l], &shape[..], &values[l][..])));
    }
}

/// A recipe whose slices, one layer each, list these experts.
fn recipe(head: &str, slices: [&[usize]; 2]) -> String {
    let slice = |(layer, tasks): (usize, &&[usize])| {
        let names = std::iter::once("base").chain(tasks.iter().map(|&task| TASKS[task]));
        let source = |name: &str| format!("{{model: {name}, layer_range: [{layer}, {}]}}", layer + 1);
        format!("  - sources: [{}]\n", names.map(source).collect::<Vec<_>>().join(", "))
    };
    let slices: String = slices.iter().enumerate().map(slice).collect();
    format!("{head}base_model: base\nslices:\n{slices}")
}

/// Merges on 1, 2 and 3 threads, which must give the same bytes.
fn merged(root: &Path, recipe: &str) -> Result<(PathBuf, Report), MergeError> {
    let out = |threads| root.join(format!("merged{threads}"));
    let report = merge(root, recipe, &out(1), 1)?;
    for threads in [2, 3] {
        merge(root, recipe, &out(threads), threads)?;
        assert!(files(&out(1)) == files(&out(threads)), "{threads} threads give other bytes");
    }
    Ok((out(1), report))
}

/// Compares every mask of every layer with `rule(τ_k, τ)`; tasks that a layer's slice lacks keep nothing.
fn check_masks(out: &Path, report: &Report, slices: [&[usize]; 2], rule: impl Fn(f32, f32) -> bool) {
    let masks = Checkpoint::open(out.join("masks.safetensors")).unwrap();
    let tau = Checkpoint::open(out.join("task_vector.safetensors")).unwrap();
    let present: Vec<usize> = (0..3).filter(|task| slices.iter().any(|slice| slice.contains(task))).collect();
    let mut kept = [0; 3];
    for (layer, slice) in slices.iter().enumerate() {
        let key = format!("model.layers.{layer}.w");
        let merged = tensor(&tau, &key);
        for &task in &present {
            let name = format!("{}/{key}", TASKS[task]);
            let actual = masks.get(&name).unwrap().bytes();
            let bits = task_vector(task, layer).into_iter().zip(&merged);
            let bits = bits.map(|(own, &merged)| slice.contains(&task) && rule(own, merged));
            let expected = BitMask::from_bools(&bits.collect::<Vec<_>>());
            assert!(actual == expected.as_bytes(), "{name}");
            kept[task] += expected.count_ones();
        }
    }
    let counted = report.masks.as_ref().unwrap();
    assert_eq!(counted.elements, 2 * LEN as u64);
    for &task in &present {
        assert_eq!(counted.kept[TASKS[task]], kept[task] as f64 / (2 * LEN) as f64, "{}", TASKS[task]);
    }
}

const TALL: &str = "merge_method: task_arithmetic\nmask: {method: tall, lambda: 0.6}\n";
const EMR: &str = "merge_method: emr\n";

fn tall(own: f32, merged: f32) -> bool {
    own.abs() > 0.6 * (merged - own).abs()
}

#[test]
fn tall_masks_follow_their_tasks() {
    let all: [[&[usize]; 2]; 4] = [[&[0, 1], &[2]], [&[1, 0], &[0, 1]], [&[2, 0, 1], &[1, 2]], [&[2], &[0]]];
    for slices in all {
        let dir = tempfile::tempdir().unwrap();
        models(dir.path());
        let (out, report) = merged(dir.path(), &recipe(TALL, slices)).unwrap();
        check_masks(&out, &report, slices, tall);
    }
}

#[test]
fn emr_masks_and_rescalers_follow_their_tasks() {
    let rescalers = |slices: [&[usize]; 2]| {
        let dir = tempfile::tempdir().unwrap();
        models(dir.path());
        let (out, report) = merged(dir.path(), &recipe(EMR, slices)).unwrap();
        check_masks(&out, &report, slices, |own, merged| own * merged > 0.0);
        let masks = Checkpoint::open(out.join("masks.safetensors")).unwrap();
        TASKS.map(|task| tensor(&masks, &format!("{task}/__rescaler__"))[[0]])
    };
    let expected = rescalers([&[0, 1, 2], &[0, 1, 2]]);
    assert!(expected[0] != expected[1] && expected[1] != expected[2], "{expected:?}");
    // e2 is the task of the index 2 only where the recipe names it last.
    assert_eq!(rescalers([&[0, 1, 2], &[2, 0, 1]]), expected);
    assert_eq!(rescalers([&[0, 1, 2], &[1, 2, 0]]), expected);
}

#[test]
fn sums_over_all_tensors_need_the_same_experts_in_every_slice() {
    for slices in [[&[0, 1][..], &[2]], [&[0, 1], &[0, 2]]] {
        let dir = tempfile::tempdir().unwrap();
        models(dir.path());
        let error = merged(dir.path(), &recipe(EMR, slices)).unwrap_err();
        assert!(
            matches!(&error, MergeError::MixedStatistics { method, mixed: Mixed::Models(_), .. } if method == "emr"),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains("e0, e1") && text.contains("the same models in every slice"), "{text}");
    }
}
