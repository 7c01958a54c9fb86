//! Adapters that save one name of a tied weight. Expected is what peft 0.21.2 with transformers 5.24 gives on a tied Llama:
//! a module in `modules_to_save` is a copy, so `merge_and_unload` and `save_pretrained` write the trained embedding beside the
//! untouched output head, with `tie_word_embeddings: false`; factors on the embedding change both.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use skillweld_merge::materialize;
use skillweld_merged::MergedCheckpoint;
use skillweld_store::Checkpoint;
use support::heads::dry_run;
use support::{checkpoint, merge, tensor};

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const OLD: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const NEW: [f32; 6] = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0];

/// A tied base that stores its embedding as `stored`, and an adapter on it with these tensors. Gives a recipe.
fn bench(root: &Path, stored: &str, adapter: &[(&str, &[usize], &[f32])]) -> String {
    let projection =
        ("model.layers.0.self_attn.q_proj.weight", &[2usize, 2][..], &[1.0f32, 0.0, 0.0, 1.0][..]);
    let base = checkpoint(root, "base", &[(stored, &[3, 2], &OLD), projection]);
    std::fs::write(base.join("config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    let dir = checkpoint(root, "adapter", adapter);
    std::fs::rename(dir.join("model.safetensors"), dir.join("adapter_model.safetensors")).unwrap();
    let config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]});
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
    "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: adapter, name: task}]\n".to_owned()
}

const SAVED: (&str, &[usize], &[f32]) = ("base_model.model.model.embed_tokens.weight", &[3, 2], &NEW);
const FACTORS: [(&str, &[usize], &[f32]); 2] = [
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", &[1, 2], &[1.0, 1.0]),
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", &[2, 1], &[1.0, 1.0]),
];

fn values(checkpoint: &Checkpoint, key: &str) -> Vec<f32> {
    tensor(checkpoint, key).into_iter().collect()
}

fn is_tied(dir: &Path) -> bool {
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    config["tie_word_embeddings"].as_bool().unwrap()
}

#[test]
fn a_saved_embedding_is_no_longer_tied_to_the_output_head() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = bench(dir.path(), EMBED, &[SAVED, FACTORS[0], FACTORS[1]]);
    let notes = dry_run(dir.path(), &recipe).unwrap().notes.join("\n");
    assert!(notes.contains("untied") && notes.contains(EMBED) && notes.contains(HEAD), "{notes}");
    for (name, method) in [("plain", ""), ("other", "parameters: {weight: 1}\n")] {
        let out = dir.path().join(name);
        merge(dir.path(), &format!("{recipe}{method}"), &out, 1).unwrap();
        let merged = Checkpoint::open(&out).unwrap();
        assert_eq!(values(&merged, EMBED), NEW);
        assert_eq!(values(&merged, HEAD), OLD);
        assert!(!is_tied(&out));
    }
}

#[test]
fn it_is_untied_under_masks_too() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = bench(dir.path(), EMBED, &[SAVED, FACTORS[0], FACTORS[1]]) + "mask: tall\n";
    let (out, plain) = (dir.path().join("merged"), dir.path().join("plain"));
    merge(dir.path(), &recipe, &out, 1).unwrap();
    let merged = MergedCheckpoint::open(&out).unwrap();
    materialize(&merged, "task", &plain, false, &support::control(1)).unwrap();
    let plain = Checkpoint::open(&plain).unwrap();
    assert_eq!(values(&plain, EMBED), NEW);
    assert_eq!(values(&plain, HEAD), OLD);
    assert!(!is_tied(plain.dir()));
}

#[test]
fn factors_on_the_embedding_leave_it_tied() {
    let dir = tempfile::tempdir().unwrap();
    let factors: [(&str, &[usize], &[f32]); 2] = [
        ("base_model.model.model.embed_tokens.lora_embedding_A", &[1, 3], &[1.0, 1.0, 1.0]),
        ("base_model.model.model.embed_tokens.lora_embedding_B", &[2, 1], &[1.0, 1.0]),
    ];
    let recipe = bench(dir.path(), EMBED, &factors);
    let out = dir.path().join("merged");
    merge(dir.path(), &recipe, &out, 1).unwrap();
    let merged = Checkpoint::open(&out).unwrap();
    assert_eq!(values(&merged, EMBED), NEW);
    assert!(merged.get(HEAD).is_none() && is_tied(&out));
}

#[test]
fn an_embedding_without_a_name_of_its_own_cannot_be_untied() {
    let dir = tempfile::tempdir().unwrap();
    let saved = ("base_model.model.lm_head.weight", SAVED.1, SAVED.2);
    let recipe = bench(dir.path(), HEAD, &[saved, FACTORS[0], FACTORS[1]]);
    let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
    assert!(
        text.contains("replaces `lm_head.weight`") && text.contains("tie_word_embeddings: false"),
        "{text}"
    );
    // Nor can one tensor be both, where the base stores the embedding and the adapter the head.
    let dir = tempfile::tempdir().unwrap();
    let recipe = bench(dir.path(), EMBED, &[saved, FACTORS[0], FACTORS[1]]);
    let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
    assert!(
        text.contains("ties to `model.embed_tokens.weight`") && text.contains("merge_and_unload"),
        "{text}"
    );
}
