//! PEFT adapters give what peft's own merge gives, or are refused by name.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod common;

use std::fs;
use std::path::Path;

use common::{data, safetensors};
use ndarray::{Array2, Ix2};
use skillweld_store::{Adapter, AdapterDelta, AdapterProblem, Checkpoint, StoreError};

fn matrix(checkpoint: &Checkpoint, key: &str) -> Array2<f32> {
    checkpoint.get(key).unwrap().to_f32().unwrap().into_dimensionality::<Ix2>().unwrap()
}

fn problem<T: std::fmt::Debug>(result: Result<T, StoreError>) -> AdapterProblem {
    match result.unwrap_err() {
        StoreError::Adapter { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn merged_weights_are_those_of_peft() {
    let base = Checkpoint::open(data("peft-tiny/base")).unwrap();
    for name in ["plain", "rslora_patterns", "modules_to_save", "embedding"] {
        let adapter = Adapter::open(&data(&format!("peft-tiny/{name}"))).unwrap();
        let expected = Checkpoint::open(data(&format!("peft-tiny/{name}.expected.safetensors"))).unwrap();
        let targets = adapter.check_targets(&base).unwrap();
        assert!(!targets.is_empty());
        for key in expected.keys() {
            let (before, after) = (base.get(key).unwrap(), expected.get(key).unwrap());
            let Some(target) = targets.get(key) else {
                assert_eq!(before.bytes(), after.bytes(), "{name} {key}: peft changed what we leave alone");
                continue;
            };
            match adapter.delta(target).unwrap().unwrap() {
                AdapterDelta::Replace(view) => assert_eq!(view.bytes(), after.bytes(), "{name} {key}"),
                AdapterDelta::LowRank(low_rank) => {
                    assert_eq!(adapter.rank(target), Some(low_rank.rank()));
                    let after = matrix(&expected, key);
                    let error =
                        (matrix(&base, key) + low_rank.to_dense() - &after).mapv(|x| x * x).sum().sqrt();
                    let size = after.mapv(|x| x * x).sum().sqrt();
                    assert!(error <= 1e-6 * size, "{name} {key}: {error} of {size}");
                    // The update is no rounding error itself.
                    assert!(low_rank.to_dense().mapv(|x| x * x).sum().sqrt() > 1e-3 * size, "{name} {key}");
                }
            }
        }
    }
}

#[test]
fn dora_is_refused_by_name() {
    let error = Adapter::open(&data("peft-tiny/dora")).unwrap_err().to_string();
    assert!(error.contains("use_dora") && error.contains("merge_and_unload"), "{error}");
}

/// Writes an adapter with f32 tensors of zeros, rank 2 and alpha 4 unless `config` says otherwise.
fn write_adapter(dir: &Path, config: &str, tensors: &[(&str, &[usize])]) {
    let config = format!(r#"{{"peft_type":"LORA","r":2,"lora_alpha":4{config}}}"#);
    fs::write(dir.join("adapter_config.json"), config).unwrap();
    write_f32(&dir.join("adapter_model.safetensors"), tensors);
}

/// Element i of each tensor is i.
fn write_f32(path: &Path, tensors: &[(&str, &[usize])]) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape) in tensors {
        let begin = data.len();
        data.extend((0..shape.iter().product()).flat_map(|i: usize| (i as f32).to_le_bytes()));
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            data.len()
        ));
    }
    fs::write(path, safetensors(&format!("{{{}}}", entries.join(",")), &data)).unwrap();
}

const A: &str = "base_model.model.q.lora_A.weight";
const B: &str = "base_model.model.q.lora_B.weight";

