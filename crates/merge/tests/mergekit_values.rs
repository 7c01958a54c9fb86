//! Recipes of mergekit as they are, and the values that mergekit 0.1.5 gives (`tests/data/mergekit`, made by its
//! `make.py`).

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;
use std::sync::Mutex;

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, Models, Plan, RunOptions};
use skillweld_plugin_host::{HostHooks, Level, Registry};
use skillweld_store::Checkpoint;
use skillweld_tensor::Dtype;
use support::{control, data, tensor};

/// Runs `NAME.yaml`; gives the merged checkpoint, mergekit's, and the warnings.
fn run(name: &str) -> (Checkpoint, Checkpoint, Vec<String>) {
    let recipe = Recipe::read(&data("mergekit").join(format!("{name}.yaml"))).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let warnings = Mutex::new(Vec::new());
    let log = |level, text: &str| {
        assert_eq!(level, Level::Warning, "{text}");
        warnings.lock().unwrap().push(text.to_owned());
    };
    let hooks = HostHooks { log: &log, ..HostHooks::SILENT };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("merged");
    let plan = Plan::new(&recipe, &models, &registry, &Control { hooks, ..Control::SILENT }).unwrap();
    plan.run(&out, RunOptions::default(), &control(2)).unwrap();
    let expected = data("mergekit").join("expected").join(format!("{name}.safetensors"));
    let (merged, expected) = (open(&out), open(&expected));
    assert_eq!(merged.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(merged.len() > 1);
    (merged, expected, warnings.into_inner().unwrap())
}

/// Checkpoints are mapped, so the folder may go.
fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap()
}

/// In f32: 1e-6 of the weights' size, which is 1.
#[track_caller]
fn assert_same(name: &str) {
    let (merged, expected, warnings) = run(name);
    assert_eq!(warnings, [""; 0], "{name}");
    compare(name, &merged, &expected);
}

#[track_caller]
fn compare(name: &str, merged: &Checkpoint, expected: &Checkpoint) {
    for key in merged.keys() {
        for (i, (a, b)) in tensor(merged, key).iter().zip(&tensor(expected, key)).enumerate() {
            assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{name} {key}[{i}]: {a}, mergekit {b}");
        }
    }
}

#[test]
fn ties_rescales_to_the_norm_when_told() {
    for name in ["ties", "ties_rescale", "ties_rescale_sum", "ties_rescale_filter"] {
        assert_same(name);
    }
    // The recipes differ in their results, or this would show nothing.
    let weights = |name: &str| tensor(&run(name).0, "model.layers.0.mlp.up_proj.weight");
    assert_ne!(weights("ties"), weights("ties_rescale"));
    assert_eq!(weights("ties_rescale_filter"), weights("ties_rescale"));
}

#[test]
fn methods_on_the_sphere_are_mergekits() {
    for name in ["nuslerp", "nuslerp_rows", "nuslerp_columns", "multislerp", "multislerp_base"] {
        assert_same(name);
    }
    // With a base model among the models, and fewer steps.
    assert_same("karcher");
    assert_same("karcher_base");
}

#[test]
fn other_methods_are_mergekits() {
    for name in ["model_stock", "model_stock_rows", "nearswap", "arcee_fusion"] {
        assert_same(name);
    }
}

#[test]
fn breadcrumbs_keep_the_middle() {
    for name in ["breadcrumbs", "breadcrumbs_rescale", "breadcrumbs_ties"] {
        assert_same(name);
    }
}

#[test]
fn sce_selects_calculates_and_erases() {
    assert_same("sce");
    assert_same("sce_select");
}

#[test]
fn ram_tells_shared_changes_from_lone_ones() {
    assert_same("ram");
    assert_same("ramplus_tl");
}

#[test]
fn one_rounding_to_bf16_is_at_most_one_step_off() {
    for name in [
        "ties_rescale_bf16",
        "nuslerp_base",
        "breadcrumbs_ties_rescale_bf16",
        "sce_weight_bf16",
        "ramplus_tl_bf16",
    ] {
        assert_one_step_off(name);
    }
}

#[track_caller]
fn assert_one_step_off(name: &str) {
    let (merged, expected, _) = run(name);
    for key in merged.keys() {
        let (a, b) = (merged.get(key).unwrap(), expected.get(key).unwrap());
        assert_eq!((a.dtype(), b.dtype()), (Dtype::BF16, Dtype::BF16));
        for (a, b) in a.bytes().chunks_exact(2).zip(b.bytes().chunks_exact(2)) {
            let [a, b] = [a, b].map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
            assert!(a >> 15 == b >> 15 && a.abs_diff(b) <= 1, "{name} {key}: {a:04x} {b:04x}");
        }
    }
}

#[test]
fn what_drops_all_or_nothing_is_not_random() {
    for name in ["dare_linear_whole", "dare_ties_whole", "della_linear_whole", "della_whole"] {
        assert_same(name);
    }
}

#[test]
fn what_drops_at_random_keeps_the_norm_of_every_tensor() {
    let base = open(&data("mergekit").join("base"));
    for name in ["dare_linear_norm", "dare_ties_norm", "della_linear_norm", "della_norm"] {
        let (merged, expected, _) = run(name);
        for key in merged.keys() {
            let original = tensor(&base, key);
            let norm = |of: &Checkpoint| {
                (tensor(of, key) - &original).iter().map(|x| f64::from(x.abs())).sum::<f64>()
            };
            let (ours, theirs) = (norm(&merged), norm(&expected));
            if theirs == 0.0 {
                // It drew none of the eight entries of a vector: there was nothing to scale.
                assert!(name == "della_linear_norm" && original.len() == 8, "{name} {key}");
                continue;
            }
            // Differences of weights of size 1 in f32.
            assert!((ours / theirs - 1.0).abs() < 1e-5, "{name} {key}: {ours}, mergekit {theirs}");
        }
    }
}

#[test]
fn weights_have_no_effect_on_sce() {
    let (.., warnings) = run("sce_weight_bf16");
    let [weight] = &warnings[..] else { panic!("one warning expected: {warnings:?}") };
    assert!(weight.contains("`weight` has no effect on `sce`"), "{weight}");
}

#[test]
fn what_has_no_effect_on_task_arithmetic_is_warned_of() {
    let (merged, expected, warnings) = run("task_arithmetic");
    compare("task_arithmetic", &merged, &expected);
    let [density, rescale] = &warnings[..] else { panic!("two warnings expected: {warnings:?}") };
    assert!(density.starts_with("models[0].parameters.density (line 5) and 1 more:"), "{density}");
    assert!(density.contains("`density` has no effect on `task_arithmetic`"), "{density}");
    assert!(rescale.starts_with("parameters.rescale (line 8):"), "{rescale}");
}
