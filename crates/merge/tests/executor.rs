//! What the executor refuses on the way: statistics that do not belong together, NaN that no method sees.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use skillweld_merge::{MergeError, Mixed};
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_tensor::{Dtype, convert};
use support::{merge, tensor};

/// Models `base`, `x` and `y` of two tensors `a` and `b`, task vectors as given.
fn models(root: &Path, task_vectors: [[f32; 10]; 2]) {
    let base = [1.0f32; 10];
    for (name, tau) in [("base", [0.0; 10]), ("x", task_vectors[0]), ("y", task_vectors[1])] {
        let values: Vec<f32> = base.iter().zip(tau).map(|(b, t)| b + t).collect();
        write(&root.join(name), &[("a", &values), ("b", &values)]);
    }
}

fn write(dir: &Path, tensors: &[(&str, &[f32])]) {
    std::fs::create_dir(dir).unwrap();
    let spec = |(name, values): &(&str, &[f32])| TensorSpec {
        name: (*name).into(),
        dtype: Dtype::F32,
        shape: vec![values.len()],
    };
    let specs = tensors.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(dir, "model", specs, &BTreeMap::new(), None).unwrap();
    for (index, (_, values)) in tensors.iter().enumerate() {
        let mut bytes = vec![0; values.len() * 4];
        convert::encode(Dtype::F32, values, &mut bytes).unwrap();
        writer.write_at(index, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn recipe(parameters: &str) -> String {
    format!(
        "merge_method: ties\nbase_model: base\nmodels: [{{model: x}}, {{model: y}}]\nparameters: {{{parameters}}}\n"
    )
}

#[test]
fn a_density_that_varies_by_key_needs_statistics_by_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let x = std::array::from_fn(|i| (i + 1) as f32);
    models(dir.path(), [x, x]);
    let varies = "density: [{filter: a, value: 0.2}, {value: 0.6}]";
    let out = dir.path().join("merged");
    let error = merge(dir.path(), &recipe(&format!("{varies}, scope: global")), &out, 1).unwrap_err();
    assert!(
        matches!(&error, MergeError::MixedStatistics { method, first, key, .. } if method == "ties" && first == "a" && key == "b"),
        "{error}"
    );
    assert!(error.to_string().contains("same parameters"), "{error}");
    assert!(!out.exists());
    // The same recipe by tensor: the largest two entries of one, the largest six of the other.
    merge(dir.path(), &recipe(&format!("{varies}, scope: tensor")), &out, 1).unwrap();
    let merged = Checkpoint::open(&out).unwrap();
    for (key, kept) in [("a", 2), ("b", 6)] {
        let expected: Vec<f32> =
            x.iter().map(|&t| if t > 10.0 - kept as f32 { 1.0 + t } else { 1.0 }).collect();
        assert_eq!(tensor(&merged, key).into_raw_vec_and_offset().0, expected, "{key}");
    }
}

#[test]
fn one_merge_has_one_scope() {
    for (first, other) in [("global", "tensor"), ("tensor", "global")] {
        let dir = tempfile::tempdir().unwrap();
        let x = std::array::from_fn(|i| i as f32);
        models(dir.path(), [x, x]);
        let scope = format!("scope: [{{filter: a, value: {first}}}, {{value: {other}}}], density: 0.5");
        let error = merge(dir.path(), &recipe(&scope), &dir.path().join("merged"), 1).unwrap_err();
        assert!(matches!(&error, MergeError::MixedStatistics { mixed: Mixed::Scopes, .. }), "{error}");
        assert!(error.to_string().contains("give all tensors one `scope`"), "{error}");
    }
}

#[test]
fn equal_parameters_written_in_several_ways_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path(), [std::array::from_fn(|i| i as f32), std::array::from_fn(|i| -(i as f32))]);
    let density = "density: [{filter: a, value: 0.5}, {value: 0.5}], scope: global";
    merge(dir.path(), &recipe(density), &dir.path().join("merged"), 2).unwrap();
}

#[test]
fn nan_in_a_tensor_that_is_only_copied_is_refused() {
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let dir = tempfile::tempdir().unwrap();
        // `same` is the same in all models, so no method is asked; longer than a block, the bad value in the second.
        let mut same = vec![1.0; 20_000];
        same[17_000] = bad;
        for (name, w) in [("base", 0.0), ("x", 1.0), ("y", 2.0)] {
            write(&dir.path().join(name), &[("same", &same), ("w", &[w])]);
        }
        for rest in ["", "mask: tall\n", "out_dtype: bfloat16\n"] {
            let out = dir.path().join("merged");
            let text = recipe("") + rest;
            let error = merge(dir.path(), &text, &out, 2).unwrap_err();
            assert!(
                matches!(&error, MergeError::NonFinite { key, model, element: 17_000 } if key == "same" && model == "the base model"),
                "{error}"
            );
            merge(dir.path(), &(text + "allow_non_finite: true\n"), &out, 2).unwrap();
            std::fs::remove_dir_all(&out).unwrap();
        }
        // Without a base it is the first model's.
        let linear = "merge_method: linear\nmodels: [{model: x}, {model: y}]\n";
        let error = merge(dir.path(), linear, &dir.path().join("merged"), 1).unwrap_err();
        assert!(matches!(&error, MergeError::NonFinite { model, .. } if model == "x"), "{error}");
    }
}