fn low_rank(adapter: &Adapter, key: &str) -> Array2<f32> {
    match adapter.delta(key).unwrap() {
        Some(AdapterDelta::LowRank(low_rank)) => low_rank.to_dense(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn orientation_follows_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    write_adapter(dir.path(), "", &[(A, &[2, 3]), (B, &[4, 2])]);
    let plain = low_rank(&Adapter::open(dir.path()).unwrap(), "q.weight");
    // Row 0 of B is (0, 1), so row 0 is s times row 1 of A.
    assert_eq!(plain.row(0).to_vec(), [6.0, 8.0, 10.0]);
    assert_eq!(plain.shape(), [4, 3]);

    write_adapter(dir.path(), r#","fan_in_fan_out":true"#, &[(A, &[2, 3]), (B, &[4, 2])]);
    assert_eq!(low_rank(&Adapter::open(dir.path()).unwrap(), "q.weight"), plain.t());

    let embedding = [
        ("base_model.model.e.lora_embedding_A", &[2usize, 3][..]),
        ("base_model.model.e.lora_embedding_B", &[4, 2]),
    ];
    write_adapter(dir.path(), "", &embedding);
    assert_eq!(low_rank(&Adapter::open(dir.path()).unwrap(), "e.weight"), plain.t());

    let named = [
        ("base_model.model.q.lora_A.default.weight", &[2usize, 3][..]),
        ("base_model.model.q.lora_B.default.weight", &[4, 2]),
    ];
    write_adapter(dir.path(), "", &named);
    assert_eq!(low_rank(&Adapter::open(dir.path()).unwrap(), "q.weight"), plain);
}

#[test]
fn two_adapters_in_one_file_are_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let other = "base_model.model.q.lora_A.other.weight";
    write_adapter(dir.path(), "", &[(A, &[2, 3]), (B, &[4, 2]), (other, &[2, 3])]);
    let expected = |first: &str, second: &str| AdapterProblem::TwoTensors {
        target: "q.weight".to_owned(),
        first: first.to_owned(),
        second: second.to_owned(),
    };
    let error = Adapter::open(dir.path()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains(A) && said.contains(other) && said.contains("one adapter"), "{said}");
    assert_eq!(problem::<Adapter>(Err(error)), expected(other, A));

    // The same for a tensor saved whole, under the name of older versions and of newer ones.
    let (old, new) = ("base_model.model.q.modules_to_save.default.weight", "base_model.model.q.weight");
    write_adapter(dir.path(), "", &[(old, &[4, 3]), (new, &[4, 3])]);
    assert_eq!(problem(Adapter::open(dir.path())), expected(old, new));
}

#[test]
fn scales_follow_the_patterns() {
    let dir = tempfile::tempdir().unwrap();
    let factors = |module: &str| {
        [("A", [2, 3]), ("B", [4, 2])].map(|(x, s)| (format!("base_model.model.{module}.lora_{x}.weight"), s))
    };
    let tensors: Vec<(String, [usize; 2])> = ["q", "k"].into_iter().flat_map(factors).collect();
    let mut tensors: Vec<(&str, &[usize])> =
        tensors.iter().map(|(name, shape)| (&**name, &shape[..])).collect();
    tensors.push(("base_model.model.head.weight", &[4, 3]));
    write_adapter(dir.path(), r#","alpha_pattern":{"k":1}"#, &tensors);
    let adapter = Adapter::open(dir.path()).unwrap();
    let scales = ["q.weight", "k.weight", "head.weight", "v.weight"].map(|key| adapter.scale(key));
    assert_eq!(scales, [Some(2.0), Some(0.5), None, None]);
}

#[test]
fn saved_modules_and_biases_replace() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = [
        ("base_model.model.head.modules_to_save.default.weight", &[2usize][..]),
        ("base_model.model.other.modules_to_save.bias", &[2]),
        ("base_model.model.q.bias", &[4]),
    ];
    write_adapter(dir.path(), r#","bias":"all""#, &tensors);
    let adapter = Adapter::open(dir.path()).unwrap();
    assert_eq!(adapter.keys().collect::<Vec<_>>(), ["head.weight", "other.bias", "q.bias"]);
    assert!(matches!(adapter.delta("q.bias"), Ok(Some(AdapterDelta::Replace(view))) if view.shape() == [4]));
    assert!(matches!(adapter.delta("q.weight"), Ok(None)));
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let open = |tensors: &[(&str, &[usize])]| {
        write_adapter(dir.path(), "", tensors);
        problem(Adapter::open(dir.path()))
    };
    assert!(
        matches!(open(&[(A, &[2, 3])]), AdapterProblem::MissingFactor { target } if target == "q.weight")
    );
    assert!(matches!(open(&[(A, &[3, 3]), (B, &[4, 3])]), AdapterProblem::FactorShapes { rank: 2, .. }));
    let unsupported = |tensors: &[(&str, &[usize])]| match open(tensors) {
        AdapterProblem::Unsupported { feature } => feature,
        other => panic!("{other}"),
    };
    assert!(unsupported(&[(A, &[2, 3, 1, 1]), (B, &[4, 2, 1, 1])]).contains("convolution"));
    assert!(unsupported(&[("base_model.model.q.lora_magnitude_vector", &[4])]).contains("DoRA"));
    assert!(unsupported(&[("base_model.model.q.lora_B.bias", &[4])]).contains("lora_bias"));
    assert!(
        unsupported(&[("base_model.model.e.token_adapter.trainable_tokens_delta", &[4])]).contains("tokens")
    );
    assert!(
        unsupported(&[(A, &[2, 3]), (B, &[4, 2]), ("base_model.model.q.weight", &[4, 3])])
            .contains("q.weight")
    );
    for unknown in ["q.lora_A.weight", "base_model.model.q.hada_w1_a", "base_model.model.q.lora_C.weight"] {
        assert_eq!(open(&[(unknown, &[2, 3])]), AdapterProblem::UnknownTensor { tensor: unknown.to_owned() });
    }
}

#[test]
fn targets_are_checked_against_the_base() {
    let (dir, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let check = |adapter: &[(&str, &[usize])], base_tensors: &[(&str, &[usize])]| {
        write_adapter(dir.path(), "", adapter);
        write_f32(&base.path().join("model.safetensors"), base_tensors);
        let base = Checkpoint::open(base.path()).unwrap();
        let adapter = Adapter::open(dir.path()).unwrap();
        adapter
            .check_targets(&base)
            .map(|bound| bound.into_iter().map(|(k, v)| (k, v.to_owned())).collect::<Vec<_>>())
    };
    let lora: [(&str, &[usize]); 2] = [(A, &[2, 3]), (B, &[4, 2])];
    assert_eq!(
        check(&lora, &[("q.weight", &[4, 3])]).unwrap(),
        [("q.weight".to_owned(), "q.weight".to_owned())]
    );
    let AdapterProblem::WrongTarget { target, nearest, .. } = problem(check(&lora, &[("k.weight", &[4, 3])]))
    else {
        panic!()
    };
    assert_eq!((target.as_str(), nearest.as_deref()), ("q.weight", Some("k.weight")));
    let shape = problem(check(&lora, &[("q.weight", &[3, 4])]));
    assert!(matches!(shape, AdapterProblem::TargetShape { base_shape, .. } if base_shape == [3, 4]));

    // An output head that the base keeps under the embedding's name: factors add to it, a replacement cannot.
    let head: [(&str, &[usize]); 2] = [
        ("base_model.model.lm_head.lora_A.weight", &[2, 3]),
        ("base_model.model.lm_head.lora_B.weight", &[4, 2]),
    ];
    let tied: [(&str, &[usize]); 1] = [("model.embed_tokens.weight", &[4, 3])];
    assert_eq!(
        check(&head, &tied).unwrap(),
        [("model.embed_tokens.weight".to_owned(), "lm_head.weight".to_owned())]
    );
    let replaced = problem(check(&[("base_model.model.lm_head.weight", &[4, 3])], &tied));
    assert!(matches!(replaced, AdapterProblem::TiedTarget { .. }), "{replaced}");

    // peft saves the base weight of an adapted embedding along: the same is ignored, another is refused.
    let with_base: [(&str, &[usize]); 3] =
        [(A, &[2, 3]), (B, &[4, 2]), ("base_model.model.q.base_layer.weight", &[4, 3])];
    assert!(check(&with_base, &[("q.weight", &[4, 3])]).is_ok());
    assert!(matches!(problem(check(&with_base, &[("q.weight", &[5, 3])])), AdapterProblem::OtherBase { .. }));
}
