//! One task's checkpoint is Θ₀ + rescaler · M ⊙ τ, rounded once, whoever wrote the merged checkpoint.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

#[path = "../../merged/tests/support/mod.rs"]
mod merged_support;
mod support;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use merged_support::{Files, data, decode, encode};
use proptest::prelude::*;
use skillweld_merge::{Control, MaterializeReport, MergeError, materialize};
use skillweld_merged::MergedCheckpoint;
use skillweld_plugin_host::HostHooks;
use skillweld_store::{Checkpoint, TorchFile};
use skillweld_tensor::Dtype;
use std::path::Path;
use support::{control, files};

const REFUSE: bool = false;
const FORCE: bool = true;

fn small(dir: &Path) -> MergedCheckpoint {
    Files::small().write(dir);
    MergedCheckpoint::open(dir).unwrap()
}

#[test]
fn a_task_becomes_a_plain_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let merged = small(&dir.path().join("merged"));
    let out = dir.path().join("out");
    let done = AtomicU64::new(0);
    let advance = |elements| {
        done.fetch_add(elements, Ordering::Relaxed);
    };
    let watched = Control { advance: &advance, ..control(2) };
    let report = materialize(&merged, "place", &out, REFUSE, &watched).unwrap();
    assert_eq!(done.into_inner(), merged.elements());
    let side_files = [
        "action_head--place_checkpoint.pt",
        "proprio_projector--place_checkpoint.pt",
        "config.json",
        "dataset_statistics.json",
        "skillweld_task.json",
    ];
    let expected = MaterializeReport {
        task: "place".to_owned(),
        path: out.clone(),
        tensors: 2,
        masked_tensors: 1,
        tensor_bytes: 32,
        rescaler: 1.0,
        non_finite: 0,
        side_files: side_files.map(str::to_owned).to_vec(),
    };
    assert_eq!(report, expected);
    let mut names: Vec<String> = files(&out).into_keys().map(|path| path.display().to_string()).collect();
    names.sort();
    let mut all = side_files.to_vec();
    all.push("model.safetensors");
    all.sort_unstable();
    assert_eq!(names, all);

    let model = Checkpoint::open(&out).unwrap();
    // −0 and a subnormal survive: untouched tensors are copied, not computed.
    assert_eq!(model.get("untouched").unwrap().bytes(), merged.base("untouched").unwrap().bytes());
    // Θ₀ = i − 3, τ = ¼ (i − 3), kept: elements 0..4 and 8. All are exact in bf16.
    let expected = [-3.75, -2.5, -1.25, 0.0, 1.0, 2.0, 3.0, 4.0, 6.25, 6.0];
    assert_eq!(model.get("w").unwrap().bytes(), encode(Dtype::BF16, &expected));

    let head = Checkpoint::open(out.join("action_head--place_checkpoint.pt")).unwrap();
    assert_eq!(head.keys().collect::<Vec<_>>(), ["model.fc1.bias", "model.fc2.bias"]);
    let projector = TorchFile::open(&out.join("proprio_projector--place_checkpoint.pt")).unwrap();
    assert_eq!(projector.tensors()[0].0, "fc1.bias");
    let statistics = std::fs::read_to_string(out.join("dataset_statistics.json")).unwrap();
    let statistics: serde_json::Value = serde_json::from_str(&statistics).unwrap();
    assert_eq!(statistics, serde_json::json!({"place": {"action": {"mean": [0.5]}}}));
}

