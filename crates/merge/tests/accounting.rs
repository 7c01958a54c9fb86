//! No tensor is lost, none is invented: what only some models have, what they call differently, what is the same.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{ActionKind, Control, MergeError, Models, Plan};
use skillweld_plugin_host::Registry;
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{checkpoint, merge, tensor};

const TASK_ARITHMETIC: &str =
    "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}]\n";

fn merged(root: &Path, recipe: &str) -> Result<Checkpoint, MergeError> {
    let out = root.join("merged");
    merge(root, recipe, &out, 1)?;
    Ok(Checkpoint::open(out).unwrap())
}

#[test]
fn a_head_that_was_untied_and_trained_is_merged_with_the_embedding_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let embed = ("model.embed_tokens.weight", &[2usize][..], &[1.0f32, 2.0][..]);
    let base = checkpoint(dir.path(), "base", &[embed]);
    std::fs::write(base.join("config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    for (name, head) in [("a", [2.0, 2.0]), ("b", [1.0, 4.0])] {
        checkpoint(dir.path(), name, &[embed, ("lm_head.weight", &[2], &head)]);
    }
    let out = merged(dir.path(), TASK_ARITHMETIC).unwrap();
    assert_eq!(tensor(&out, "lm_head.weight").as_slice(), Some(&[2.0, 4.0][..]));
    let config = std::fs::read_to_string(dir.path().join("merged/config.json")).unwrap();
    assert!(config.contains("\"tie_word_embeddings\": false"), "{config}");
}

#[test]
fn slices_take_every_key_that_any_source_has_or_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let layer = |i: usize| format!("model.layers.{i}.up.weight");
    let (first, second) = (layer(0), layer(1));
    let one = &[1usize][..];
    checkpoint(
        dir.path(),
        "a",
        &[(&first, one, &[1.0]), (&second, one, &[2.0]), ("model.norm.weight", one, &[9.0])],
    );
    checkpoint(
        dir.path(),
        "b",
        &[(&first, one, &[3.0]), (&second, one, &[4.0]), ("model.layers.0.up.bias", one, &[5.0])],
    );
    let recipe = |sources: &str| {
        format!("merge_method: linear\nparameters: {{weight: 1}}\nslices:\n  - sources: {sources}\n")
    };
    let both = recipe("[{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 1]}]");
    let text = merged(dir.path(), &both).unwrap_err().to_string();
    assert!(text.contains("model.layers.0.up.bias: missing in a"), "{text}");
    let too_far = recipe("[{model: a, layer_range: [1, 4]}]");
    let text = merged(dir.path(), &too_far).unwrap_err().to_string();
    assert!(text.contains("takes layers 1..4") && text.contains("has no layer 2"), "{text}");
    let out = merged(dir.path(), &recipe("[{model: a, layer_range: [1, 2]}]")).unwrap();
    assert_eq!(out.keys().collect::<Vec<_>>(), ["model.layers.0.up.weight", "model.norm.weight"]);
    assert_eq!(tensor(&out, "model.layers.0.up.weight").as_slice(), Some(&[2.0][..]));
}

#[test]
fn slices_refuse_models_with_several_stacks() {
    let dir = tempfile::tempdir().unwrap();
    let one = &[1usize][..];
    let keys = ["vision_backbone.featurizer.blocks.0.w", "language_model.model.layers.0.w"];
    checkpoint(dir.path(), "a", &[(keys[0], one, &[1.0]), (keys[1], one, &[2.0])]);
    let recipe = "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n";
    let text = merged(dir.path(), recipe).unwrap_err().to_string();
    assert!(
        text.contains("several stacks of layers") && text.contains("vision_backbone.featurizer.blocks"),
        "{text}"
    );
}

#[test]
fn a_prefix_that_one_side_lacks_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let one = &[1usize][..];
    checkpoint(dir.path(), "base", &[("layers.0.w", one, &[1.0])]);
    checkpoint(dir.path(), "a", &[("model.layers.0.w", one, &[2.0])]);
    checkpoint(dir.path(), "b", &[("model.layers.0.w", one, &[3.0])]);
    let text = merged(dir.path(), TASK_ARITHMETIC).unwrap_err().to_string();
    assert!(text.contains("leading `model.`") && text.contains("convert one of them"), "{text}");
}

#[test]
fn a_tensor_that_all_experts_share_is_copied_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    // The mean of three equal numbers is another number for one in seven.
    let values: Vec<f32> = (1..50).map(|i| 1.0 / i as f32).collect();
    let one = &[1usize][..];
    checkpoint(dir.path(), "base", &[("w", one, &[0.0])]);
    for (k, name) in ["a", "b", "c"].into_iter().enumerate() {
        checkpoint(dir.path(), name, &[("w", one, &[k as f32]), ("extra", &[values.len()], &values)]);
    }
    let recipe =
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}, {model: c}]\n";
    let out = merged(dir.path(), recipe).unwrap();
    assert_eq!(tensor(&out, "extra").as_slice(), Some(&values[..]));
}

