//! A merged checkpoint of ours, exported to the published code's layout and read back: the same policy for every task.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skillweld_interchange::{InterchangeError, MergeVlaReport, export_mergevla, export_work};
use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, Models, Plan, RunOptions};
use skillweld_merged::{ExpertPart, MergedCheckpoint};
use skillweld_plugin_host::Registry;
use skillweld_store::{Checkpoint, TorchFile};
use skillweld_synth::{ExpertForm, PrismaticSpec};
use skillweld_tensor::TensorView;
use tempfile::TempDir;

/// Two experts, merged as `how` says.
fn merged(how: &str) -> TempDir {
    merged_from("base", &[ExpertForm::Adapter, ExpertForm::Full], how)
}

/// The first two of some experts, from the base or one of the others.
fn merged_from(base: &str, forms: &[ExpertForm], how: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    PrismaticSpec::tiny().write_all(dir.path(), forms).unwrap();
    let recipe = dir.path().join("recipe.yaml");
    let models = "models:\n  - {name: libero_spatial, model: spatial}\n  - {name: thing, model: object}\n";
    std::fs::write(&recipe, format!("base_model: {base}\n{models}{how}")).unwrap();
    let recipe = Recipe::read(&recipe).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let plan = Plan::new(&recipe, &models, &registry, &Control::SILENT).unwrap();
    plan.run(&dir.path().join("merged"), RunOptions::default(), &Control::SILENT).unwrap();
    dir
}

const TIES: &str = "merge_method: ties\nparameters: {density: 1.0, normalize: false, scope: global}\n\
                    mask: {method: tall, lambda: 0.6}\naction_expert: {head_blocks: 2}\nrouter: {rank: 4}\n";
const EMR: &str = "merge_method: emr\naction_expert: {head_blocks: 1}\nrouter: {rank: 4, projections: kv}\n";
const PLAIN: &str = "merge_method: task_arithmetic\naction_expert: {head_blocks: 1}\nrouter: none\n";

fn export(dir: &Path) -> Result<(PathBuf, MergeVlaReport), InterchangeError> {
    let out = dir.join("official");
    let merged = MergedCheckpoint::open(dir.join("merged")).unwrap();
    let told = std::sync::atomic::AtomicU64::new(0);
    let advance = |elements| {
        told.fetch_add(elements, std::sync::atomic::Ordering::Relaxed);
    };
    let report = export_mergevla(&merged, &out, false, &Control { advance: &advance, ..Control::SILENT })?;
    assert_eq!(told.into_inner(), export_work(&merged));
    Ok((out, report))
}

/// Every weight of a task, as bytes of its dtype.
fn weights(merged: &MergedCheckpoint, task: usize) -> BTreeMap<String, Vec<u8>> {
    let weight = |key: &str| {
        let weight = merged.task_weight(task, key).unwrap();
        let numel = weight.shape().iter().product::<usize>();
        let mut bytes = vec![0; numel * weight.dtype().bits() / 8];
        weight.encode_block(0, numel, &mut bytes, &mut Default::default()).unwrap();
        bytes
    };
    merged.keys().into_iter().map(|key| (key.to_owned(), weight(key))).collect()
}

fn all<'a>(tensors: impl Iterator<Item = (&'a str, TensorView<'a>)>) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    tensors.map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.bytes().to_vec())).collect()
}

