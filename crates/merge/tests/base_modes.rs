//! However a masked merge keeps the pretrained weights, it is the same merge, and its hashes tell what is there.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use skillweld_merge::{
    BaseMode, CheckpointKind, KeptBase, MergeError, Report, RunOptions, inspect, materialize,
};
use skillweld_merged::MergedCheckpoint;
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec, Qwen2Spec};
use support::{checkpoint, control, files, merge_with};

/// Base, an adapter and a full fine-tune with `action_queries.weight` of their own; gives the recipe.
fn experts(root: &Path) -> (PathBuf, String) {
    let written = PrismaticSpec::tiny().write_all(root, &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
    let recipe = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: spatial}, {model: object}]\nmask: tall\n";
    (written.base, recipe.to_owned())
}

fn merge(root: &Path, recipe: &str, out: &str, base: BaseMode) -> Result<Report, MergeError> {
    merge_with(root, recipe, &root.join(out), 2, RunOptions { base, ..RunOptions::default() })
}

fn document(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("skillweld.json")).unwrap()).unwrap()
}

/// Files of tasks made of the merged checkpoint at `out`, but for the note of what they were made of.
fn tasks(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let merged = MergedCheckpoint::open(out).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for task in merged.tasks() {
        materialize(&merged, task, &dir.path().join(task), false, &control(2)).unwrap();
    }
    files(dir.path()).into_iter().filter(|(path, _)| !path.ends_with("skillweld_task.json")).collect()
}

#[test]
fn every_way_to_keep_the_base_gives_the_same_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let (base, recipe) = experts(dir.path());
    let before = files(&base);
    let copied = merge(dir.path(), &recipe, "copied", BaseMode::Copy).unwrap();
    assert!(matches!(copied.base, Some(KeptBase::Copied | KeptBase::Reflinked)), "{:?}", copied.base);
    let linked = merge(dir.path(), &recipe, "linked", BaseMode::Link).unwrap();
    assert_eq!(linked.base, Some(KeptBase::HardLinked));
    let referenced = merge(dir.path(), &recipe, "referenced", BaseMode::Reference).unwrap();
    assert_eq!(referenced.base, Some(KeptBase::Referenced));
    let [copied, linked, referenced] = ["copied", "linked", "referenced"].map(|name| dir.path().join(name));

    let expected = tasks(&copied);
    assert!(expected.len() > 10);
    assert!(tasks(&linked) == expected, "linked");
    assert!(tasks(&referenced) == expected, "referenced");
    assert!(files(&base) == before, "the base has changed");

    for out in [&copied, &linked, &referenced] {
        let inspection = inspect(out).unwrap();
        assert_eq!(inspection.kind, CheckpointKind::Merged);
        assert!(inspection.tensors.iter().any(|tensor| tensor.key.ends_with("embed_tokens.weight")));
    }

    // Hashes are of tensors, not of files: linked or copied, the checkpoint is the same.
    let hash = |dir: &Path| Checkpoint::open(dir).unwrap().content_hash().to_hex().to_string();
    let said = document(&copied)["outputs_blake3"].clone();
    assert_eq!(said["model"], hash(&copied));
    assert_eq!(document(&linked)["outputs_blake3"], said);
    assert_eq!(hash(&linked), hash(&copied));
    assert_eq!(document(&linked)["base"]["mode"], "link");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let of_base: Vec<PathBuf> = Checkpoint::open(&base).unwrap().files().map(Path::to_owned).collect();
    assert!(of_base.len() > 1, "the base is to be sharded");
    let shard = |i: usize| linked.join(format!("model-{:05}-of-{:05}.safetensors", i + 1, of_base.len() + 1));
    for (i, path) in of_base.iter().enumerate() {
        assert_eq!(inode(&shard(i)), inode(path));
    }
    let beside = Checkpoint::open(shard(of_base.len())).unwrap();
    assert_eq!(beside.keys().collect::<Vec<_>>(), ["action_queries.weight"]);

    // What stays with the base is hashed with the base.
    let document = document(&referenced);
    assert_eq!(document["base"]["blake3"], hash(&base));
    assert_eq!(document["outputs_blake3"]["model"], hash(&referenced));
    assert_eq!(document["outputs_blake3"]["task_vector"], said["task_vector"]);
    assert_eq!(Checkpoint::open(&referenced).unwrap().keys().collect::<Vec<_>>(), ["action_queries.weight"]);

    // A copy belongs to itself: nothing of the base is in it once the base is rewritten in place.
    for path in of_base {
        fs::write(path, b"ruined").unwrap();
    }
    assert!(tasks(&copied) == expected, "the copy has changed with the base");
    assert!(MergedCheckpoint::open(&linked).is_err());
}

