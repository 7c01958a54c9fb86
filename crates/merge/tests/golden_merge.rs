//! Merged task vectors, masks and rescalers against those of the published MergeVLA code (`tests/data/merge-tiny`).

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use skillweld_store::Checkpoint;
use skillweld_tensor::BitMask;
use support::{data, merge, relative_error, tensor};

const EXPERTS: usize = 3;

/// Merges the fixture with masks, so that τ itself is written.
fn merged(method: &str) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| data("merge-tiny").join(name).display().to_string();
    let models: String = (0..EXPERTS)
        .map(|k| format!("  - {{model: {}, name: \"{k}\"}}\n", at(&format!("expert{k}.safetensors"))))
        .collect();
    let recipe = format!("base_model: {}\nmodels:\n{models}{method}\n", at("base.safetensors"));
    let out = dir.path().join("merged");
    merge(dir.path(), &recipe, &out, 2).unwrap();
    let expected = Checkpoint::open(data("merge-tiny").join("expected.safetensors")).unwrap();
    (dir, expected)
}

fn assert_task_vector(dir: &tempfile::TempDir, expected: &Checkpoint, name: &str) {
    let tau = Checkpoint::open(dir.path().join("merged/task_vector.safetensors")).unwrap();
    assert_eq!(tau.len(), 5);
    for key in tau.keys() {
        let error = relative_error(&tensor(&tau, key), &tensor(expected, &format!("{name}.{key}")));
        assert!(error <= 1e-6, "{name} {key}: {error}");
    }
}

/// Compares masks bit by bit; a difference is allowed only where both sides of the mask's inequality agree to 1e-6.
fn assert_masks(dir: &tempfile::TempDir, expected: &Checkpoint, name: &str, lambda: f32) {
    let masks = Checkpoint::open(dir.path().join("merged/masks.safetensors")).unwrap();
    let tau = Checkpoint::open(dir.path().join("merged/task_vector.safetensors")).unwrap();
    let base = Checkpoint::open(data("merge-tiny").join("base.safetensors")).unwrap();
    for k in 0..EXPERTS {
        let expert = Checkpoint::open(data("merge-tiny").join(format!("expert{k}.safetensors"))).unwrap();
        for key in tau.keys() {
            let bools = expected.get(&format!("{name}.mask.{k}.{key}")).unwrap();
            let packed = masks.get(&format!("{k}/{key}")).unwrap();
            assert_eq!(packed.shape(), [BitMask::byte_len(bools.numel())]);
            let mask = BitMask::from_bytes(bools.numel(), packed.bytes().to_vec()).unwrap();
            let tau = tensor(&tau, key);
            let tau_k = tensor(&expert, key) - tensor(&base, key);
            for (i, (t, t_k)) in tau.iter().zip(&tau_k).enumerate() {
                if mask.get(i) != (bools.bytes()[i] == 1) {
                    let (left, right) = (t_k.abs(), lambda * (t - t_k).abs());
                    assert!(
                        (left - right).abs() <= 1e-6 * left.max(right),
                        "{name} {key}[{i}]: {left} > {right}"
                    );
                }
            }
        }
    }
}

#[test]
fn task_arithmetic_with_tall_masks() {
    let (dir, expected) = merged("merge_method: task_arithmetic\nmask: {method: tall, lambda: 0.6}");
    assert_task_vector(&dir, &expected, "task_arithmetic");
    assert_masks(&dir, &expected, "task_arithmetic", 0.6);
}

#[test]
fn ties_as_in_the_paper_with_tall_masks() {
    let (dir, expected) = merged(
        "merge_method: ties\nparameters: {density: 1, normalize: false, scope: global}\nmask: {method: tall, lambda: 0.6}",
    );
    assert_task_vector(&dir, &expected, "ties_sum_notrim_global");
    assert_masks(&dir, &expected, "ties_sum_notrim_global", 0.6);
}

#[test]
fn ties_with_a_global_threshold_and_the_mean() {
    let (dir, expected) =
        merged("merge_method: ties\nparameters: {density: 0.2, normalize: true, scope: global}\nmask: tall");
    assert_task_vector(&dir, &expected, "ties_mean_k20_global");
}

#[test]
fn emr_brings_its_own_masks_and_rescalers() {
    let (dir, expected) = merged("merge_method: emr");
    assert_task_vector(&dir, &expected, "emr");
    let masks = Checkpoint::open(dir.path().join("merged/masks.safetensors")).unwrap();
    for k in 0..EXPERTS {
        let rescaler = tensor(&masks, &format!("{k}/__rescaler__"));
        let error = relative_error(&rescaler, &tensor(&expected, &format!("emr.rescaler.{k}")));
        assert!(error <= 1e-6, "rescaler {k}: {error}");
        for key in expected.keys().filter_map(|key| key.strip_prefix(&format!("emr.mask.{k}."))) {
            let bools = expected.get(&format!("emr.mask.{k}.{key}")).unwrap();
            let flags: Vec<bool> = bools.bytes().iter().map(|&b| b == 1).collect();
            let packed = masks.get(&format!("{k}/{key}")).unwrap();
            assert_eq!(packed.bytes(), BitMask::from_bools(&flags).as_bytes(), "{key}");
        }
    }
}
