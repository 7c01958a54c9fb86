//! `--force` replaces an earlier output or an empty folder, never an input or a folder of someone else.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, MergeError, Models, Plan, Report, RunOptions};
use skillweld_plugin_host::Registry;
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{control, files};

/// A base, an expert that is an adapter, a tokenizer's folder, and `recipes/recipe.yaml` over them.
fn inputs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Adapter]).unwrap();
    for name in ["tokenizer", "recipes"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("tokenizer/tokenizer.json"), "{}").unwrap();
    let recipe = "merge_method: task_arithmetic\nbase_model: ../base\nmodels: [{model: ../spatial}]\ntokenizer_source: ../tokenizer\n";
    fs::write(dir.path().join("recipes/recipe.yaml"), recipe).unwrap();
    dir
}

fn force(root: &Path, out: &str) -> Result<Report, MergeError> {
    let recipe = Recipe::read(&root.join("recipes/recipe.yaml"))?;
    let models = Models::open(&recipe)?;
    let registry = Registry::discover(&[])?;
    Plan::new(&recipe, &models, &registry, &Control::SILENT)?.run(
        &root.join(out),
        RunOptions { force: true, ..RunOptions::default() },
        &control(2),
    )
}

#[test]
fn an_input_is_never_replaced() {
    let dir = inputs();
    let before = files(dir.path());
    for input in ["base", "spatial", "spatial/lora_adapter", "tokenizer", "recipes", "."] {
        let error = force(dir.path(), input).unwrap_err().to_string();
        assert!(error.contains("is or holds an input"), "{input}: {error}");
        assert!(files(dir.path()) == before, "{input} has changed something");
    }
}

#[test]
fn a_folder_of_someone_else_is_refused_by_name() {
    let dir = inputs();
    fs::create_dir(dir.path().join("photos")).unwrap();
    fs::write(dir.path().join("photos/cat.jpg"), "cat").unwrap();
    let before = files(dir.path());
    let error = force(dir.path(), "photos").unwrap_err().to_string();
    assert!(error.contains("photos") && error.contains("remove the folder yourself"), "{error}");
    assert!(files(dir.path()) == before);
}

#[test]
fn an_empty_folder_and_an_earlier_merge_are_replaced() {
    let dir = inputs();
    let out = dir.path().join("merged");
    fs::create_dir(&out).unwrap();
    force(dir.path(), "merged").unwrap();
    let first = files(&out);
    fs::write(out.join("stray"), "").unwrap();
    force(dir.path(), "merged").unwrap();
    assert!(files(&out) == first, "the earlier output is not replaced as a whole");
}
