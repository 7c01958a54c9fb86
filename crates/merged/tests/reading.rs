//! Merged checkpoints are read back as they were written, and refused when their files do not fit one another.

mod support;

use std::time::Instant;

use serde_json::json;
use skillweld_merged::{ExpertPart, MergedCheckpoint, Weight};
use skillweld_store::Checkpoint;
use skillweld_tensor::{Dtype, TensorView};
use support::{Files, data};

fn names<'a>(tensors: impl Iterator<Item = (&'a str, TensorView<'a>)>) -> Vec<&'a str> {
    tensors.map(|(name, _)| name).collect()
}

#[test]
fn everything_written_is_found() {
    let dir = tempfile::tempdir().unwrap();
    Files::small().write(dir.path());
    let merged = MergedCheckpoint::open(dir.path()).unwrap();
    assert_eq!(merged.tasks(), ["pick", "place"]);
    assert!(merged.is_masked() && !merged.is_official() && !merged.needs_base());
    assert_eq!(merged.keys().into_iter().collect::<Vec<_>>(), ["untouched", "w"]);
    assert_eq!(merged.masked_keys().collect::<Vec<_>>(), ["w"]);
    assert_eq!(merged.elements(), 13);
    assert!(matches!(merged.weight("untouched").unwrap(), Weight::Shared(view) if view.numel() == 3));
    assert!(matches!(merged.weight("w").unwrap(), Weight::Masked { .. }));
    assert!(merged.weight("v").unwrap_err().to_string().contains("no tensor `v`"));
    assert_eq!(&*merged.mask(0, "w").unwrap().to_packed(), [0b0101_0011, 0b11]);
    assert_eq!(merged.mask(1, "w").unwrap().count_ones(), 5);
    assert!(merged.mask(0, "untouched").is_none());
    assert_eq!(merged.rescaler(0), 1.0);
    assert_eq!(names(merged.shared_part(ExpertPart::ActionHead)), ["model.fc1.bias"]);
    assert_eq!(names(merged.own_part(ExpertPart::ActionHead, 1)), ["model.fc2.bias"]);
    assert_eq!(names(merged.shared_part(ExpertPart::ProprioProjector)), ["fc1.bias"]);
    assert_eq!(merged.router(1)[0].adapter.to_f32().unwrap().into_raw_vec_and_offset().0, [0.0, 1.0]);
    assert_eq!(merged.statistics(0).unwrap()["pick"]["action"]["mean"], json!([0.5]));
    assert_eq!(merged.document()["format_version"], 1);
}

#[test]
fn a_rescaler_scales_the_masked_task_vector() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::small();
    files.put("masks", "place/__rescaler__", Dtype::F32, &[1], &[2.0]);
    files.write(dir.path());
    let merged = MergedCheckpoint::open(dir.path()).unwrap();
    assert_eq!((merged.rescaler(0), merged.rescaler(1)), (1.0, 2.0));
    let mut values = [0.0; 10];
    merged.task_weight(1, "w").unwrap().decode_block(0, &mut values, &mut Default::default()).unwrap();
    // Θ₀ = i − 3, τ = ¼ (i − 3), kept: elements 0..4 and 8.
    assert_eq!(values, [-4.5, -3.0, -1.5, 0.0, 1.0, 2.0, 3.0, 4.0, 7.5, 6.0]);
}

#[test]
fn without_masks_the_weights_are_final() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::small();
    files.tensors.remove("masks");
    files.tensors.remove("task_vector");
    files.write(dir.path());
    let merged = MergedCheckpoint::open(dir.path()).unwrap();
    assert!(!merged.is_masked());
    assert!(matches!(merged.weight("w").unwrap(), Weight::Shared(_)));
    assert_eq!(names(merged.own_part(ExpertPart::ActionHead, 0)), ["model.fc2.bias"]);
}

