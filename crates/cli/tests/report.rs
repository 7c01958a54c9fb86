//! `skillweld report` and `skillweld diff`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use support::{Bench, Ran, run};

fn report(merged: &Path, more: &[&OsStr]) -> Ran {
    run([OsStr::new("report"), merged.as_os_str()].into_iter().chain(more.iter().copied()))
}

fn diff(a: &Path, b: &Path, more: &[&str]) -> Ran {
    let more = more.iter().map(OsStr::new);
    run([OsStr::new("diff"), a.as_os_str(), b.as_os_str()].into_iter().chain(more))
}

/// Two action experts, merged.
fn merged(bench: &Bench) -> PathBuf {
    let (recipe, out) = (bench.action_recipe(), bench.join("merged"));
    run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--quiet".as_ref()]).succeeded();
    out
}

#[test]
fn a_merge_gets_a_page_and_its_numbers() {
    let bench = Bench::action_models();
    let merged = merged(&bench);
    let (html, flag, json) = (bench.join("new/report.html"), OsStr::new("--html"), OsStr::new("--json"));
    let ran = report(&merged, &[flag, html.as_os_str(), json]).succeeded().json();
    let numbers = &ran["report"];
    // What the merge counted while it wrote is what is counted from the files.
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(merged.join("skillweld.json")).unwrap()).unwrap();
    let then = &document["report"]["masks"];
    assert_eq!(numbers["masks"]["selfish_ratio"], then["selfish_ratio"]);
    assert_eq!(numbers["masks"]["kept_by_none"], then["kept_by_none"]);
    assert_eq!(numbers["masks"]["kept"][1], then["kept"]["object"]);
    assert_eq!(numbers["masks"]["agreement"][0][1], then["agreement"][0][2]);
    assert_eq!(
        numbers["masks"]["layers"].as_array().unwrap().len(),
        then["layers"].as_array().unwrap().len()
    );
    // The experts, one an adapter and one whole, still lie beside the merge.
    let states: Vec<_> = numbers["inputs"].as_array().unwrap().iter().map(|input| &input["state"]).collect();
    assert_eq!(states, ["found"; 3]);
    assert_eq!(numbers["experts"]["norms"].as_array().unwrap().len(), 2);
    assert_eq!(numbers["router"].as_array().unwrap().len(), 2);
    assert_eq!(numbers["left_out"], serde_json::json!([]));
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.ends_with("</html>\n") && page.len() < 2_000_000);
    // Once more: refused, then the same bytes.
    report(&merged, &[flag, html.as_os_str()]).failed_with(&["already exists", "--force"]);
    let again = report(&merged, &[flag, html.as_os_str(), OsStr::new("--force"), OsStr::new("--threads=1")])
        .succeeded();
    assert!(again.out.contains("selfish ratio"), "{}", again.out);
    assert_eq!(fs::read_to_string(&html).unwrap(), page);
    assert_eq!(support::names(&bench.join("new")), ["report.html"]);
}

#[test]
fn a_merge_without_masks_says_what_it_has_no_section_for() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("linear", "parameters: {weight: 1}\n"), bench.join("naive"));
    run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--quiet".as_ref()]).succeeded();
    let html = bench.join("naive.html");
    let json = [OsStr::new("--html"), html.as_os_str(), OsStr::new("--json")];
    let numbers = report(&out, &json).succeeded().json();
    let left_out = numbers["report"]["left_out"].as_array().unwrap();
    let sections: Vec<_> = left_out.iter().map(|left_out| left_out["section"].as_str().unwrap()).collect();
    assert_eq!(sections, ["masks", "blocks", "router"]);
    assert!(numbers["report"]["vectors"]["norm"].as_f64().unwrap() > 0.0);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("This merge has no task masks"));
}

#[test]
fn what_cannot_be_reported_on_is_refused_and_nothing_written() {
    let bench = Bench::action_models();
    let merged = merged(&bench);
    let html = bench.join("report.html");
    let with = [OsStr::new("--html"), html.as_os_str()];
    report(&bench.join("base"), &with).failed_with(&["not a merged checkpoint"]);
    report(&bench.join("nowhere"), &with).failed_with(&["nowhere"]);
    report(&merged, &[OsStr::new("--html"), bench.join("report.txt").as_os_str()]).failed_with(&["OUT.html"]);
    fs::remove_file(merged.join("masks.safetensors")).unwrap();
    report(&merged, &with).failed_with(&["masks.safetensors is missing"]);
    fs::write(merged.join("skillweld.json"), "{").unwrap();
    report(&merged, &with).failed_with(&["skillweld.json", "not valid JSON"]);
    assert!(!html.exists());
}

