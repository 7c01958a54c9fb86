//! Bad input gives a clear error that names the thing and the remedy; earlier output stays as it was.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use skillweld_merge::MergeError;
use support::heads::dry_run;
use support::{checkpoint, merge};

const RECIPE: &str = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}]\n";

/// Merges `base`, `a` and `b` and gives the error; nothing may be left of the output.
fn failure(root: &Path, recipe: &str) -> MergeError {
    let out = root.join("merged");
    let error = merge(root, recipe, &out, 2).unwrap_err();
    assert!(!out.exists(), "an output was left behind");
    let left: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    error
}

fn three(root: &Path, b: &[(&str, &[usize], &[f32])]) {
    checkpoint(root, "base", &[("w", &[2, 2], &[0.0, 1.0, 2.0, 3.0])]);
    checkpoint(root, "a", &[("w", &[2, 2], &[1.0, 1.0, 2.0, 3.0])]);
    checkpoint(root, "b", b);
}

#[test]
fn shapes_that_differ_are_named() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[3, 2], &[0.0; 6])]);
    let text = failure(dir.path(), RECIPE).to_string();
    assert!(text.ends_with("w: shapes differ: base and a have [2, 2], b has [3, 2]"), "{text}");
}

#[test]
fn only_embeddings_of_other_rows_are_taken_for_another_vocabulary() {
    for (key, is_vocabulary) in
        [("model.embed_tokens.weight", true), ("lm_head.weight", true), ("model.norm.weight", false)]
    {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(dir.path(), "base", &[(key, &[2, 2], &[0.0; 4])]);
        checkpoint(dir.path(), "a", &[(key, &[2, 2], &[0.0; 4])]);
        checkpoint(dir.path(), "b", &[(key, &[3, 2], &[0.0; 6])]);
        let text = failure(dir.path(), RECIPE).to_string();
        assert_eq!(text.contains("a different vocabulary?"), is_vocabulary, "{text}");
    }
}

#[test]
fn a_dtype_that_is_never_merged_is_named_with_its_model() {
    use skillweld_store::{SafetensorsWriter, TensorSpec};
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    std::fs::remove_file(dir.path().join("b/model.safetensors")).unwrap();
    let spec = TensorSpec { name: "w".to_owned(), dtype: skillweld_tensor::Dtype::I32, shape: vec![2, 2] };
    let writer =
        SafetensorsWriter::create(&dir.path().join("b"), "model", vec![spec], &Default::default(), None)
            .unwrap();
    writer.write_at(0, 0, &[1; 16]).unwrap();
    writer.finish().unwrap();
    let text = failure(dir.path(), RECIPE).to_string();
    assert!(text.contains("b has it as I32, which is copied, never merged"), "{text}");
}

#[test]
fn a_recipe_of_the_base_alone_has_no_expert() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    let error = failure(dir.path(), "merge_method: ties\nbase_model: base\nmodels: [{model: base}]\n");
    assert!(matches!(error, MergeError::NoExperts { .. }), "{error}");
    assert!(error.to_string().contains("list the models to merge"), "{error}");
}

#[test]
fn a_missing_key_is_named_with_the_model_that_lacks_it() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("v", &[2, 2], &[0.0; 4])]);
    let text = failure(dir.path(), RECIPE).to_string();
    assert!(text.contains("w: missing in b, though base and a have it"), "{text}");
    assert!(text.contains("v: missing in a, though b has it"), "{text}");
}

#[test]
fn nan_and_infinity_are_refused_unless_the_recipe_allows_them() {
    for bad in [f32::NAN, f32::INFINITY] {
        let dir = tempfile::tempdir().unwrap();
        three(dir.path(), &[("w", &[2, 2], &[0.0, 1.0, bad, 3.0])]);
        let error = failure(dir.path(), RECIPE);
        assert!(
            matches!(&error, MergeError::NonFinite { key, model, element: 2 } if key == "w" && model == "b"),
            "{error}"
        );
        assert!(error.to_string().contains("allow_non_finite: true"));
        let allowed = format!("{RECIPE}allow_non_finite: true\n");
        merge(dir.path(), &allowed, &dir.path().join("merged"), 1).unwrap();
    }
}

#[test]
fn a_result_that_the_dtype_cannot_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0, 1.0, 2.0, 70000.0])]);
    let text = failure(dir.path(), &format!("{RECIPE}out_dtype: float16\n")).to_string();
    assert!(text.contains("tensor `w`") && text.contains("F16 cannot hold, first at element 3"), "{text}");
}

#[test]
fn unknown_methods_and_parameters_get_the_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    let text = failure(dir.path(), &RECIPE.replace("task_arithmetic", "task_aritmetic")).to_string();
    assert!(text.contains("task_arithmetic"), "{text}");
    let text = failure(dir.path(), &format!("{RECIPE}parameters: {{wieght: 1}}\n")).to_string();
    assert!(text.contains("wieght") && text.contains("weight"), "{text}");
}

