//! Parameters of masks for single tasks.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use skillweld_merge::recipe::Recipe;
use skillweld_store::Checkpoint;
use skillweld_tensor::BitMask;
use support::heads::{dry_run, experts};
use support::merge;

const EXPERTS: [&[f32; 4]; 2] = [&[1.0, 1.0, -1.0, 2.0], &[2.0, 1.0, -2.0, 2.0]];

/// The masks that a recipe's `mask:` gives for the two experts' task vectors.
fn masks(mask: &str) -> [Vec<bool>; 2] {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &[vec![], vec![]]) + mask;
    let out = dir.path().join("merged");
    merge(dir.path(), &recipe, &out, 1).unwrap();
    let masks = Checkpoint::open(out.join("masks.safetensors")).unwrap();
    ["e0", "e1"].map(|task| {
        let bits = masks.get(&format!("{task}/w")).unwrap().bytes().to_vec();
        let mask = BitMask::from_bytes(4, bits).unwrap();
        (0..4).map(|i| mask.get(i)).collect()
    })
}

/// M_k = |τ_k| > λ_k |τ − τ_k|, by hand.
fn reference(lambdas: [f32; 2]) -> [Vec<bool>; 2] {
    [0, 1].map(|k| {
        let other = EXPERTS[1 - k];
        EXPERTS[k].iter().zip(other).map(|(own, other)| own.abs() > lambdas[k] * other.abs()).collect()
    })
}

#[test]
fn every_task_may_have_its_own_lambda() {
    let both = masks("mask: {method: tall, lambda: {e0: 0.4, e1: 3}}\n");
    assert_eq!(both, reference([0.4, 3.0]));
    assert_ne!(both, masks("mask: {method: tall, lambda: 0.4}\n"));
    // Who is not named has the default.
    assert_eq!(masks("mask: {method: tall, lambda: {e1: 3}}\n"), reference([0.6, 3.0]));
    // A value by rules is no value by task.
    assert_eq!(masks("mask: {method: tall, lambda: {filter: w, value: 0.4}}\n"), reference([0.4, 0.4]));
    assert_eq!(
        masks("mask: {method: tall, lambda: {e0: [{filter: x, value: 9}, {value: 0.4}], e1: 3}}\n"),
        reference([0.4, 3.0])
    );
}

#[test]
fn a_recipe_written_out_keeps_the_lambdas_of_tasks() {
    let text = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: e0}, {model: e1}]\nmask: {method: tall, lambda: {e0: 0.4, e1: 3}}\n";
    let value = Recipe::parse(text).unwrap().to_value();
    assert_eq!(value["mask"], serde_json::json!({"method": "tall", "lambda": {"e0": 0.4, "e1": 3.0}}));
    assert_eq!(Recipe::parse(&value.to_string()).unwrap().to_value(), value);
}

#[test]
fn errors_name_the_task() {
    let refused = |mask: &str, words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let recipe = experts(dir.path(), &[vec![], vec![]]) + mask;
        let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused("mask: {method: tall, lambda: {e1: -1}}\n", &["`lambda` of e1 is -1"]);
    refused("mask: {method: tall, lambda: -1}\n", &["`lambda` of e0 is -1"]);
    refused("mask: {method: tall, lambda: {e2: 1}}\n", &["mask.lambda.e2", "no task is called `e2`", "`e"]);
    refused("mask: {method: tall, lambda: {base: 1}}\n", &["no task is called `base`"]);
    refused("mask: {method: tall, lamda: {e1: 1}}\n", &["`lamda`", "did you mean `lambda`"]);
    refused("mask: {method: tall, lambda: {e1: much}}\n", &["mask.lambda.e1", "a finite number"]);
}