#[test]
fn equal_checkpoints_are_equal_and_others_are_not() {
    let bench = Bench::language_models();
    let (base, expert) = (bench.join("base"), bench.join("expert0"));
    let same = diff(&base, &base.join("model.safetensors"), &[]).succeeded();
    assert!(same.out.contains("26 tensors, all equal"), "{}", same.out);
    let differ = diff(&base, &expert, &["--limit", "2"]);
    assert_eq!(differ.code, Some(1), "{}", differ.error);
    assert!(
        differ.out.contains("By modality") && differ.out.contains("--limit shows more"),
        "{}",
        differ.out
    );
    let json = diff(&base, &expert, &["--json", "--keys", "*.mlp.up_proj.weight"]);
    assert_eq!(json.code, Some(1));
    let json = json.json();
    assert_eq!((&json["keys"], &json["equal"]), (&2.into(), &false.into()));
    let first = &json["differences"][0];
    assert_eq!(first["kind"], "values");
    let back = diff(&expert, &base, &["--json", "--keys", "*.mlp.up_proj.weight"]).json();
    assert_eq!(first["relative_l2"], back["differences"][0]["relative_l2"]);
    let (distance, cosine) = (first["relative_l2"].as_f64().unwrap(), first["cosine"].as_f64().unwrap());
    assert!(distance > 0.0 && distance < 2.0 && cosine < 1.0 && cosine > 0.0);
    assert!(distance >= json["differences"][1]["relative_l2"].as_f64().unwrap());
}

#[test]
fn trouble_is_told_from_a_difference() {
    let bench = Bench::language_models();
    let base = bench.join("base");
    for (other, more, words) in [
        ("nowhere", &[][..], "nowhere"),
        ("base", &["--task-b", "goal"], "no task `goal`"),
        ("base", &["--keys", "nothing"], "no key is like `nothing`"),
    ] {
        let ran = diff(&base, &bench.join(other), more);
        assert_eq!(ran.code, Some(2), "{}{}", ran.out, ran.error);
        assert!(ran.error.contains("error: ") && ran.error.contains(words), "{}", ran.error);
    }
    assert_eq!(diff(&base, &base, &["--wrong"]).code, Some(2));
}

#[test]
fn a_task_of_a_merge_is_its_materialized_checkpoint() {
    let bench = Bench::action_models();
    let merged = merged(&bench);
    let plain = bench.join("plain");
    run([
        "materialize".as_ref(),
        merged.as_os_str(),
        plain.as_os_str(),
        "--task".as_ref(),
        "object".as_ref(),
    ])
    .succeeded();
    let json = diff(&merged, &plain, &["--task-a", "object", "--json"]).json();
    // The plain checkpoint is rounded to bf16 once more: half a unit in the last place, 2⁻⁹ of each element.
    for difference in json["differences"].as_array().unwrap() {
        assert_eq!(difference["kind"], "values", "{difference}");
        assert!(difference["relative_l2"].as_f64().unwrap() <= 2f64.powi(-9), "{difference}");
    }
    assert!(json["equal_keys"].as_u64().unwrap() > 0);
    // Another task is further away than rounding.
    let other = diff(&merged, &plain, &["--task-a", "spatial", "--json"]).json();
    assert!(other["differences"][0]["relative_l2"].as_f64().unwrap() > 2f64.powi(-9));
}

#[test]
fn an_adapter_is_compared_on_its_base_or_alone() {
    let bench = Bench::action_models();
    let (base, adapter) = (bench.join("base"), bench.join("spatial"));
    let alone = diff(&adapter, &adapter, &[]).succeeded();
    assert!(alone.out.contains("all equal"), "{}", alone.out);
    let base_name = base.display().to_string();
    let on_base = diff(&base, &adapter, &["--base", &base_name, "--json"]);
    assert_eq!(on_base.code, Some(1));
    let json = on_base.json();
    let differences = json["differences"].as_array().unwrap();
    let kinds = |kind: &str| differences.iter().filter(|difference| difference["kind"] == kind).count();
    assert!(kinds("values") > 0 && kinds("only_in_b") > 0, "adapted weights, and an action head beside them");
    assert_eq!(kinds("only_in_a") + kinds("shape"), 0);
}
