//! Recipe files of several recipes that build on one another: what is merged, and what is not merged again.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use support::{Bench, Ran, contents, run};

const FIRST: &str = "merge_method: linear\nmodels:\n  - {model: expert0, parameters: {weight: 0.25}}\n  - {model: \
                     expert1, parameters: {weight: 0.75}}\n";
const RESULT: &str = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n  - {model: first, parameters: \
                      {weight: 0.5}}\n  - {model: second}\n";

fn second(t: f64) -> String {
    format!(
        "merge_method: slerp\nbase_model: first\nmodels: [{{model: first}}, {{model: expert1}}]\nparameters: {{t: {t}}}\n"
    )
}

/// `first` of two experts, `second` of that and an expert, and a result of both, listed backwards.
fn three(bench: &Bench, t: f64) -> std::path::PathBuf {
    bench.recipe(&format!("{RESULT}---\nname: second\n{}---\nname: first\n{FIRST}", second(t)))
}

fn merge(bench: &Bench, recipe: &Path, more: &[&str]) -> Ran {
    let out = bench.join("out");
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str()];
    run(args.into_iter().chain(more.iter().map(AsRef::as_ref)))
}

/// Name and state of every stage of a run.
fn states(ran: Ran) -> Vec<(String, String)> {
    let document = ran.succeeded().json();
    let stages = document["stages"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("result").to_owned();
    stages.map(|stage| (text(&stage["name"]), text(&stage["state"]))).collect()
}

fn in_order(states: [&str; 3]) -> Vec<(String, String)> {
    let names = ["first", "second", "result"].into_iter();
    names.zip(states).map(|(name, state)| (name.to_owned(), state.to_owned())).collect()
}

const DONE: &str = "up to date";
const MERGED: &str = "merged";

#[test]
fn stages_give_what_their_recipes_give_one_by_one() {
    let bench = Bench::language_models();
    let ran = merge(&bench, &three(&bench, 0.25), &[]).succeeded();
    assert!(ran.out.contains("Stage 2 of 3  second is merged"), "{}", ran.out);
    let by_hand = |name: &str, recipe: &str| {
        let path = bench.join(&format!("{name}.yaml"));
        fs::write(&path, recipe).unwrap();
        run(["merge".as_ref(), path.as_os_str(), bench.join(name).as_os_str()]).succeeded();
        fs::read(bench.join(name).join("model.safetensors")).unwrap()
    };
    let model = |folder: &str| fs::read(bench.join(folder).join("model.safetensors")).unwrap();
    assert!(model("out.stages/first") == by_hand("first", FIRST));
    assert!(model("out.stages/second") == by_hand("second", &second(0.25)));
    assert!(model("out") == by_hand("result", RESULT));
}

#[test]
fn only_what_has_changed_and_what_follows_from_it_is_merged_again() {
    let bench = Bench::language_models();
    let recipe = three(&bench, 0.25);
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([MERGED; 3]));
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([DONE; 3]));

    // A new time alone is no change.
    let expert = bench.join("expert0/model.safetensors");
    let bytes = fs::read(&expert).unwrap();
    fs::write(&expert, &bytes).unwrap();
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([DONE; 3]));

    // Another parameter of the second stage.
    let recipe = three(&bench, 0.5);
    let refused = merge(&bench, &recipe, &["--quiet"]);
    refused.failed_with(&["out is there, but second/model.safetensors has changed; `--force` replaces it"]);
    assert_eq!(states(merge(&bench, &recipe, &["--json", "--force"])), in_order([DONE, DONE, MERGED]));

    // Another last byte of an expert's weights.
    let mut other = bytes;
    *other.last_mut().unwrap() ^= 1;
    fs::write(&expert, &other).unwrap();
    let dry = merge(&bench, &recipe, &["--dry-run", "--json"]).succeeded().json();
    assert_eq!(dry["stages"][0]["reason"], "expert0/model.safetensors has changed");
    assert_eq!(dry["stages"][1]["state"], "waits");
    assert_eq!(states(merge(&bench, &recipe, &["--json", "--force"])), in_order([MERGED; 3]));
}

#[test]
fn a_stage_that_gives_the_same_again_changes_nothing_after_it() {
    let bench = Bench::language_models();
    let recipe = three(&bench, 0.25);
    merge(&bench, &recipe, &["--quiet"]).succeeded();
    // Normalised weights: twice as much of everything is the same.
    let text = fs::read_to_string(&recipe).unwrap();
    let text = text.replace("weight: 0.25", "weight: 0.5").replace("weight: 0.75", "weight: 1.5");
    fs::write(&recipe, text).unwrap();
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([MERGED, DONE, DONE]));
}

#[test]
fn a_result_that_was_tampered_with_or_lost_is_made_again() {
    let bench = Bench::language_models();
    let recipe = three(&bench, 0.25);
    merge(&bench, &recipe, &["--quiet"]).succeeded();
    let before = contents(&bench.join("out.stages/second"));
    let weights = bench.join("out.stages/second/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([DONE, MERGED, DONE]));
    assert!(contents(&bench.join("out.stages/second")) == before);
    fs::remove_dir_all(bench.join("out.stages/first")).unwrap();
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([MERGED, DONE, DONE]));
}

#[test]
fn a_failing_stage_leaves_those_before_it_done() {
    let bench = Bench::language_models();
    let recipe = three(&bench, 0.25);
    let lost = bench.join("expert1-away");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("{model: expert1}]", "{model: expert1-away}]")).unwrap();
    merge(&bench, &recipe, &["--quiet"]).failed_with(&["expert1-away", "is not a local path"]);
    assert!(bench.join("out.stages/first/model.safetensors").is_file() && !bench.join("out").exists());
    fs::create_dir(&lost).unwrap();
    for name in support::names(&bench.join("expert1")) {
        fs::copy(bench.join("expert1").join(&name), lost.join(&name)).unwrap();
    }
    assert_eq!(states(merge(&bench, &recipe, &["--json"])), in_order([DONE, MERGED, MERGED]));
    fs::write(bench.join("out.stages/stages.json"), "{").unwrap();
    merge(&bench, &recipe, &["--quiet"])
        .failed_with(&["stages.json", "remove it to merge every stage again"]);
}