#[test]
fn a_base_of_one_file_that_has_everything_needs_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let written = Qwen2Spec::tiny().write_all(dir.path(), &[ExpertForm::Full, ExpertForm::Full]).unwrap();
    let recipe = "merge_method: ties\nbase_model: base\nmodels: [{model: expert0}, {model: expert1}]\nparameters: {density: 0.5}\nmask: tall\n";
    merge(dir.path(), recipe, "linked", BaseMode::Link).unwrap();
    let linked = dir.path().join("linked");
    let (kept, base) = (Checkpoint::open(&linked).unwrap(), Checkpoint::open(&written.base).unwrap());
    assert_eq!(kept.files().collect::<Vec<_>>(), [linked.join("model.safetensors")]);
    assert!(!linked.join("model.safetensors.index.json").exists());
    assert_eq!(kept.content_hash(), base.content_hash());
    assert_eq!(document(&linked)["outputs_blake3"]["model"], kept.content_hash().to_hex().as_str());
    // No tensor lies beside the base, so a reference leaves no model file at all.
    merge(dir.path(), recipe, "referenced", BaseMode::Reference).unwrap();
    assert!(!dir.path().join("referenced/model.safetensors").exists());
    assert_eq!(document(&dir.path().join("referenced"))["outputs_blake3"]["model"], Value::Null);
    assert!(tasks(&dir.path().join("referenced")) == tasks(&linked));
}

/// Experts `a` and `b` of one tensor each, on a base of these tensors.
fn experts_on(root: &Path, base: &[(&str, &[usize], &[f32])]) -> &'static str {
    checkpoint(root, "base", base);
    let key = base[0].0.trim_start_matches("module.");
    checkpoint(root, "a", &[(key, &[2], &[1.0, 3.0])]);
    checkpoint(root, "b", &[(key, &[2], &[2.0, 2.0])]);
    "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}]\nmask: tall\n"
}

#[test]
fn a_base_under_wrapped_names_is_copied_or_referenced_but_not_linked() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts_on(dir.path(), &[("module.w", &[2], &[1.0, 2.0])]);
    let copied = merge(dir.path(), recipe, "copied", BaseMode::Copy).unwrap();
    assert_eq!(copied.base, Some(KeptBase::Copied));
    let error = merge(dir.path(), recipe, "linked", BaseMode::Link).unwrap_err().to_string();
    assert!(error.contains("under its own name") && error.contains("use `--base copy`"), "{error}");
    assert!(!dir.path().join("linked").exists());
    merge(dir.path(), recipe, "referenced", BaseMode::Reference).unwrap();
    assert!(tasks(&dir.path().join("referenced")) == tasks(&dir.path().join("copied")));
}

#[test]
fn a_base_that_holds_more_than_the_merge_is_copied_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // A second name of the embedding, which the merge leaves out: in the base's file it would be another tensor.
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let recipe = experts_on(dir.path(), &[(embedding, &[2], &[1.0, 2.0]), (head, &[2], &[1.0, 2.0])]);
    fs::write(dir.path().join("base/config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    let copied = merge(dir.path(), recipe, "copied", BaseMode::Copy).unwrap();
    assert_eq!(copied.base, Some(KeptBase::Copied));
    let kept = Checkpoint::open(dir.path().join("copied")).unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), [embedding]);
    for mode in [BaseMode::Link, BaseMode::Reference] {
        let error = merge(dir.path(), recipe, "merged", mode).unwrap_err().to_string();
        assert!(error.contains("`lm_head.weight`") && error.contains("use `--base copy`"), "{error}");
    }
}

#[test]
fn final_weights_have_no_base_to_keep() {
    let dir = tempfile::tempdir().unwrap();
    let (_, recipe) = experts(dir.path());
    let recipe = recipe.replace("mask: tall\n", "");
    for (mode, name) in [(BaseMode::Link, "link"), (BaseMode::Reference, "reference")] {
        let error = merge(dir.path(), &recipe, "merged", mode).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`--base {name}`")) && error.contains("leave `--base` out"),
            "{error}"
        );
        assert!(!dir.path().join("merged").exists());
    }
    assert_eq!(merge(dir.path(), &recipe, "merged", BaseMode::Copy).unwrap().base, None);
}

#[test]
fn values_that_stay_in_the_base_are_checked_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let bad: (&str, &[usize], &[f32]) = ("same", &[2], &[1.0, f32::NAN]);
    for (name, first) in [("base", 0.0), ("a", 1.0), ("b", 2.0)] {
        checkpoint(dir.path(), name, &[("w", &[1], &[first]), bad]);
    }
    let recipe =
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}]\nmask: tall\n";
    for mode in [BaseMode::Copy, BaseMode::Link, BaseMode::Reference] {
        let error = merge(dir.path(), recipe, "merged", mode).unwrap_err();
        assert!(matches!(&error, MergeError::NonFinite { key, .. } if key == "same"), "{error}");
    }
}