#[test]
fn a_parameter_out_of_range_is_named() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    let recipe = RECIPE.replace("task_arithmetic", "ties") + "parameters: {density: 1.5}\n";
    let text = failure(dir.path(), &recipe).to_string();
    assert!(text.contains("`density` of a is 1.5"), "{text}");
    let of_b = RECIPE.replace("task_arithmetic", "ties").replace(
        "[{model: a}, {model: b}]",
        "[{model: a, parameters: {density: 1}}, {model: b, parameters: {density: -1}}]",
    );
    let text = failure(dir.path(), &of_b).to_string();
    assert!(text.contains("`density` of b is -1"), "{text}");
}

#[test]
fn models_of_different_families_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let key = "paligemma_with_expert.gemma_expert.model.layers.0.mlp.up_proj.weight";
    let of_pi0 = [(key, &[2usize, 2][..], &[0.0f32; 4][..])];
    checkpoint(dir.path(), "base", &of_pi0);
    checkpoint(dir.path(), "a", &of_pi0);
    checkpoint(dir.path(), "b", &[of_pi0[0], ("time_mlp_in.weight", &[1], &[0.0])]);
    let error = failure(dir.path(), RECIPE);
    assert!(matches!(&error, MergeError::Family { model, .. } if model == "b"), "{error}");
}

#[test]
fn a_masked_merge_keeps_the_base_whatever_the_output_dtype() {
    let dir = tempfile::tempdir().unwrap();
    let same = ("same", &[2usize][..], &[1.0f32, 1.0 + f32::EPSILON][..]);
    for (name, first) in [("base", 0.0), ("a", 1.0), ("b", 2.0)] {
        checkpoint(dir.path(), name, &[("w", &[1], &[first]), same]);
    }
    let out = dir.path().join("merged");
    merge(dir.path(), &format!("{RECIPE}out_dtype: bfloat16\nmask: tall\n"), &out, 1).unwrap();
    let kept = skillweld_store::Checkpoint::open(out.join("model.safetensors")).unwrap();
    let base = skillweld_store::Checkpoint::open(dir.path().join("base")).unwrap();
    for key in ["w", "same"] {
        assert_eq!(kept.get(key).unwrap().bytes(), base.get(key).unwrap().bytes(), "{key}");
    }
}

#[test]
fn task_vectors_need_a_base() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    let error = failure(dir.path(), "merge_method: ties\nmodels: [{model: a}, {model: b}]\n");
    assert!(matches!(error, MergeError::NoBase { .. }), "{error}");
}

#[test]
fn masks_need_task_vectors() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    let text =
        failure(dir.path(), &(RECIPE.replace("task_arithmetic", "linear") + "mask: tall\n")).to_string();
    assert!(text.contains("merges weights"), "{text}");
}

#[test]
fn an_existing_output_stays_unless_forced_and_an_input_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path(), &[("w", &[2, 2], &[0.0; 4])]);
    let out = dir.path().join("merged");
    merge(dir.path(), RECIPE, &out, 1).unwrap();
    let before = support::files(&out);
    let error = merge(dir.path(), RECIPE, &out, 1).unwrap_err();
    assert!(error.to_string().contains("exists"), "{error}");
    assert_eq!(support::files(&out), before);
    let error = merge(dir.path(), RECIPE, &dir.path().join("a"), 1).unwrap_err();
    assert!(error.to_string().contains("is or holds an input"), "{error}");
    for inside in ["a/merged", "base/new/../deep/merged"] {
        let before = support::files(dir.path());
        let error = merge(dir.path(), RECIPE, &dir.path().join(inside), 1).unwrap_err().to_string();
        assert!(error.contains("lies inside an input") && error.contains("outside of it"), "{error}");
        assert_eq!(support::files(dir.path()), before);
    }
}

#[test]
fn a_router_asking_for_more_directions_than_there_are_is_refused_before_anything_is_written() {
    use skillweld_synth::{ExpertForm, PrismaticSpec};
    let dir = tempfile::tempdir().unwrap();
    let written = PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Adapter; 2]).unwrap();
    let models: String =
        written.experts.iter().map(|(_, path)| format!("  - {{model: {}}}\n", path.display())).collect();
    // By the plan, which is not told where the output goes.
    let refusal = |rest: &str| {
        let base = written.base.display();
        let recipe = format!("merge_method: ties\nbase_model: {base}\nmodels:\n{models}mask: tall\n{rest}");
        dry_run(dir.path(), &recipe).unwrap_err().to_string()
    };
    let text = refusal("router: {rank: 4000}\n");
    assert!(text.contains("router.rank is 4000"), "{text}");
    let text = refusal("action_expert: {head_blocks: 200}\n");
    assert!(text.contains("head_blocks is 200"), "{text}");
    let is_head =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("action_head");
    let files = std::fs::read_dir(&written.experts[1].1).unwrap();
    std::fs::remove_file(files.map(|e| e.unwrap().path()).find(is_head).unwrap()).unwrap();
    let text = refusal("");
    assert!(text.contains("action_head--*checkpoint.pt"), "{text}");
}
