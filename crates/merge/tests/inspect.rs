//! What headers tell about every kind of checkpoint.

#[path = "../../merged/tests/support/mod.rs"]
mod merged_support;

use std::path::{Path, PathBuf};

use merged_support::{Files, data};
use serde_json::json;
use skillweld_merge::{CheckpointKind, Inspection, Totals, inspect, inspect_with_base};
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec};

/// Adapters saved by peft that come with the crate `store`.
fn peft_tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/data/peft-tiny")
}

/// Sums by group are those of the list of tensors.
fn assert_consistent(inspection: &Inspection) {
    let sum = |filter: &dyn Fn(&skillweld_merge::TensorInfo) -> bool| {
        let mut totals = Totals::default();
        for tensor in inspection.tensors.iter().filter(|tensor| filter(tensor)) {
            totals.tensors += 1;
            totals.elements += tensor.shape.iter().product::<usize>() as u64;
            totals.bytes += tensor.bytes;
        }
        totals
    };
    assert_eq!(inspection.total, sum(&|_| true));
    for (dtype, totals) in &inspection.by_dtype {
        assert_eq!(*totals, sum(&|tensor| tensor.dtype == *dtype), "{dtype}");
    }
    for (modality, totals) in &inspection.by_modality {
        assert_eq!(*totals, sum(&|tensor| tensor.modality == *modality), "{modality}");
    }
}

#[test]
fn a_base_and_its_experts_in_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    let spec = PrismaticSpec::tiny();
    let written = spec.write_all(dir.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();

    let base = inspect(&written.base).unwrap();
    assert_consistent(&base);
    assert_eq!((base.kind, base.family.as_deref()), (CheckpointKind::Checkpoint, Some("Prismatic/MergeVLA")));
    let checkpoint = Checkpoint::open(&written.base).unwrap();
    assert_eq!((base.total.tensors, base.total.bytes), (checkpoint.len() as u64, checkpoint.total_bytes()));
    assert_eq!(base.by_dtype.keys().collect::<Vec<_>>(), ["BF16"]);
    assert_eq!(base.by_modality.keys().collect::<Vec<_>>(), ["language", "vision"]);
    let files: std::collections::BTreeSet<&str> =
        base.tensors.iter().map(|tensor| tensor.file.as_str()).collect();
    assert_eq!(
        files.into_iter().collect::<Vec<_>>(),
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    );
    assert!(base.adapter.is_none() && base.side_files.is_empty() && base.merged.is_none());

    let adapter = inspect(&written.experts[0].1).unwrap();
    assert_consistent(&adapter);
    assert_eq!(
        (adapter.kind, adapter.family.as_deref()),
        (CheckpointKind::Expert, Some("Prismatic/MergeVLA"))
    );
    let info = adapter.adapter.as_ref().unwrap();
    assert_eq!(info.ranks.keys().copied().collect::<Vec<_>>(), [8]);
    assert_eq!((info.alpha, &info.scales), (Some(16.0), &[(8, vec![2.0])].into()));
    assert_eq!(info.targets["q_proj"], 24);
    assert_eq!(info.modules_to_save, ["action_queries"]);
    assert_eq!(info.problem, None);
    let parts: Vec<_> =
        adapter.side_files.iter().map(|side| (side.part.as_str(), side.file.as_str())).collect();
    assert_eq!(
        parts,
        [
            ("action_head", "action_head--10000_checkpoint.pt"),
            ("proprio_projector", "proprio_projector--10000_checkpoint.pt")
        ]
    );
    assert_eq!(adapter.statistics, ["libero_spatial_no_noops"]);
    let queries =
        adapter.tensors.iter().find(|tensor| tensor.key.ends_with("action_queries.weight")).unwrap();
    assert_eq!((queries.modality.as_str(), &queries.shape[..]), ("action", &[64, 32][..]));

    let full = inspect(&written.experts[1].1).unwrap();
    assert_consistent(&full);
    assert_eq!(full.kind, CheckpointKind::Expert);
    assert!(full.adapter.is_none());
    assert_eq!(full.by_modality.keys().collect::<Vec<_>>(), ["action", "language", "vision"]);

    // A head alone is of the action expert, though its keys follow no family.
    let head = inspect(written.experts[1].1.join("action_head--10000_checkpoint.pt")).unwrap();
    assert_eq!(head.kind, CheckpointKind::File);
    assert_eq!(head.by_modality.keys().collect::<Vec<_>>(), ["action"]);
    assert_eq!(head.total, full.side_files[0].total);
}

#[test]
fn an_adapter_that_cannot_be_merged_is_described_with_the_reason() {
    let fixture = peft_tiny();
    let dora = inspect(fixture.join("dora")).unwrap();
    assert_eq!(dora.kind, CheckpointKind::Adapter);
    let info = dora.adapter.unwrap();
    assert!(info.problem.as_ref().is_some_and(|problem| problem.contains("dora")), "{:?}", info.problem);
    assert!(info.scales.is_empty());
    let patterns = inspect(fixture.join("rslora_patterns")).unwrap().adapter.unwrap();
    assert!(patterns.rslora && patterns.rank_pattern.is_object() && patterns.alpha_pattern.is_object());
    // alpha 8, one module's 32; rank 4, `down_proj` 6; over the root of the rank.
    assert_eq!(patterns.ranks.keys().collect::<Vec<_>>(), [&4, &6]);
    assert_eq!(patterns.scales, [(4, vec![4.0, 16.0]), (6, vec![(8.0 / 6f64.sqrt()) as f32])].into());
    let base = inspect(fixture.join("base")).unwrap();
    assert_eq!(base.family.as_deref(), Some("language model"));
    // Hugging Face saves tied weights once.
    let plain = inspect(fixture.join("plain")).unwrap();
    assert_consistent(&plain);
    assert_eq!(plain.kind, CheckpointKind::Adapter);
}

