//! `skillweld extract-lora` and `skillweld export`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::ffi::OsStr;

use support::{Bench, Ran, names, run};

fn extract(bench: &Bench, out: &str, more: &[&str]) -> Ran {
    let paths = ["base", "expert0", out].map(|name| bench.join(name).into_os_string());
    run([OsStr::new("extract-lora").to_owned()].into_iter().chain(paths).chain(more.iter().map(Into::into)))
}

#[test]
fn a_fine_tune_becomes_an_adapter_that_merges() {
    let bench = Bench::language_models();
    let ran = extract(&bench, "adapter", &["--rank", "8"]).succeeded();
    for words in [
        "LoRA adapter",
        "rank",
        "14 weights",
        "lost of τ",
        "Largest residuals",
        "Changed, and not in",
        "tied",
    ] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    assert_eq!(ran.said(), [""; 0]);
    assert_eq!(
        names(&bench.join("adapter")),
        ["adapter_config.json", "adapter_model.safetensors", "skillweld_export.json"]
    );
    // What it holds is what any reader of adapters takes.
    let recipe = bench.recipe("merge_method: passthrough\nmodels:\n  - model: base+adapter\n");
    run([OsStr::new("merge"), recipe.as_os_str(), bench.join("merged").as_os_str()]).succeeded();
    let shown = run([OsStr::new("inspect"), bench.join("adapter").as_os_str()]).succeeded();
    assert!(shown.out.contains("8 on 14 weights (scale 1.000)"), "{}", shown.out);

    let again = extract(&bench, "adapter", &["--rank", "8"]);
    again.failed_with(&["already exists", "--force"]);
    let json = extract(&bench, "adapter", &["--rank", "32", "--dtype", "bf16", "--force", "--json"])
        .succeeded()
        .json();
    let report = &json["report"];
    assert_eq!(report["adapted"].as_array().unwrap().len(), 14);
    // All singular values are there, in bf16.
    for tensor in report["adapted"].as_array().unwrap() {
        assert!(tensor["residual"].as_f64().unwrap() < 0.01, "{tensor}");
    }
    assert!(json["elapsed_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn ranks_and_models_that_do_not_do_are_refused() {
    let bench = Bench::language_models();
    extract(&bench, "x", &["--rank", "0"]).failed_with(&["--rank 0", "at least rank 1"]);
    extract(&bench, "x", &["--rank", "33"]).failed_with(&["--rank 33", "has 32"]);
    extract(&bench, "x", &["--rank", "4", "--others", "refuse"]).failed_with(&["norm", "--others leave-out"]);
    extract(&bench, "base/x", &["--rank", "4"]).failed_with(&["inside an input"]);
    assert_eq!(extract(&bench, "x", &[]).code, Some(2));
    let base = bench.join("base");
    let same = [
        OsStr::new("extract-lora"),
        base.as_os_str(),
        base.as_os_str(),
        OsStr::new("x"),
        OsStr::new("--rank=1"),
    ];
    run(same).failed_with(&["nothing to extract"]);
    assert!(!bench.join("x").exists());
}

#[test]
fn a_merged_checkpoint_is_exported_and_read_back() {
    let bench = Bench::action_models();
    let (recipe, merged, out) = (bench.action_recipe(), bench.join("merged"), bench.join("official"));
    run([OsStr::new("merge"), recipe.as_os_str(), merged.as_os_str(), OsStr::new("-q")]).succeeded();
    let export = |from: &OsStr, to: &OsStr| {
        run(["export".as_ref(), from, to, "--format".as_ref(), "mergevla".as_ref()])
    };
    let ran = export(merged.as_os_str(), out.as_os_str()).succeeded();
    for words in ["spatial, object", "tall_masks.pt", "task2idx.pt", "action_head--checkpoint.pt"] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    let base = bench.join("base");
    let inspect = [
        OsStr::new("inspect"),
        out.as_os_str(),
        OsStr::new("--json"),
        OsStr::new("--base"),
        base.as_os_str(),
    ];
    let json = run(inspect).succeeded().json();
    let ours = run([OsStr::new("inspect"), merged.as_os_str(), OsStr::new("--json")]).succeeded().json();
    assert_eq!(json["kind"], "merged_official");
    assert_eq!(json["merged"]["tasks"][0]["density"], ours["merged"]["tasks"][0]["density"]);
    export(base.as_os_str(), bench.join("x").as_os_str()).failed_with(&["not a merged checkpoint"]);
    export(out.as_os_str(), bench.join("x").as_os_str()).failed_with(&["in that layout already"]);
    export(merged.as_os_str(), out.as_os_str()).failed_with(&["already exists"]);
    let unknown =
        run([OsStr::new("export"), merged.as_os_str(), out.as_os_str(), OsStr::new("--format=onnx")]);
    assert_eq!(unknown.code, Some(2));
}
