//! The directory of an expert: its side parts, its companions, its errors.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod common;

use std::fs;

use common::{data, write_model};
use skillweld_store::{Checkpoint, ExpertFiles, StoreError};

#[test]
fn parts_and_companions_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), "model.safetensors", &[("w", 1)]);
    for name in [
        "config.json",
        "dataset_statistics.json",
        "tokenizer.model",
        "modeling.py",
        ".gitattributes",
        "optimizer.pt",
    ] {
        fs::write(dir.path().join(name), "{}").unwrap();
    }
    fs::copy(data("torch/plain.pt"), dir.path().join("action_head--150000_checkpoint.pt")).unwrap();
    fs::copy(data("torch/trainer.pt"), dir.path().join("proprio_projector--latest_checkpoint.pt")).unwrap();
    let files = ExpertFiles::discover(dir.path()).unwrap();
    let head = files.action_head().unwrap().unwrap();
    assert!(head.get("torch.float32").is_some(), "`module.` is stripped");
    assert_eq!(files.proprio_projector().unwrap().unwrap().len(), 1);
    assert!(files.noisy_action_projector().unwrap().is_none());
    assert_eq!(files.parts().map(|(part, _)| part).collect::<Vec<_>>(), ["action_head", "proprio_projector"]);
    assert_eq!(
        files.companions().collect::<Vec<_>>(),
        ["config.json", "dataset_statistics.json", "modeling.py", "tokenizer.model"]
    );
    assert_eq!(files.file("config.json"), Some(dir.path().join("config.json")));
    assert_eq!(files.file("generation_config.json"), None);
    assert_eq!(files.lora_adapter(), None);
    // The model's own keys are those of its weights alone.
    assert_eq!(Checkpoint::open(dir.path()).unwrap().keys().collect::<Vec<_>>(), ["w"]);

    fs::create_dir(dir.path().join("lora_adapter")).unwrap();
    fs::write(dir.path().join("lora_adapter/adapter_model.safetensors"), "").unwrap();
    let error = ExpertFiles::discover(dir.path()).unwrap_err();
    assert!(error.to_string().contains("no adapter_config.json"), "{error}");
    fs::write(dir.path().join("lora_adapter/adapter_config.json"), "{}").unwrap();
    let files = ExpertFiles::discover(dir.path()).unwrap();
    assert_eq!(files.lora_adapter(), Some(dir.path().join("lora_adapter").as_path()));
}

#[test]
fn two_steps_of_training_are_ambiguous() {
    let dir = tempfile::tempdir().unwrap();
    for step in [100, 200] {
        fs::write(dir.path().join(format!("action_head--{step}_checkpoint.pt")), "").unwrap();
    }
    let error = ExpertFiles::discover(dir.path()).unwrap_err();
    let StoreError::Ambiguous { what, candidates, .. } = &error else { panic!("{error}") };
    assert_eq!((*what, candidates.len()), ("action_head", 2));
    // No recipe names such a file, so it is no remedy to name one.
    let text = error.to_string();
    assert!(text.contains("Move all but one elsewhere") && !text.contains("Name the file"), "{text}");
}

#[test]
fn a_whole_published_layout_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, published) = (dir.path(), data("../../../merged/tests/data/head-tiny"));
    for (from, to) in [("expert0--action_head", "action_head"), ("proprio_projector", "proprio_projector")] {
        fs::copy(published.join(format!("{from}--checkpoint.pt")), dir.join(format!("{to}--checkpoint.pt")))
            .unwrap();
    }
    fs::write(dir.join("dataset_statistics.json"), "{}").unwrap();
    let shapes = fs::read(data("../../../synth/tests/data/policy-tiny-shapes.json")).unwrap();
    let shapes: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&shapes).unwrap();
    write_model(dir, "model.safetensors", &shapes.keys().map(|key| (key.as_str(), 1)).collect::<Vec<_>>());
    let files = ExpertFiles::discover(dir).unwrap();
    assert_eq!(files.action_head().unwrap().unwrap().get("model.fc2.weight").unwrap().shape(), [7, 32]);
    assert!(files.proprio_projector().unwrap().unwrap().get("fc1.weight").is_some());
    assert!(files.file("dataset_statistics.json").is_some());
    let keys = Checkpoint::open(dir).unwrap();
    assert_eq!(skillweld_store::Family::detect(keys.keys()), Some(skillweld_store::Family::Prismatic));
}
