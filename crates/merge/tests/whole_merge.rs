//! A MergeVLA merge of synthetic experts in real formats, from files to files.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{ActionKind, Control, Models, Plan};
use skillweld_plugin_host::Registry;
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec, Written};
use skillweld_tensor::BitMask;
use support::{files, merge, tensor};

/// Which of the experts is a full fine-tune.
const FULL: usize = 1;

/// Two adapters and a full fine-tune on one base, and a recipe over them.
fn experts() -> (tempfile::TempDir, Written, String) {
    let dir = tempfile::tempdir().unwrap();
    let forms = [ExpertForm::Adapter, ExpertForm::Full, ExpertForm::Adapter];
    let written = PrismaticSpec::tiny().write_all(dir.path(), &forms).unwrap();
    let models: String =
        written.experts.iter().map(|(_, path)| format!("  - {{model: {}}}\n", path.display())).collect();
    let recipe = format!(
        "merge_method: ties\nparameters: {{density: 1, normalize: false, scope: global}}\nbase_model: {}\nmodels:\n{models}mask: {{method: tall, lambda: 0.6}}\naction_expert: {{head_blocks: 1}}\nrouter: {{rank: 8, subspace: per_task}}\n",
        written.base.display()
    );
    (dir, written, recipe)
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let (dir, _, recipe) = experts();
    let outputs: Vec<BTreeMap<PathBuf, Vec<u8>>> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let out = dir.path().join(format!("merged{threads}"));
            merge(dir.path(), &recipe, &out, threads).unwrap();
            files(&out)
        })
        .collect();
    for name in ["model.safetensors", "task_vector.safetensors", "masks.safetensors", "skillweld.json"] {
        assert!(outputs[0].contains_key(Path::new(name)), "{name} of {:?}", outputs[0].keys());
    }
    for other in &outputs[1..] {
        assert_eq!(other.keys().collect::<Vec<_>>(), outputs[0].keys().collect::<Vec<_>>());
        for (path, bytes) in other {
            assert!(*bytes == outputs[0][path], "{} differs", path.display());
        }
    }
}

#[test]
fn every_key_of_every_input_is_accounted_for() {
    let (dir, _, recipe) = experts();
    let file = dir.path().join("recipe.yaml");
    std::fs::write(&file, &recipe).unwrap();
    let recipe = Recipe::read(&file).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let summary = Plan::new(&recipe, &models, &registry, &Control::SILENT).unwrap().summary();
    let planned: std::collections::BTreeSet<&str> =
        summary.tensors.iter().map(|line| line.key.as_str()).collect();
    assert_eq!(planned.len(), summary.tensors.len(), "a key is planned twice");
    let base = Checkpoint::open(dir.path().join("base")).unwrap();
    for key in base.keys() {
        assert!(planned.contains(key), "{key} of the base");
    }
    let action = |key: &str| summary.tensors.iter().find(|line| line.key == key).map(|line| line.action);
    assert_eq!(action("action_queries.weight"), Some(ActionKind::Averaged));
    assert_eq!(action("proprio_projector.fc1.weight"), Some(ActionKind::Averaged));
    assert_eq!(action("model.mlp_resnet_blocks.0.o_proj.weight"), Some(ActionKind::Averaged));
    assert_eq!(action("model.mlp_resnet_blocks.23.o_proj.weight"), Some(ActionKind::PerTask));
    assert_eq!(action("model.layer_norm1.weight"), Some(ActionKind::Averaged));
    assert_eq!(action("model.layer_norm2.weight"), Some(ActionKind::PerTask));
    assert_eq!(action("model.fc2.bias"), Some(ActionKind::PerTask));
    assert!(
        summary.tensors.iter().any(|line| line.action == ActionKind::Copied),
        "nothing is the same in all experts"
    );
    assert!(summary.tensors.iter().all(|line| line.action != ActionKind::Refused));
}

#[test]
fn masks_follow_their_definition_and_the_base_is_kept_bit_for_bit() {
    let (dir, written, recipe) = experts();
    let out = dir.path().join("merged");
    let report = merge(dir.path(), &recipe, &out, 2).unwrap();
    let base = Checkpoint::open(dir.path().join("base")).unwrap();
    let kept = Checkpoint::open(out.join("model.safetensors")).unwrap();
    for key in base.keys() {
        assert_eq!(kept.get(key).unwrap().bytes(), base.get(key).unwrap().bytes(), "{key}");
    }
    // The full fine-tune's task vector is the plain difference, so its masks can be checked by hand.
    let (name, path) = &written.experts[FULL];
    let weights = Checkpoint::open(path).unwrap();
    let tau = Checkpoint::open(out.join("task_vector.safetensors")).unwrap();
    let masks = Checkpoint::open(out.join("masks.safetensors")).unwrap();
    let mut compared = 0;
    for key in tau.keys() {
        let packed = masks.get(&format!("{name}/{key}")).unwrap();
        let tau_k = tensor(&weights, key) - tensor(&base, key);
        let merged = tensor(&tau, key);
        let mask = BitMask::from_bytes(tau_k.len(), packed.bytes().to_vec()).unwrap();
        for (i, (t, t_k)) in merged.iter().zip(&tau_k).enumerate() {
            let (left, right) = (t_k.abs(), 0.6 * (t - t_k).abs());
            // τ is stored rounded to bf16; the masks were made before that.
            if (left - right).abs() > 0.02 * left.max(right) {
                assert_eq!(mask.get(i), left > right, "{key}[{i}]");
                compared += 1;
            }
        }
    }
    assert!(compared > 10_000, "only {compared} elements compared");
    let report = report.masks.unwrap();
    assert!(report.selfish_ratio > 0.0 && report.selfish_ratio < 1.0);
    assert_eq!(report.kept.len(), 3);
    assert_eq!(report.agreement.len(), 3);
}