#[test]
fn the_published_layout_gives_what_its_own_loader_computes() {
    let dir = tempfile::tempdir().unwrap();
    let official = data("merged-official");
    let expected = Checkpoint::open(official.join("expected.safetensors")).unwrap();
    let base = official.join("base");
    // The same merge once more as dense weights Θ₀ + τ, in f32 so that no rounding hides in the difference.
    let dense = dir.path().join("dense");
    std::fs::create_dir(&dense).unwrap();
    for name in ["task2idx.pt", "tall_masks.pt", "action_head--checkpoint.pt"] {
        std::fs::copy(official.join("merged").join(name), dense.join(name)).unwrap();
    }
    let (pretrained, vector) =
        (Checkpoint::open(&base).unwrap(), Checkpoint::open(official.join("merged")).unwrap());
    let mut files = Files { tensors: [].into(), json: [].into() };
    for key in vector.keys() {
        let tau = vector.get(key).unwrap();
        let add = pretrained.get(key).unwrap().to_f32().unwrap() + tau.to_f32().unwrap();
        files.put("model", key, Dtype::F32, tau.shape(), add.as_slice().unwrap());
    }
    files.write(&dense);

    for merged in [official.join("merged"), dense] {
        let merged = MergedCheckpoint::open_with_base(merged, Some(&base)).unwrap();
        for task in ["libero_spatial", "libero_object"] {
            let out = dir.path().join("out");
            materialize(&merged, task, &out, FORCE, &control(2)).unwrap();
            let model = Checkpoint::open(&out).unwrap();
            assert_eq!(model.len(), 5);
            for key in model.keys() {
                let (actual, expected) =
                    (model.get(key).unwrap(), expected.get(&format!("{task}/{key}")).unwrap());
                let exact = actual.dtype() == expected.dtype() && actual.bytes() == expected.bytes();
                // f32 beside bf16: tensors without a mask keep the dense file's dtype, and their values are the same.
                let close = actual.to_f32().unwrap() == expected.to_f32().unwrap();
                assert!(exact || close, "{task}/{key}");
            }
            let head = Checkpoint::open(out.join(format!("action_head--{task}_checkpoint.pt"))).unwrap();
            let own = expected.keys().filter_map(|key| key.strip_prefix(&format!("{task}/head/")));
            for key in own {
                let expected = expected.get(&format!("{task}/head/{key}")).unwrap();
                let actual = head.get(key).unwrap();
                assert_eq!(
                    (actual.shape(), actual.bytes()),
                    (expected.shape(), expected.bytes()),
                    "{task}/{key}"
                );
            }
            assert_eq!(head.len(), 1 + 3 * 4 + 2);
        }
    }
}

#[test]
fn unmasked_elements_of_f64_weights_keep_their_bits() {
    let dir = tempfile::tempdir().unwrap();
    let third = 1.0f64 / 3.0;
    let mut files = Files::small();
    files.put("model", "w", Dtype::F64, &[2, 5], &[0.0; 10]);
    let tensor = &mut files.tensors.get_mut("model").unwrap().get_mut("w").unwrap().2;
    *tensor = third.to_le_bytes().repeat(10);
    files.write(&dir.path().join("merged"));
    let merged = MergedCheckpoint::open(dir.path().join("merged")).unwrap();
    let out = dir.path().join("out");
    materialize(&merged, "place", &out, REFUSE, &control(1)).unwrap();
    let model = Checkpoint::open(&out).unwrap();
    let bytes = model.get("w").unwrap().bytes();
    for (i, element) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let kept = i < 4 || i == 8;
        let computed = f64::from(third as f32 + 0.25 * (i as f32 - 3.0));
        assert_eq!(f64::from_le_bytes(*element), if kept { computed } else { third }, "{i}");
    }
}

#[test]
fn values_beyond_the_dtype_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::small();
    files.put("model", "w", Dtype::F16, &[2, 5], &[60000.0; 10]);
    files.put("task_vector", "w", Dtype::F16, &[2, 5], &[60000.0; 10]);
    files.write(&dir.path().join("merged"));
    let merged = MergedCheckpoint::open(dir.path().join("merged")).unwrap();
    let report = materialize(&merged, "place", &dir.path().join("out"), REFUSE, &control(1)).unwrap();
    assert_eq!(report.non_finite, 5);
}