#[test]
fn a_merged_checkpoint_is_counted_or_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::small();
    files.write(dir.path());
    let inspection = inspect(dir.path()).unwrap();
    assert_consistent(&inspection);
    assert_eq!(inspection.kind, CheckpointKind::Merged);
    assert_eq!(inspection.statistics, ["pick", "place"]);
    // Masks 1100101011 and 1111000010 (element 0 first).
    let merged = inspection.merged.unwrap();
    assert_eq!(merged.tasks.iter().map(|task| task.density).collect::<Vec<_>>(), [Some(0.6), Some(0.5)]);
    assert_eq!((merged.masked_elements, merged.density), (10, Some(0.55)));
    assert_eq!((merged.selfish_ratio, merged.kept_by_none), (Some(0.5), Some(0.2)));
    assert_eq!((merged.router_rank, merged.head_blocks, merged.tasks[0].head_bytes), (Some(1), 0, 8));

    // A report spares reading the masks: what it says is what is shown.
    files.json.get_mut("skillweld.json").unwrap()["methods"] =
        json!([{"id": "ties", "version": "0.1.0"}, {"id": "tall"}]);
    files.json.get_mut("skillweld.json").unwrap()["report"] = json!({"tensors": {}, "masks": {
        "elements": 10, "selfish_ratio": 0.75, "kept_by_none": 0.125, "kept": {"pick": 0.25, "place": 0.5},
        "agreement": [], "layers": [],
    }});
    let dir = tempfile::tempdir().unwrap();
    files.write(dir.path());
    let merged = inspect(dir.path()).unwrap().merged.unwrap();
    assert_eq!((merged.selfish_ratio, merged.density), (Some(0.75), Some(0.375)));
    assert_eq!(merged.methods, ["ties 0.1.0", "tall"]);
}

#[test]
fn a_merged_checkpoint_of_the_published_code_needs_no_base_to_be_inspected() {
    let inspection = inspect(data("merged-official/merged")).unwrap();
    assert_consistent(&inspection);
    assert_eq!(inspection.kind, CheckpointKind::MergedOfficial);
    assert_eq!(inspection.family.as_deref(), Some("Prismatic/MergeVLA"));
    let merged = inspection.merged.as_ref().unwrap();
    assert!(merged.needs_base && merged.masked);
    assert_eq!((merged.masked_elements, merged.head_blocks, merged.router_rank), (36, 1, Some(2)));
    assert_eq!(merged.tasks.iter().map(|task| task.rescaler).collect::<Vec<_>>(), [1.25, 0.5]);
    // The masks as they are in the file, one byte an element.
    let checkpoint = Checkpoint::open(data("merged-official/merged/tall_masks.pt")).unwrap();
    for task in &merged.tasks {
        let masks = checkpoint.keys().filter(|key| key.starts_with(&task.name) && !key.ends_with("rescaler"));
        let ones: usize =
            masks.map(|key| checkpoint.get(key).unwrap().bytes().iter().filter(|b| **b == 1).count()).sum();
        assert_eq!(task.density, Some(ones as f64 / 36.0));
    }
}

#[test]
fn a_base_can_be_named_where_it_is_missed_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (base, merged) = (dir.path().join("base"), dir.path().join("merged"));
    let mut files = Files::small();
    let model = files.tensors.remove("model").unwrap();
    Files { tensors: [("model", model)].into(), json: [].into() }.write(&base);
    files.set("base", json!({"mode": "reference", "path": dir.path().join("moved")}));
    files.write(&merged);
    let error = inspect(&merged).unwrap_err().to_string();
    assert!(error.contains("--base PATH"), "{error}");
    let found = inspect_with_base(&merged, Some(&base)).unwrap();
    assert_consistent(&found);
    assert!(found.tensors.iter().any(|tensor| tensor.key == "untouched"));

    let official = data("merged-official");
    let found = inspect_with_base(official.join("merged"), Some(&official.join("base"))).unwrap();
    assert!(!found.merged.unwrap().needs_base);

    for path in [&base, &base.join("model.safetensors")] {
        let error = inspect_with_base(path, Some(&base)).unwrap_err().to_string();
        assert!(error.contains("no merged checkpoint") && error.contains("leave `--base` out"), "{error}");
    }
}

#[test]
fn what_holds_no_tensors_is_an_error_and_json_names_everything() {
    let dir = tempfile::tempdir().unwrap();
    assert!(inspect(dir.path()).unwrap_err().to_string().contains("holds no weights"));
    Files::small().write(dir.path());
    let value = serde_json::to_value(inspect(dir.path()).unwrap()).unwrap();
    assert_eq!(value["kind"], "merged");
    assert_eq!(value["tensors"].as_array().unwrap().len(), value["total"]["tensors"]);
    assert_eq!(value["merged"]["tasks"][1]["name"], "place");
}
