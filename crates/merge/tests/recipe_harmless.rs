//! What mergekit passes over, or means what happens anyway, is no reason to refuse a recipe; what would change a result is.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;
use std::sync::Mutex;

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, Models, Plan, PlanSummary};
use skillweld_plugin_host::{HostHooks, Registry};
use skillweld_store::Checkpoint;
use support::{checkpoint, merge, tensor};

fn models(root: &Path) {
    for (name, values) in [("base", [0.0, 0.0]), ("a", [1.0, -2.0]), ("b", [3.0, 4.0])] {
        checkpoint(root, name, &[("w", &[2], &values)]);
    }
}

const TIES: &str = "merge_method: ties\nbase_model: base\n";

/// The plan of a recipe, and the warnings on the way.
fn plan(root: &Path, text: &str) -> (PlanSummary, Vec<String>) {
    std::fs::write(root.join("recipe.yaml"), text).unwrap();
    let recipe = Recipe::read(&root.join("recipe.yaml")).unwrap();
    let opened = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let lines = Mutex::new(Vec::new());
    let log = |_, text: &str| lines.lock().unwrap().push(text.to_owned());
    let hooks = HostHooks { log: &log, ..HostHooks::SILENT };
    let summary =
        Plan::new(&recipe, &opened, &registry, &Control { hooks, ..Control::SILENT }).unwrap().summary();
    (summary, lines.into_inner().unwrap())
}

#[test]
fn a_parameter_of_the_whole_merge_on_one_model_has_no_effect_and_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path());
    let with = |parameters: &str| format!("{TIES}models: [{{model: a{parameters}}}, {{model: b}}]\n");
    for (text, out) in [(with(", parameters: {normalize: false}"), "with"), (with(""), "without")] {
        merge(dir.path(), &text, &dir.path().join(out), 1).unwrap();
    }
    let [one, other] =
        ["with", "without"].map(|out| tensor(&Checkpoint::open(dir.path().join(out)).unwrap(), "w"));
    assert_eq!(one, other);
    let (_, warnings) = plan(dir.path(), &with(", parameters: {normalize: false}"));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("models[0].parameters.normalize (line 3): `normalize` of `ties`"),
        "{warnings:?}"
    );
}

#[test]
fn a_filter_that_holds_for_no_tensor_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path());
    let notes = |filter: &str| {
        let weights = format!("[{{filter: {filter}, value: 0.5}}, {{value: 1}}]");
        plan(
            dir.path(),
            &format!("{TIES}models: [{{model: a}}, {{model: b}}]\nparameters: {{weight: {weights}}}\n"),
        )
        .0
        .notes
    };
    assert_eq!(notes("w"), [""; 0]);
    let [note] = &notes("self_attnn")[..] else { panic!("one note") };
    assert!(
        note.contains("parameters.weight") && note.ends_with("contains the filter `self_attnn`"),
        "{note}"
    );
}

#[test]
fn a_union_of_equal_vocabularies_is_the_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path());
    let write = |model: &str, vocabulary: &str| {
        let text = format!("{{\"padding\": \"{model}\", \"model\": {{\"vocab\": {vocabulary}}}}}");
        std::fs::write(dir.path().join(model).join("tokenizer.json"), text).unwrap();
    };
    // Padding is no vocabulary, and `b` has no tokenizer at all.
    write("base", r#"{"x": 0}"#);
    write("a", r#"{"x": 0}"#);
    let text =
        format!("{TIES}models: [{{model: a}}, {{model: b}}]\ntokenizer_source: union\nchat_template: auto\n");
    let out = dir.path().join("merged");
    merge(dir.path(), &text, &out, 1).unwrap();
    assert_eq!(
        std::fs::read(out.join("tokenizer.json")).unwrap(),
        std::fs::read(dir.path().join("base/tokenizer.json")).unwrap()
    );
    write("b", r#"{"x": 1}"#);
    let error = merge(dir.path(), &text, &dir.path().join("again"), 1).unwrap_err().to_string();
    assert!(error.contains("tokenizer_source (line 4): the vocabularies of base and b differ"), "{error}");
}

#[test]
fn the_tokenizer_of_the_base_is_the_first_models_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path());
    std::fs::write(dir.path().join("a/tokenizer.json"), "{}").unwrap();
    let text = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\ntokenizer_source: base\n";
    let out = dir.path().join("merged");
    merge(dir.path(), text, &out, 1).unwrap();
    assert!(out.join("tokenizer.json").is_file());
}

#[test]
fn the_base_among_the_models_is_no_task_however_it_is_spelt() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path());
    for (base, listed) in [("./base", "base"), ("base", "./base/."), ("base/", "base")] {
        let text = format!(
            "merge_method: ties\nbase_model: {base}\nmodels: [{{model: {listed}}}, {{model: a}}, {{model: b}}]\n"
        );
        assert_eq!(plan(dir.path(), &text).0.tasks, ["a", "b"], "{base} {listed}");
    }
    // Links are seen when the models are opened.
    std::os::unix::fs::symlink(dir.path().join("base"), dir.path().join("link")).unwrap();
    let text = "merge_method: ties\nbase_model: base\nmodels: [{model: link}, {model: a}]\n";
    let error = merge(dir.path(), text, &dir.path().join("merged"), 1).unwrap_err().to_string();
    assert!(error.contains("models[0].model (line 3): is the same model as base"), "{error}");
    assert!(error.contains("write the path alike"), "{error}");
}

#[test]
fn allowing_non_finite_values_says_what_may_become_of_them() {
    let dir = tempfile::tempdir().unwrap();
    models(dir.path());
    checkpoint(dir.path(), "nan", &[("w", &[2], &[f32::NAN, 1.0])]);
    let text = format!("{TIES}models: [{{model: a}}, {{model: nan}}]\n");
    let notes = plan(dir.path(), &text).0.notes;
    assert!(notes.is_empty(), "{notes:?}");
    let notes = plan(dir.path(), &(text + "allow_non_finite: true\n")).0.notes;
    assert!(notes.iter().any(|note| note.contains("may make a finite value of one")), "{notes:?}");
}