#[test]
fn refusals_leave_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("merged");
    let merged = small(&input);
    let before = files(dir.path());
    let fail = |task, out: &Path, force, control: &Control<'_>| {
        materialize(&merged, task, out, force, control).unwrap_err().to_string()
    };
    let out = dir.path().join("out");
    let unknown = fail("pik", &out, REFUSE, &control(1));
    assert!(unknown.contains("did you mean `pick`?"), "{unknown}");
    let itself = fail("pick", &input, FORCE, &control(1));
    assert!(itself.contains("is or holds an input"), "{itself}");
    let parent = fail("pick", dir.path(), FORCE, &control(1));
    assert!(parent.contains("is or holds an input"), "{parent}");
    let inside = fail("pick", &input.join("pick"), REFUSE, &control(1));
    assert!(inside.contains("lies inside an input"), "{inside}");
    let calls = AtomicUsize::new(0);
    let cancelled = || calls.fetch_add(1, Ordering::Relaxed) > 0;
    let hooks = HostHooks { cancelled: &cancelled, ..HostHooks::SILENT };
    let stopped = materialize(&merged, "pick", &out, REFUSE, &Control { hooks, ..control(1) });
    assert!(matches!(stopped, Err(MergeError::Cancelled)));
    let needs_base = MergedCheckpoint::open(data("merged-official/merged")).unwrap();
    let needed =
        materialize(&needs_base, "libero_object", &out, REFUSE, &control(1)).unwrap_err().to_string();
    assert!(needed.contains("--base PATH"), "{needed}");
    assert_eq!(files(dir.path()), before);

    materialize(&merged, "pick", &out, REFUSE, &control(1)).unwrap();
    let exists = fail("pick", &out, REFUSE, &control(1));
    assert!(exists.contains("already exists"), "{exists}");
    // An earlier output may go, someone else's folder may not.
    materialize(&merged, "place", &out, FORCE, &control(1)).unwrap();
    let mine = dir.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("notes"), "precious").unwrap();
    let foreign = fail("pick", &mine, FORCE, &control(1));
    assert!(foreign.contains("no output of Skillweld"), "{foreign}");
    assert_eq!(std::fs::read_to_string(mine.join("notes")).unwrap(), "precious");
}

/// The slow definition, one element at a time.
fn reference(base: &[f32], vector: &[f32], kept: &[bool], rescaler: f32, dtype: Dtype) -> Vec<u8> {
    let value = |i: usize| if kept[i] { base[i] + rescaler * vector[i] } else { base[i] };
    (0..base.len()).flat_map(|i| encode(dtype, &[value(i)])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_element_is_as_defined_and_threads_change_nothing(
        // Short tensors, and such that end in a second block or slab.
        len in prop_oneof![0..70usize, (1usize << 14) - 9..(1 << 14) + 9, (1usize << 20) - 5..(1 << 20) + 40],
        seed in any::<u64>(),
        base_dtype in prop_oneof![Just(Dtype::BF16), Just(Dtype::F16), Just(Dtype::F32)],
        vector_dtype in prop_oneof![Just(Dtype::BF16), Just(Dtype::F32)],
        rescaler in 0.5f32..2.0,
    ) {
        let noise = |name: &str| skillweld_synth::Noise::new(seed, name).take(len, 1.0);
        let kept: Vec<bool> = noise("mask").iter().map(|x| *x > 0.3).collect();
        let mut written = Files::small();
        written.put("model", "w", base_dtype, &[len], &noise("base"));
        written.put("task_vector", "w", vector_dtype, &[len], &noise("vector"));
        written.mask("pick", "w", &kept);
        written.mask("place", "w", &vec![false; len]);
        written.put("masks", "pick/__rescaler__", Dtype::F32, &[1], &[rescaler]);
        let dir = tempfile::tempdir().unwrap();
        written.write(&dir.path().join("merged"));
        let merged = MergedCheckpoint::open(dir.path().join("merged")).unwrap();
        let outs = [1, 3].map(|threads| {
            let out = dir.path().join(format!("out{threads}"));
            materialize(&merged, "pick", &out, REFUSE, &control(threads)).unwrap();
            files(&out)
        });
        prop_assert_eq!(&outs[0], &outs[1]);
        let stored = |stem: &str| {
            let (dtype, _, bytes) = &written.tensors[stem]["w"];
            decode(*dtype, bytes)
        };
        let expected = reference(&stored("model"), &stored("task_vector"), &kept, rescaler, base_dtype);
        let model = Checkpoint::open(dir.path().join("out1")).unwrap();
        prop_assert!(model.get("w").unwrap().bytes() == expected);
        // A task that keeps nothing is the pretrained model, bit for bit.
        materialize(&merged, "place", &dir.path().join("none"), REFUSE, &control(2)).unwrap();
        let none = Checkpoint::open(dir.path().join("none")).unwrap();
        prop_assert!(none.get("w").unwrap().bytes() == written.tensors["model"]["w"].2);
    }
}