#[test]
fn a_referenced_base_is_found_and_can_be_given_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (base, merged_dir) = (dir.path().join("base"), dir.path().join("merged"));
    let mut files = Files::small();
    let model = files.tensors.remove("model").unwrap();
    Files { tensors: [("model", model)].into(), json: [].into() }.write(&base);
    // What has no pretrained value lies with the merged checkpoint.
    files.put("model", "averaged", Dtype::F32, &[1], &[7.0]);
    let document = files.json.get_mut("skillweld.json").unwrap();
    document["base"] = json!({"mode": "reference", "path": "../base"});
    files.write(&merged_dir);
    let merged = MergedCheckpoint::open(&merged_dir).unwrap();
    assert_eq!(merged.keys().into_iter().collect::<Vec<_>>(), ["averaged", "untouched", "w"]);

    std::fs::rename(&base, dir.path().join("moved")).unwrap();
    let error = MergedCheckpoint::open(&merged_dir).unwrap_err().to_string();
    assert!(error.contains("--base PATH"), "{error}");
    let moved = MergedCheckpoint::open_with_base(&merged_dir, Some(&dir.path().join("moved"))).unwrap();
    assert!(matches!(moved.weight("w").unwrap(), Weight::Masked { .. }));
}

#[test]
fn each_inconsistency_is_refused_by_name() {
    type Spoil = fn(&mut Files);
    let spoilt: [(&str, Spoil, &[&str]); 18] = [
        ("future", |f| f.set("format_version", json!(2)), &["format_version is 2", "newer"]),
        ("no version", |f| f.set("format_version", json!(null)), &["format_version is null"]),
        ("no tasks", |f| f.set("tasks", json!("pick")), &["`tasks` must be a list"]),
        ("task twice", |f| f.set("tasks", json!(["pick", "pick"])), &["`pick` twice"]),
        ("unlisted task", |f| f.set("tasks", json!(["pick"])), &["belongs to no task", "place/"]),
        ("task without masks", |f| f.set("tasks", json!(["pick", "place", "push"])), &["push"]),
        ("no model", |f| drop(f.tensors.remove("model")), &["model.safetensors is missing"]),
        ("no masks", |f| drop(f.tensors.remove("masks")), &["masks.safetensors is missing", "merge again"]),
        (
            "no task vector",
            |f| drop(f.tensors.remove("task_vector")),
            &["task_vector.safetensors is missing"],
        ),
        (
            "short mask",
            |f| f.mask("pick", "w", &[true; 8]),
            &["`pick/w` has 1 bytes of U8, but 10 elements take 2"],
        ),
        (
            "mask without task vector",
            |f| f.mask("pick", "untouched", &[true; 3]),
            &["mask `pick/untouched` but no task vector"],
        ),
        ("one mask missing", |f| f.remove("masks", "place/w"), &["task `place` has no mask over `w`"]),
        (
            "other shape",
            |f| f.put("task_vector", "w", Dtype::BF16, &[5, 2], &[0.0; 10]),
            &["`w` has shape [5, 2], its pretrained value [2, 5]"],
        ),
        (
            "no pretrained value",
            |f| f.remove("model", "w"),
            &["`w` has a task vector but no pretrained value"],
        ),
        (
            "rescaler",
            |f| f.put("masks", "pick/__rescaler__", Dtype::F32, &[1], &[f32::NAN]),
            &["`pick/__rescaler__` is not one finite number"],
        ),
        (
            "head",
            |f| f.remove("action_expert", "experts/place/model.fc2.bias"),
            &["action_head of task `place` lacks `model.fc2.bias`"],
        ),
        ("router", |f| f.remove("router", "pick/task"), &["router lacks a subspace of task `pick`"]),
        (
            "statistics",
            |f| f.json.insert("dataset_statistics.json", json!({"pick": {}})).map(drop).unwrap(),
            &["no statistics of task `place`"],
        ),
    ];
    for (what, spoil, said) in spoilt {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::small();
        spoil(&mut files);
        files.write(dir.path());
        let error = MergedCheckpoint::open(dir.path()).expect_err(what).to_string();
        for part in said {
            assert!(error.contains(part), "{what}: {error}");
        }
    }
}

