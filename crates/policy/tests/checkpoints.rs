//! What is missing from a checkpoint or contradicts itself is named; weights are rewritten in place.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::Path;

use ndarray::Array3;
use serde_json::{Value, json};
use skillweld_policy::{ExpertSource, Inputs, Model, ModelOptions, PolicyError};
use skillweld_synth::{ExpertForm, LanguageModel, PrismaticSpec, VitSpec};
use skillweld_tensor::Dtype;

fn spec() -> PrismaticSpec {
    PrismaticSpec {
        language: LanguageModel { layers: 2, ..PrismaticSpec::tiny().language },
        featurizer: VitSpec { width: 16, depth: 2, heads: 2, mlp: 16 },
        fused_featurizer: VitSpec { width: 16, depth: 2, heads: 2, mlp: 16 },
        dtype: Dtype::F32,
        ..PrismaticSpec::tiny()
    }
}

fn open(dir: &Path) -> Result<Model, PolicyError> {
    Model::open(dir, &ModelOptions::default())
}

#[test]
fn problems_of_a_checkpoint_are_named() {
    let dir = tempfile::tempdir().unwrap();
    spec().write_expert(dir.path(), 0, ExpertForm::Full).unwrap();
    open(dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let cases = [
        ("/timm_model_args/0/depth", json!(3), "`depth` is 3, but the tensors are of 2"),
        ("/timm_model_args/1/embed_dim", json!(32), "`embed_dim` is 32, but the tensors are of 16"),
        ("/timm_model_args/0/num_heads", json!(5), "width 16 does not split into 5 heads"),
        (
            "/image_sizes",
            json!([224, 252]),
            "pos_embed holds 256 positions, but images of 252² pixels have 324",
        ),
        ("/text_config/hidden_size", json!(64), "`text_config.hidden_size` is 64"),
        ("/text_config/num_attention_heads", json!(3), "3 heads do not fit queries of width 32"),
        ("/text_config/num_key_value_heads", json!(4), "`text_config.num_key_value_heads` is 4"),
        ("/text_config/num_hidden_layers", json!(24), "`text_config.num_hidden_layers` is 24"),
    ];
    for (place, value, expected) in cases {
        let mut changed = config.clone();
        *changed.pointer_mut(place).unwrap() = value;
        fs::write(&path, changed.to_string()).unwrap();
        let error = open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(expected), "{place}: {error}");
    }
    fs::write(&path, config.to_string()).unwrap();
    for part in ["proprio_projector", "action_head"] {
        fs::remove_file(dir.path().join(format!("{part}--10000_checkpoint.pt"))).unwrap();
        let error = open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(&format!("holds no {part}--*.pt")), "{error}");
    }
}

#[test]
fn parts_of_other_sizes_are_refused() {
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    spec().write_expert(small.path(), 0, ExpertForm::Full).unwrap();
    let language = LanguageModel { layers: 3, ..spec().language };
    PrismaticSpec { language, ..spec() }.write_expert(large.path(), 0, ExpertForm::Full).unwrap();
    let head = "action_head--10000_checkpoint.pt";
    fs::copy(large.path().join(head), small.path().join(head)).unwrap();
    let error = open(small.path()).err().unwrap().to_string();
    assert!(error.contains("has 3 blocks of width 32, but the language model 2 layers"), "{error}");
}

#[test]
fn rewritten_weights_are_the_other_experts() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (index, dir) in dirs.iter().enumerate() {
        spec().write_expert(dir.path(), index, ExpertForm::Full).unwrap();
    }
    let pixels =
        Array3::from_shape_fn((6, 224, 224), |(c, y, x)| ((c + 3 * y + 7 * x) % 23) as f32 / 11.0 - 1.0);
    let inputs = Inputs { pixel_values: pixels.view(), input_ids: &[1, 2, 3], proprio: &[0.1; 8] };
    let hidden = |model: &Model| model.forward(inputs, 0).unwrap().perception.hidden_to_host().unwrap();
    let [mut first, second] = dirs.each_ref().map(|dir| open(dir.path()).unwrap());
    let before = hidden(&first);
    assert_ne!(before, hidden(&second));

    let mut switch = |dir: &Path| {
        let source = ExpertSource::open(dir, None).unwrap();
        let (weights, backend) = first.weights_mut();
        weights.rewrite(backend, &source, |key| !key.contains("action_head")).unwrap();
        hidden(&first)
    };
    assert_eq!(switch(dirs[1].path()), hidden(&second));
    assert_eq!(switch(dirs[0].path()), before);
}
