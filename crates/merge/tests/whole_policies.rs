//! Whole policies merged by one method: `action_expert: merge`, `statistics:`, and what a base model lacks.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use skillweld_merge::recipe::{ActionExpertChoice, Recipe};
use skillweld_merged::{ExpertPart, MergedCheckpoint};
use skillweld_store::{Checkpoint, ExpertFiles};
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{merge, tensor};

#[test]
fn action_heads_are_merged_as_all_other_weights() {
    let dir = tempfile::tempdir().unwrap();
    PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Full, ExpertForm::Full]).unwrap();
    let recipe = "merge_method: linear\nmodels: [{model: spatial}, {model: object}]\nparameters: {weight: 0.5}\ngroups: {action: \
                  {weight: 1.0}}\naction_expert: merge\nstatistics: object\n";
    let out = dir.path().join("merged");
    let report = merge(dir.path(), recipe, &out, 2).unwrap();
    assert!(report.action_expert.is_empty(), "heads are compared where they are shared by blocks");
    let merged = MergedCheckpoint::open(&out).unwrap();
    for (part, name) in
        [(ExpertPart::ActionHead, "action_head"), (ExpertPart::ProprioProjector, "proprio_projector")]
    {
        let [a, b] = ["spatial", "object"].map(|task| {
            let files = ExpertFiles::discover(&dir.path().join(task)).unwrap();
            let path = files.parts().find(|(own, _)| *own == name).unwrap().1.to_owned();
            Checkpoint::open(path).unwrap()
        });
        let shared: Vec<_> = merged.shared_part(part).collect();
        assert_eq!(shared.len(), a.len());
        for (key, view) in shared {
            // Halves and sums of two are exact in f32 but for the sum.
            let expected = (tensor(&a, key) + tensor(&b, key)) / 2.0;
            assert_eq!(view.to_f32().unwrap(), expected, "{key}");
        }
    }
    let statistics = merged.statistics(0).unwrap();
    assert!(statistics.contains_key("libero_object_no_noops"), "{:?}", statistics.keys());
    assert_eq!(merged.statistics(1), Some(statistics));
}

#[test]
fn what_the_base_lacks_and_experts_train_from_scratch_is_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let written = PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Full]).unwrap();
    for method in ["slerp\nparameters: {t: 0.5}", "linear", "task_arithmetic"] {
        let recipe = format!(
            "base_model: base\nmodels: [{{model: spatial}}]\naction_expert: merge\nmerge_method: {method}\n"
        );
        let out = dir.path().join(method.split('\n').next().unwrap());
        merge(dir.path(), &recipe, &out, 1).unwrap();
        let (merged, expert) = (
            Checkpoint::open(out.join("model.safetensors")).unwrap(),
            Checkpoint::open(&written.experts[0].1).unwrap(),
        );
        let queries = "action_queries.weight";
        assert_eq!(merged.get(queries).unwrap().bytes(), expert.get(queries).unwrap().bytes(), "{method}");
        assert!(out.join("action_expert.safetensors").is_file());
    }
}

#[test]
fn one_expert_and_one_head_a_task_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Full]).unwrap();
    for more in ["mask: tall", "router: {rank: 4}"] {
        let recipe = format!(
            "merge_method: task_arithmetic\nbase_model: base\nmodels: [{{model: spatial}}]\naction_expert: merge\n{more}\n"
        );
        let error = merge(dir.path(), &recipe, &dir.path().join("merged"), 1).unwrap_err().to_string();
        assert!(error.contains("action_expert: {head_blocks: 1}"), "{error}");
    }
}

#[test]
fn a_base_whose_action_head_is_of_another_design_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spec = PrismaticSpec::tiny();
    spec.write_all(dir.path(), &[ExpertForm::Full]).unwrap();
    let mut deeper = PrismaticSpec::tiny();
    deeper.language.layers += 1;
    let other = dir.path().join("other");
    deeper.write_expert(&other, 0, ExpertForm::Full).unwrap();
    let head = |folder: &Path| {
        let files = ExpertFiles::discover(folder).unwrap();
        files.parts().find(|(own, _)| *own == "action_head").unwrap().1.to_owned()
    };
    let theirs = head(&other);
    let recipe =
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: spatial}]\naction_expert: merge\n";
    fs::copy(&theirs, dir.path().join("base").join(theirs.file_name().unwrap())).unwrap();
    let error = merge(dir.path(), recipe, &dir.path().join("merged"), 1).unwrap_err().to_string();
    assert!(error.contains("only the base model has it: its action expert is of another design"), "{error}");
    // Its own is welcome.
    let own = head(&dir.path().join("spatial"));
    fs::remove_file(dir.path().join("base").join(theirs.file_name().unwrap())).unwrap();
    fs::copy(&own, dir.path().join("base").join(own.file_name().unwrap())).unwrap();
    merge(dir.path(), recipe, &dir.path().join("merged"), 1).unwrap();
}

#[test]
fn recipes_say_it_and_are_read_back() {
    let recipe = Recipe::parse(
        "merge_method: linear\nmodels: [{model: a}, {model: b}]\naction_expert: merge\nstatistics: b",
    )
    .unwrap();
    assert_eq!((recipe.action_expert, recipe.statistics), (ActionExpertChoice::Merge, Some(1)));
    let again = Recipe::parse(&recipe.to_value().to_string()).unwrap();
    assert_eq!((again.action_expert, again.statistics), (ActionExpertChoice::Merge, Some(1)));
    for (more, words) in
        [("action_expert: merged", "`merge`, or a mapping"), ("statistics: c", "the name of a model: a, b")]
    {
        let error =
            Recipe::parse(&format!("merge_method: linear\nmodels: [{{model: a}}, {{model: b}}]\n{more}"))
                .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