#[test]
fn other_places_are_no_merged_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!MergedCheckpoint::is_at(dir.path()));
    let error = MergedCheckpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("not a merged checkpoint"), "{error}");
    Files::small().write(dir.path());
    let error = MergedCheckpoint::open_with_base(dir.path(), Some(dir.path())).unwrap_err().to_string();
    assert!(error.contains("leave `--base` out"), "{error}");
    std::fs::write(dir.path().join("skillweld.json"), "{").unwrap();
    let error = MergedCheckpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("skillweld.json: not valid JSON"), "{error}");
}

#[test]
fn unknown_tasks_are_answered_with_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    Files::small().write(dir.path());
    let merged = MergedCheckpoint::open(dir.path()).unwrap();
    let error = merged.task_index("plaec").unwrap_err().to_string();
    assert!(
        error.contains("no task `plaec`; did you mean `place`?") && error.contains("pick, place"),
        "{error}"
    );
    assert_eq!(merged.task_index("place").unwrap(), 1);
}

#[test]
fn the_published_layout_opens_without_base_but_has_no_weights_then() {
    let merged = MergedCheckpoint::open(data("merged-official/merged")).unwrap();
    assert!(merged.is_official() && merged.needs_base() && merged.is_masked());
    // By index, not by the order in the file.
    assert_eq!(merged.tasks(), ["libero_spatial", "libero_object"]);
    assert_eq!((merged.rescaler(0), merged.rescaler(1)), (1.25, 0.5));
    let key = "language_model.model.layers.0.mlp.up_proj.weight";
    assert_eq!(merged.mask(0, key).unwrap().len(), 30);
    assert_eq!(merged.masked_keys().count(), 2);
    let error = merged.weight(key).unwrap_err().to_string();
    assert!(error.contains("`--base PATH`"), "{error}");
    assert_eq!(merged.router(1)[0].task.shape(), [2, 4]);
    let own = names(merged.own_part(ExpertPart::ActionHead, 0));
    assert!(
        own.contains(&"model.mlp_resnet_blocks.2.gating_factor") && own.contains(&"model.fc2.weight"),
        "{own:?}"
    );
    assert_eq!(names(merged.shared_part(ExpertPart::ProprioProjector)), ["fc1.weight"]);
    assert_eq!(merged.statistics(1).unwrap()["libero_object_no_noops"]["action"]["mean"], json!([1.0]));
}

#[test]
fn zeros_of_the_published_layout_are_looked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let (base, official) = (dir.path().join("base"), dir.path().join("merged"));
    let files = |value: f32| {
        let mut files = Files { tensors: [].into(), json: [].into() };
        files.put("model", "large", Dtype::F32, &[1 << 23], &vec![value; 1 << 23]);
        files
    };
    files(1.0).write(&base);
    let mut merged = files(0.0);
    // The masks of the small checkpoint, and the tensors that they are over.
    let published = Checkpoint::open(data("merged-official/merged/model.safetensors")).unwrap();
    for key in published.keys() {
        let view = published.get(key).unwrap();
        let tensor = (view.dtype(), view.shape().to_vec(), view.bytes().to_vec());
        merged.tensors.get_mut("model").unwrap().insert(key.to_owned(), tensor);
    }
    merged.write(&official);
    for name in ["tall_masks.pt", "task2idx.pt"] {
        std::fs::copy(data("merged-official/merged").join(name), official.join(name)).unwrap();
    }
    let merged = MergedCheckpoint::open_with_base(&official, Some(&base)).unwrap();
    let clock = || {
        let started = Instant::now();
        assert!(matches!(merged.weight("large").unwrap(), Weight::Shared(view) if view.numel() == 1 << 23));
        started.elapsed()
    };
    let first = clock();
    let later = (0..100).map(|_| clock()).min().unwrap();
    assert!(later * 10 < first, "{later:?} after {first:?}");
    assert!(!merged.depends_on_task("large").unwrap());
}