#[test]
fn a_masked_checkpoint_is_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let one = &[1usize][..];
    for (name, value) in [("base", 0.0), ("a", 1.0), ("b", 2.0)] {
        checkpoint(dir.path(), name, &[("w", one, &[value])]);
    }
    merged(dir.path(), &format!("{TASK_ARITHMETIC}mask: tall\n")).unwrap();
    let again = "merge_method: linear\nmodels: [{model: merged}, {model: a}]\n";
    let error = merge(dir.path(), again, &dir.path().join("again"), 1).unwrap_err();
    assert!(error.to_string().contains("skillweld materialize"), "{error}");
}

#[test]
fn weights_beside_an_adapter_are_ambiguous() {
    let dir = tempfile::tempdir().unwrap();
    let one = &[1usize][..];
    for (name, value) in [("base", 0.0), ("a", 1.0), ("b", 2.0)] {
        checkpoint(dir.path(), name, &[("w", one, &[value])]);
    }
    std::fs::write(dir.path().join("b/adapter_config.json"), "{}").unwrap();
    let text = merged(dir.path(), TASK_ARITHMETIC).unwrap_err().to_string();
    assert!(text.contains("both a model's weights and a LoRA adapter"), "{text}");
}

/// What the plan says about every key, and its notes.
fn summary(root: &Path, recipe: &str) -> skillweld_merge::PlanSummary {
    let file = root.join("recipe.yaml");
    std::fs::write(&file, recipe).unwrap();
    let recipe = Recipe::read(&file).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    Plan::new(&recipe, &models, &registry, &Control::SILENT).unwrap().summary()
}

#[test]
fn a_second_name_that_only_the_base_stores_is_left_out_and_the_output_says_it_is_tied() {
    let dir = tempfile::tempdir().unwrap();
    let key = "model.embed_tokens.weight";
    let values = [1.0f32, 2.0];
    let both = [(key, &[2usize][..], &values[..]), ("lm_head.weight", &[2], &values)];
    let base = checkpoint(dir.path(), "base", &both);
    std::fs::write(base.join("config.json"), r#"{"tie_word_embeddings": false}"#).unwrap();
    checkpoint(dir.path(), "a", &[(key, &[2], &[2.0, 2.0])]);
    checkpoint(dir.path(), "b", &[(key, &[2], &[1.0, 4.0])]);
    let summary = summary(dir.path(), TASK_ARITHMETIC);
    let line = summary.tensors.iter().find(|line| line.key == "lm_head.weight").unwrap();
    assert_eq!(line.action, ActionKind::LeftOut);
    assert!(line.reason.as_ref().unwrap().contains("the same weights as `model.embed_tokens.weight`"));
    let out = merged(dir.path(), TASK_ARITHMETIC).unwrap();
    // Whoever asks for the head finds it under its first name.
    assert_eq!(out.resolve("lm_head.weight"), Some(key));
    assert_eq!(tensor(&out, key).as_slice(), Some(&[2.0, 4.0][..]));
    let config = std::fs::read_to_string(dir.path().join("merged/config.json")).unwrap();
    assert!(config.contains("\"tie_word_embeddings\": true"), "{config}");
}

#[test]
fn heads_and_projectors_that_are_not_merged_are_listed_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let written = PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Full; 2]).unwrap();
    let of = |file: &str| -> String {
        let line = |(name, path): &(String, std::path::PathBuf)| {
            format!("  - {{name: {name}, model: {}{file}}}\n", path.display())
        };
        written.experts.iter().map(line).collect()
    };
    let head = format!("merge_method: task_arithmetic\nbase_model: {}\nmodels:\n", written.base.display());
    let plain = summary(dir.path(), &format!("{head}{}", of("")));
    let action = |key: &str| plain.tensors.iter().find(|line| line.key == key).map(|line| line.action);
    assert_eq!(action("model.fc1.weight"), Some(ActionKind::LeftOut));
    assert_eq!(action("proprio_projector.fc1.weight"), Some(ActionKind::LeftOut));
    let noted = |notes: &[String], words: &[&str]| {
        assert!(notes.iter().any(|note| words.iter().all(|word| note.contains(word))), "{notes:?}");
    };
    noted(
        &plain.notes,
        &["action head and proprio projector", "left out", "action_expert: {head_blocks: 1}"],
    );
    // A masked merge takes them, unless the models are named as files.
    let masked = summary(dir.path(), &format!("{head}{}mask: tall\n", of("")));
    assert!(masked.tensors.iter().all(|line| line.action != ActionKind::LeftOut), "{:?}", masked.notes);
    let files = summary(dir.path(), &format!("{head}{}mask: tall\n", of("/model.safetensors.index.json")));
    for (name, _) in &written.experts {
        noted(&files.notes, &["action_head--", "proprio_projector--", &format!("{name} is named as a file")]);
    }
}
