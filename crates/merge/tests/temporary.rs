//! Outputs that are used at once and removed: the same files, without what only lasting ones need.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs;

use serde_json::{Value, json};
use skillweld_merge::recipe::{Draft, Recipe};
use skillweld_merge::{BaseMode, Models, Plan, RunOptions};
use skillweld_plugin_host::Registry;
use skillweld_synth::{ExpertForm, PrismaticSpec, Qwen2Spec};
use support::{control, files};

const MASKED: &str = "\
merge_method: ties
base_model: base
models: [{model: spatial}, {model: object}]
mask: {method: tall, lambda: 0.6}
router: {rank: 2}
";

#[test]
fn a_temporary_merge_has_the_files_of_a_lasting_one() {
    let dir = tempfile::tempdir().unwrap();
    PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
    fs::write(dir.path().join("recipe.yaml"), MASKED).unwrap();
    let recipe = Recipe::read(&dir.path().join("recipe.yaml")).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    for base in [BaseMode::Copy, BaseMode::Link, BaseMode::Reference] {
        // One after the other over the same opened models.
        let mut written = [false, true].map(|temporary| {
            let out = dir.path().join(format!("{base}-{temporary}"));
            let plan = Plan::new(&recipe, &models, &registry, &control(2)).unwrap();
            let options = RunOptions { base, temporary, ..RunOptions::default() };
            plan.run(&out, options, &control(2)).unwrap();
            files(&out)
        });
        let [lasting, temporary] = written.each_mut().map(|files| {
            let text = files.remove(std::path::Path::new("skillweld.json")).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()
        });
        assert!(written[0] == written[1], "{base}");
        assert_eq!((&lasting["temporary"], &temporary["temporary"]), (&Value::Null, &json!(true)));
        assert_eq!(temporary["outputs_blake3"], json!({}));
        assert_eq!(lasting["report"], temporary["report"]);
    }
}

#[test]
fn plans_over_the_same_models_are_as_those_over_newly_opened_ones() {
    let dir = tempfile::tempdir().unwrap();
    Qwen2Spec::tiny().write_all(dir.path(), &[ExpertForm::Full, ExpertForm::Full]).unwrap();
    // A copy of the base: every tensor is compared to its end.
    fs::create_dir(dir.path().join("twin")).unwrap();
    for (name, bytes) in files(&dir.path().join("base")) {
        fs::write(dir.path().join("twin").join(name), bytes).unwrap();
    }
    let text = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: twin}, {model: expert0}]\n\
                parameters: {lambda: '${l}'}\n";
    fs::write(dir.path().join("recipe.yaml"), text).unwrap();
    let draft = Draft::read(&dir.path().join("recipe.yaml")).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let recipes = ["0.5", "2"].map(|value| draft.recipe(&[("l", value)]).unwrap());
    let shared = Models::open(&recipes[0]).unwrap();
    for recipe in &recipes {
        let anew = Models::open(recipe).unwrap();
        let [shared, anew] = [&shared, &anew].map(|models| {
            let plan = Plan::new(recipe, models, &registry, &control(1)).unwrap();
            let out = tempfile::tempdir().unwrap();
            plan.run(&out.path().join("merged"), RunOptions::default(), &control(1)).unwrap();
            (serde_json::to_value(plan.summary()).unwrap(), files(out.path()))
        });
        assert!(shared == anew);
    }
}