#[test]
fn an_adapter_and_its_merged_weights_give_the_same_task_vector() {
    let dir = tempfile::tempdir().unwrap();
    let written = PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Adapter]).unwrap();
    let run = |scale: &str, out: &str| {
        let recipe = format!(
            "merge_method: task_arithmetic\nbase_model: {}\nmodels: [{{model: {}, parameters: {{weight: {scale}}}}}]\nout_dtype: float32\n",
            written.base.display(),
            written.experts[0].1.display()
        );
        merge(dir.path(), &recipe, &dir.path().join(out), 2).unwrap();
        dir.path().join(out)
    };
    // Θ₀ + BA written in f32, then merged again as a full fine-tune: nothing must change but one rounding.
    let full = run("1", "full");
    let recipe = format!(
        "merge_method: task_arithmetic\nbase_model: {}\nmodels: [{{model: {}}}]\nout_dtype: float32\n",
        written.base.display(),
        full.display()
    );
    merge(dir.path(), &recipe, &dir.path().join("again"), 2).unwrap();
    let (first, again) =
        (Checkpoint::open(&full).unwrap(), Checkpoint::open(dir.path().join("again")).unwrap());
    let mut changed = 0;
    for key in first.keys() {
        let (a, b) = (tensor(&first, key), tensor(&again, key));
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 2.0 * f32::EPSILON * a.abs().max(f32::MIN_POSITIVE), "{key}: {a} {b}");
        }
        let base = Checkpoint::open(&written.base).unwrap();
        changed += usize::from(base.get(key).is_some() && tensor(&base, key) != a);
    }
    assert!(changed > 10, "the adapter changed {changed} tensors");
}

#[test]
fn dare_gives_the_same_bytes_whatever_the_shards_and_threads() {
    let dir = tempfile::tempdir().unwrap();
    let written = PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Full, ExpertForm::Full]).unwrap();
    // The same base in one file instead of shards.
    let single = dir.path().join("single");
    let plain = format!("merge_method: passthrough\nmodels: [{{model: {}}}]\n", written.base.display());
    merge(dir.path(), &plain, &single, 1).unwrap();
    let run = |base: &Path, seed: u64, out: &str, threads: usize| {
        let models: String =
            written.experts.iter().map(|(_, path)| format!("  - {{model: {}}}\n", path.display())).collect();
        let recipe = format!(
            "merge_method: dare_ties\nparameters: {{density: 0.5, weight: 0.7}}\nseed: {seed}\nbase_model: {}\nmodels:\n{models}",
            base.display()
        );
        merge(dir.path(), &recipe, &dir.path().join(out), threads).unwrap();
        Checkpoint::open(dir.path().join(out)).unwrap().content_hash()
    };
    let sharded = run(&written.base, 7, "a", 1);
    assert_eq!(run(&single, 7, "b", 3), sharded);
    assert_ne!(run(&single, 8, "c", 3), sharded);
}

#[test]
fn action_queries_are_averaged_or_masked_as_the_recipe_says() {
    const QUERIES: &str = "action_queries.weight";
    let dir = tempfile::tempdir().unwrap();
    let forms = [ExpertForm::Full, ExpertForm::Full, ExpertForm::Full];
    let written = PrismaticSpec::tiny().write_all(dir.path(), &forms).unwrap();
    let [(_, base), (first, one), (second, other)] = &written.experts[..] else { panic!("three experts") };
    let run = |base: &Path, rest: &str, out: &str| {
        let recipe = format!(
            "merge_method: task_arithmetic\nbase_model: {}\nmodels: [{{model: {}}}, {{model: {}}}]\nmask: {{method: tall, lambda: 0.6}}\naction_expert: {{head_blocks: 1{rest}}}\nout_dtype: float32\n",
            base.display(),
            one.display(),
            other.display()
        );
        merge(dir.path(), &recipe, &dir.path().join(out), 2)
    };
    run(base, "", "mean").unwrap();
    run(base, ", action_queries: merge", "merge").unwrap();
    let queries =
        |path: &Path| tensor(&Checkpoint::open(path).unwrap(), QUERIES).into_iter().collect::<Vec<f32>>();
    let (base_queries, mine, yours) = (queries(base), queries(one), queries(other));

    let kept = queries(&dir.path().join("mean/model.safetensors"));
    let mean = mine.iter().zip(&yours).map(|(a, b)| (a + b) / 2.0);
    // Stored in the queries' own bf16: half a unit in the last of its eight bits.
    assert!(kept.iter().zip(mean).all(|(kept, mean)| (kept - mean).abs() <= mean.abs() / 256.0));

    assert_eq!(queries(&dir.path().join("merge/model.safetensors")), base_queries);
    let vector = queries(&dir.path().join("merge/task_vector.safetensors"));
    let masks = Checkpoint::open(dir.path().join("merge/masks.safetensors")).unwrap();
    for (name, own) in [(first, &mine), (second, &yours)] {
        let mask = masks.get(&format!("{name}/{QUERIES}")).unwrap();
        let mask = BitMask::from_bytes(vector.len(), mask.bytes().to_vec()).unwrap();
        for (i, own) in own.iter().enumerate() {
            let own = own - base_queries[i];
            assert_eq!(mask.get(i), own.abs() > 0.6 * (vector[i] - own).abs(), "{name} [{i}]");
        }
    }

    let refused = run(&written.base, ", action_queries: merge", "refused").unwrap_err().to_string();
    assert!(refused.contains(QUERIES) && refused.contains("write `mean`"), "{refused}");
}
