//! From experts to one merged checkpoint and back to one checkpoint a task.

mod support;

use skillweld_merge::{CheckpointKind, inspect, materialize};
use skillweld_merged::{MergedCheckpoint, Weight};
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{control, merge, tensor};

#[test]
fn every_task_comes_out_of_the_merge_with_its_own_head_and_its_masked_weights() {
    let dir = tempfile::tempdir().unwrap();
    let written =
        PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
    let models: String = written
        .experts
        .iter()
        .map(|(name, path)| format!("  - {{model: {}, name: {name}}}\n", path.display()))
        .collect();
    for (method, mask) in [("task_arithmetic", "tall"), ("emr", "emr")] {
        let recipe = format!(
            "merge_method: {method}\nbase_model: {}\nmodels:\n{models}mask: {{method: {mask}}}\naction_expert: {{head_blocks: 2}}\n",
            written.base.display()
        );
        let out = dir.path().join(method);
        let report = merge(dir.path(), &recipe, &out, 2).unwrap();
        let merged = MergedCheckpoint::open(&out).unwrap();
        assert_eq!(merged.tasks(), ["spatial", "object"]);
        assert!(merged.masked_keys().count() > 100);

        // What the files hold is what the merge reported.
        let said = report.masks.as_ref().unwrap();
        for (task, name) in merged.tasks().iter().enumerate() {
            let kept: usize =
                merged.masked_keys().map(|key| merged.mask(task, key).unwrap().count_ones()).sum();
            assert_eq!(kept as f64 / said.elements as f64, said.kept[name]);
        }
        // In the order of tasks, which is not that of the alphabet.
        let kept = merged.document()["report"]["masks"]["kept"].as_object().unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["spatial", "object"]);
        assert!(said.kept.keys().eq(merged.tasks()));
        let inspection = inspect(&out).unwrap();
        assert_eq!(inspection.kind, CheckpointKind::Merged);
        let info = inspection.merged.unwrap();
        assert_eq!(
            (info.head_blocks, info.router_rank, info.selfish_ratio),
            (2, Some(8), Some(said.selfish_ratio))
        );

        for (task, (name, expert)) in written.experts.iter().enumerate() {
            assert_eq!(
                merged.rescaler(task),
                said.rescalers.as_ref().map_or(1.0, |rescalers| rescalers[name])
            );
            let plain = dir.path().join(format!("{method}-{name}"));
            materialize(&merged, name, &plain, false, &control(2)).unwrap();
            let (model, base) = (Checkpoint::open(&plain).unwrap(), Checkpoint::open(&written.base).unwrap());
            let (mut shared, mut masked) = (0, 0);
            for key in model.keys() {
                match merged.weight(key).unwrap() {
                    Weight::Shared(view) => {
                        shared += 1;
                        assert_eq!(model.get(key).unwrap().bytes(), view.bytes(), "{key}");
                        if let Some(base) = base.get(key) {
                            assert_eq!(view.bytes(), base.bytes(), "{key}");
                        }
                    }
                    Weight::Masked { .. } => {
                        masked += 1;
                        // What the mask drops is the pretrained weight.
                        let mask = merged.mask(task, key).unwrap().to_packed();
                        let pairs = tensor(&model, key).into_iter().zip(tensor(&base, key));
                        let moved =
                            pairs.enumerate().find(|(i, (a, b))| a != b && mask[i / 8] >> (i % 8) & 1 == 0);
                        assert_eq!(moved, None, "{key}");
                    }
                }
            }
            assert!(shared > 10 && masked > 100, "{shared} shared, {masked} masked");

            let part = |dir: &std::path::Path, what: &str, step: &str| {
                Checkpoint::open(dir.join(format!("{what}--{step}_checkpoint.pt"))).unwrap()
            };
            let (head, own) = (part(&plain, "action_head", name), part(expert, "action_head", "10000"));
            assert_eq!(head.keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>());
            for key in own.keys() {
                let is_own = ["blocks.22.", "blocks.23.", "layer_norm2.", "fc2."]
                    .iter()
                    .any(|part| key.contains(part));
                assert_eq!(head.get(key).unwrap().bytes() == own.get(key).unwrap().bytes(), is_own, "{key}");
            }
            let projector = part(&plain, "proprio_projector", name);
            assert_eq!(
                projector.keys().collect::<Vec<_>>(),
                ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]
            );
            // The output is an expert like those that went in.
            let again = inspect(&plain).unwrap();
            assert_eq!((again.kind, again.statistics), (CheckpointKind::Expert, vec![name.clone()]));
        }
    }
}
