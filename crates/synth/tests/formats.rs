//! What is written is what the formats ask for, as an independent reader sees it.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::SafeTensors;
use skillweld_synth::{ExpertForm, PrismaticSpec, Qwen2Spec};
use skillweld_tensor::{Dtype, convert};

/// Every tensor of every safetensors file in `dir`, decoded.
fn read(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let dtype: Dtype = format!("{:?}", view.dtype()).parse().unwrap();
            let mut values = vec![0.0; view.shape().iter().product()];
            convert::decode(dtype, view.data(), &mut values).unwrap();
            let previous = tensors.insert(name, (view.shape().to_vec(), values));
            assert!(previous.is_none(), "a tensor stands in two shards");
        }
    }
    tensors
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_index_names_every_tensor_of_both_shards() {
    let dir = tempfile::tempdir().unwrap();
    PrismaticSpec::tiny().write_base(dir.path()).unwrap();
    let index = json(&dir.path().join("model.safetensors.index.json"));
    let named: BTreeSet<_> = index["weight_map"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(named, read(dir.path()).into_keys().collect());
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        // Neither shard is nearly empty.
        assert!(std::fs::metadata(dir.path().join(shard)).unwrap().len() > 400_000);
    }
}

#[test]
fn names_and_shapes_are_those_of_a_published_checkpoint() {
    // Keys and shapes of a checkpoint that the official model code made with the same sizes.
    let published = include_str!("data/policy-tiny-shapes.json");
    let published: BTreeMap<String, Vec<usize>> = serde_json::from_str(published).unwrap();
    let dir = tempfile::tempdir().unwrap();
    PrismaticSpec::tiny().write_expert(dir.path(), 0, ExpertForm::Full).unwrap();
    let ours: BTreeMap<_, _> = read(dir.path()).into_iter().map(|(n, (shape, _))| (n, shape)).collect();
    assert_eq!(ours, published);
}

#[test]
fn both_forms_of_an_expert_are_the_same_expert() {
    let dir = tempfile::tempdir().unwrap();
    let spec = PrismaticSpec { dtype: Dtype::F32, ..PrismaticSpec::tiny() };
    let (base, full, adapter) =
        (dir.path().join("base"), dir.path().join("full"), dir.path().join("adapter"));
    spec.write_base(&base).unwrap();
    spec.write_expert(&full, 1, ExpertForm::Full).unwrap();
    spec.write_expert(&adapter, 1, ExpertForm::Adapter).unwrap();
    let (base, full) = (read(&base), read(&full));
    let adapter = read(&adapter.join("lora_adapter"));

    let (mut adapted, mut same) = (0, 0);
    for (name, (shape, before)) in &base {
        let (_, after) = &full[name];
        let module = format!("base_model.model.{}", name.strip_suffix(".weight").unwrap_or(name));
        let Some((_, a)) = adapter.get(&format!("{module}.lora_A.weight")) else {
            assert_eq!(before, after, "{name}");
            same += 1;
            continue;
        };
        let (b_shape, b) = &adapter[&format!("{module}.lora_B.weight")];
        let (rank, n) = (b_shape[1], shape[1]);
        for (i, (before, after)) in before.iter().zip(after).enumerate() {
            let (row, column) = (i / n, i % n);
            let product: f32 = (0..rank).map(|k| b[row * rank + k] * a[k * n + column]).sum();
            let expected = before + 2.0 * product;
            assert!((after - expected).abs() <= 1e-6, "{name}[{row}, {column}]: {after} is not {expected}");
        }
        adapted += 1;
    }
    // Linear layers: 24 × 7 of the language model, 3 of the projector, 4 a vision block, 5 of the pooling.
    assert_eq!(adapted, 24 * 7 + 3 + 4 * (3 + 4) + 5);
    assert!(same > 0);
    assert_eq!(full["action_queries.weight"], adapter["base_model.model.action_queries.weight"]);
    assert!(!base.contains_key("action_queries.weight"));
}

#[test]
fn experts_differ_in_every_adapted_tensor_and_specs_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Qwen2Spec::tiny();
    let first = spec.write_all(&dir.path().join("first"), &[ExpertForm::Full; 2]).unwrap();
    let second = spec.write_all(&dir.path().join("second"), &[ExpertForm::Full; 2]).unwrap();
    let (one, two) = (read(&first.experts[0].1), read(&first.experts[1].1));
    for name in read(&first.base).keys() {
        assert_ne!(one[name], two[name], "{name}");
    }
    assert_eq!(one, read(&second.experts[0].1));
    let reseeded = Qwen2Spec { seed: 1, ..spec };
    reseeded.write_base(&dir.path().join("other")).unwrap();
    assert_ne!(read(&first.base), read(&dir.path().join("other")));
}

#[test]
fn the_real_shape_has_the_published_number_of_parameters() {
    // Qwen2.5-0.5B as published: 494 032 768 parameters, embeddings tied.
    assert_eq!(Qwen2Spec::qwen2_5_0_5b().parameters(), 494_032_768);
}
