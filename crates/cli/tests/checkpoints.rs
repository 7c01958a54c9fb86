//! `skillweld inspect` and `skillweld materialize`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Bench, Ran, run};

fn inspect(path: &Path, more: &[&str]) -> Ran {
    let more = more.iter().map(OsStr::new);
    run([OsStr::new("inspect"), path.as_os_str()].into_iter().chain(more))
}

#[track_caller]
fn assert_says(ran: &Ran, words: &[&str]) {
    for words in words {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
}

#[test]
fn a_model_and_a_file_are_described() {
    let bench = Bench::language_models();
    let model = inspect(&bench.join("base"), &["--keys"]).succeeded();
    assert_says(&model, &["model", "BF16", "language", "model.layers.{0..1}.mlp.up_proj.weight", "96 × 32"]);
    let file = inspect(&bench.join("base/model.safetensors"), &[]).succeeded();
    assert_says(&file, &["file", "26 tensors"]);
    let json = inspect(&bench.join("base"), &["--json"]).succeeded().json();
    assert_eq!((json["kind"].as_str(), json["total"]["tensors"].as_u64()), (Some("checkpoint"), Some(26)));
    assert_eq!(json["tensors"].as_array().unwrap().len(), 26);
    inspect(&bench.join("nowhere"), &[]).failed_with(&["nowhere"]);
    inspect(&bench.recipe("x: 1"), &[]).failed_with(&["recipe.yaml"]);
}

#[test]
fn an_expert_shows_its_adapter_and_what_lies_beside_it() {
    let bench = Bench::action_models();
    let expert = inspect(&bench.join("spatial"), &[]).succeeded();
    assert_says(
        &expert,
        &["expert", "rank", "8 on", "up_proj", "action_queries", "action_head--10000_checkpoint.pt"],
    );
    let json = inspect(&bench.join("spatial"), &["--json"]).succeeded().json();
    assert_eq!(json["adapter"]["alpha"], 16.0);
    assert_eq!(json["statistics"], serde_json::json!(["libero_spatial_no_noops"]));
}

/// Two action experts, merged.
fn merged(bench: &Bench) -> PathBuf {
    let (recipe, out) = (bench.action_recipe(), bench.join("merged"));
    run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--quiet".as_ref()]).succeeded();
    out
}

#[test]
fn a_merged_checkpoint_shows_tasks_and_gives_each_as_a_plain_one() {
    let bench = Bench::action_models();
    let merged = merged(&bench);
    let shown = inspect(&merged, &[]).succeeded();
    assert_says(&shown, &["merged checkpoint", "spatial", "object", "kept", "ties", "subspaces of rank 4"]);
    let json = inspect(&merged, &["--json"]).succeeded().json();
    assert_eq!(json["kind"], "merged");
    for task in json["merged"]["tasks"].as_array().unwrap() {
        assert!((0.0..=1.0).contains(&task["density"].as_f64().unwrap()), "{task}");
    }

    let out = bench.join("plain");
    let args =
        ["materialize".as_ref(), merged.as_os_str(), "--task".as_ref(), "object".as_ref(), out.as_os_str()];
    let ran = run(args).succeeded();
    assert_eq!(ran.said(), [""; 0], "neither a bar nor anything else where no terminal is");
    assert_says(
        &ran,
        &["object", "tensors", "action_head--object_checkpoint.pt", &out.display().to_string()],
    );
    let plain = inspect(&out, &["--json"]).succeeded().json();
    let base = inspect(&bench.join("base"), &["--json"]).succeeded().json();
    let of_model = |json: &Value| {
        let tensors = json["tensors"].as_array().unwrap().iter();
        let model = tensors.filter(|tensor| tensor["file"].as_str().unwrap().ends_with("safetensors"));
        model
            .map(|tensor| tensor["key"].as_str().unwrap().to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let mut expected = of_model(&base);
    expected.insert("action_queries.weight".to_owned());
    assert_eq!(of_model(&plain), expected);

    run(args).failed_with(&["already exists", "--force"]);
    let again = run(args.into_iter().chain(["--force".as_ref(), "--json".as_ref()])).succeeded().json();
    assert_eq!(again["report"]["task"], "object");
    assert!(again["elapsed_s"].as_f64().unwrap() > 0.0);
    run(args.map(|word: &OsStr| if word == "object" { OsStr::new("objekt") } else { word }))
        .failed_with(&["`objekt`", "`object`"]);
    let base = bench.join("base");
    run([
        "materialize".as_ref(),
        base.as_os_str(),
        "--task".as_ref(),
        "x".as_ref(),
        bench.join("y").as_os_str(),
    ])
    .failed_with(&["not a merged checkpoint"]);
}