fn assert_same_policy(ours: &MergedCheckpoint, theirs: &MergedCheckpoint) {
    assert!(theirs.is_official() && !theirs.needs_base());
    assert_eq!(ours.tasks(), theirs.tasks());
    assert_eq!(ours.masked_keys().collect::<Vec<_>>(), theirs.masked_keys().collect::<Vec<_>>());
    for task in 0..ours.tasks().len() {
        assert_eq!(ours.rescaler(task), theirs.rescaler(task));
        let (expected, got) = (weights(ours, task), weights(theirs, task));
        assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
        for (key, bytes) in &expected {
            assert_eq!(bytes, &got[key], "{key} of task {task}");
        }
        for part in ExpertPart::ALL {
            assert_eq!(all(ours.shared_part(part)), all(theirs.shared_part(part)), "{part:?}");
            assert_eq!(all(ours.own_part(part, task)), all(theirs.own_part(part, task)), "{part:?}");
        }
        let statistics = theirs.statistics(task).unwrap();
        assert!(
            ours.statistics(task).unwrap().values().any(|own| statistics.values().any(|value| value == own))
        );
        match (&ours.router(task)[..], &theirs.router(task)[..]) {
            ([], []) => {}
            ([values, ..], [got]) => {
                assert_eq!(values.adapter.bytes(), got.adapter.bytes());
                assert_eq!(values.task.bytes(), got.task.bytes());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_task_has_the_same_weights_head_router_and_statistics() {
    for how in [TIES, EMR] {
        let dir = merged(how);
        let (out, report) = export(dir.path()).unwrap();
        let ours = MergedCheckpoint::open(dir.path().join("merged")).unwrap();
        let theirs = MergedCheckpoint::open_with_base(&out, Some(&dir.path().join("base"))).unwrap();
        assert_same_policy(&ours, &theirs);
        assert_eq!((report.tensors, report.masked_tensors), (ours.keys().len(), ours.masked_keys().count()));
        assert_eq!(theirs.rescaler(0) != 1.0, how == EMR);
        for name in ["config.json", "tokenizer.json", "dataset_statistics.json", "skillweld_export.json"] {
            assert!(out.join(name).is_file(), "{name}");
        }
        assert!(!out.join("skillweld.json").exists());
    }
}

#[test]
fn a_merge_without_masks_has_its_final_weights_and_no_masks() {
    let dir = merged(PLAIN);
    let (out, report) = export(dir.path()).unwrap();
    assert!(!out.join("tall_masks.pt").exists());
    assert!(report.notes.iter().any(|note| note.contains("no router")), "{report:?}");
    let [ours, theirs] = [dir.path().join("merged"), out].map(|dir| MergedCheckpoint::open(dir).unwrap());
    assert_same_policy(&ours, &theirs);
}

#[test]
fn the_files_are_those_of_the_published_code() {
    let dir = merged(TIES);
    let (out, _) = export(dir.path()).unwrap();
    let order = TorchFile::open(&out.join("task2idx.pt")).unwrap();
    assert_eq!(order.root().entries().len(), 2);
    let head = Checkpoint::open(out.join("action_head--checkpoint.pt")).unwrap();
    // L − n − 1, from 0: the last block that is merged.
    let block = head.get("model.router_layer_idx").unwrap();
    assert_eq!((block.shape(), block.bytes()), (&[][..], &21i64.to_le_bytes()[..]));
    assert_eq!(head.get("model.mlp_resnet_moe_blocks.1.gating_factor").unwrap().shape(), [2]);
    for key in [
        "model.fc2.experts.1.weight",
        "model.gate.gate.1.routers.1",
        "model.mlp_resnet_blocks.21.ffn.0.weight",
    ] {
        assert!(head.get(key).is_some(), "{key}");
    }
    // Zeros where nothing was merged.
    let model = Checkpoint::open(&out).unwrap();
    let (merged, masked) = (MergedCheckpoint::open(dir.path().join("merged")).unwrap(), |key: &str| {
        TorchFile::open(&out.join("tall_masks.pt")).unwrap().root().get("thing").unwrap().get(key).is_some()
    });
    let untouched =
        merged.keys().into_iter().find(|key| merged.mask(0, key).is_none() && !key.contains("action"));
    let untouched = untouched.unwrap();
    assert!(!masked(untouched) && model.get(untouched).unwrap().bytes().iter().all(|&byte| byte == 0));
}

#[test]
fn what_has_no_place_in_the_layout_is_refused() {
    let dir = merged(&TIES.replace("rank: 4", "rank: 4, projections: k"));
    let error = export(dir.path()).unwrap_err().to_string();
    assert!(error.contains("keys alone") && error.contains("projections: v"), "{error}");
    assert!(!dir.path().join("official").exists());

    // A base model that has action queries of its own.
    let masked = TIES.replace("head_blocks: 2", "head_blocks: 2, action_queries: merge");
    let dir = merged_from("goal", &[ExpertForm::Full; 3], &masked);
    let error = export(dir.path()).unwrap_err().to_string();
    assert!(error.contains("has masks for `action_queries.weight`"), "{error}");

    let dir = merged(TIES);
    let (out, _) = export(dir.path()).unwrap();
    let again = export(dir.path()).unwrap_err().to_string();
    assert!(again.contains("already exists"), "{again}");
    let official = MergedCheckpoint::open(&out).unwrap();
    let error = export_mergevla(&official, &dir.path().join("twice"), false, &Control::SILENT)
        .unwrap_err()
        .to_string();
    assert!(error.contains("in that layout already"), "{error}");
}
