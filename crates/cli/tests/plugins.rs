//! `skillweld plugins`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Bench, Ran, run};

#[test]
fn every_method_is_listed() {
    let ran = run(["plugins", "list"]).succeeded();
    for method in ["linear", "ties", "dare_ties", "task_arithmetic", "emr", "tall", "passthrough"] {
        assert!(ran.out.contains(method), "{method} is not in\n{}", ran.out);
    }
    let listed = run(["plugins", "list", "--json"]).succeeded().json();
    let methods = listed["methods"].as_array().unwrap();
    let emr: Vec<&str> =
        methods.iter().filter(|m| m["id"] == "emr").map(|m| m["kind"].as_str().unwrap()).collect();
    assert_eq!(emr, ["merge", "mask"]);
}

#[test]
fn a_bad_plugin_is_reported_and_skipped() {
    let bench = Bench::new();
    let bad = bench.join("libskillweld_plugin_bad.so");
    std::fs::write(&bad, "no library").unwrap();
    let ran: Ran = support::skillweld()
        .args(["plugins", "list"])
        .env("SKILLWELD_PLUGINS", bench.path())
        .output()
        .unwrap()
        .into();
    let ran = ran.succeeded();
    assert!(
        ran.error.contains("warning: skipped") && ran.error.contains("libskillweld_plugin_bad.so"),
        "{}",
        ran.error
    );
}

#[test]
fn a_method_is_described() {
    let ran = run(["plugins", "inspect", "ties"]).succeeded();
    for words in ["merge method", "density", "task vectors", "merge_method: ties", "Yadav"] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    let describe =
        |args: &[&str]| run(["plugins", "inspect"].iter().chain(args).chain(&["--json"])).succeeded().json();
    assert_eq!(describe(&["emr"])["kind"], "merge");
    assert_eq!(describe(&["emr", "--mask"])["kind"], "mask");
    assert_eq!(describe(&["tall"])["kind"], "mask");
    assert!(describe(&["tall"])["parameters"]["properties"]["lambda"].is_object());
    run(["plugins", "inspect", "tise"]).failed_with(&["`tise`", "ties"]);
}

fn check(plugin: &Path, more: &[&str]) -> Ran {
    run(["plugins", "check"]
        .iter()
        .map(AsRef::as_ref)
        .chain([plugin.as_os_str()])
        .chain(more.iter().map(AsRef::as_ref)))
}

#[test]
fn a_good_plugin_passes_the_check_whatever_it_prints() {
    let bench = Bench::new();
    let plugin = bench.odd_plugin(&["CHATTY"]);
    let ran = check(&plugin, &["--cases", "8"]).succeeded();
    assert!(ran.out.contains("merge method odd  keeps every law that applies"), "{}", ran.out);
    assert!(ran.out.contains("✓") && ran.out.contains("–") && !ran.out.contains("✗"), "{}", ran.out);
    let report = check(&plugin, &["--cases", "8", "--json"]).succeeded().json();
    assert_eq!(report["passed"], true);
    assert_eq!(report["methods"][0]["method"], "odd");
}

#[test]
fn a_broken_law_comes_with_a_counterexample() {
    let bench = Bench::new();
    let plugin = bench.odd_plugin(&["WRONG"]);
    let ran = check(&plugin, &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.error);
    for words in ["✗  permutation", "permutation is broken by this:", "expert 0:"] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    let report = check(&plugin, &["--json"]);
    assert_eq!(report.code, Some(1));
    assert_eq!(report.json()["passed"], false);
}

#[test]
fn a_crash_is_reported_and_harms_nobody() {
    let bench = Bench::new();
    let plugin = bench.odd_plugin(&["CRASH"]);
    let ran = check(&plugin, &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.error);
    assert!(ran.out.contains("the plugin crashed: signal 11"), "{}", ran.out);
    assert!(ran.out.contains("while checking law "), "{}", ran.out);
    assert!(check(&plugin, &["--json"]).json()["crash"].as_str().unwrap().contains("signal 11"));
    let text = bench.join("text.so");
    std::fs::write(&text, "no library").unwrap();
    check(&text, &[]).failed_with(&["text.so"]);
    check(&bench.join("nowhere.so"), &[]).failed_with(&["nowhere.so"]);
}

/// Runs the commands that `plugins new` names, to the letter.
#[test]
fn a_new_plugin_builds_and_passes_as_it_is() {
    let bench = Bench::new();
    let dir = bench.join("methods");
    let ran =
        run(["plugins".as_ref(), "new".as_ref(), "my_merge".as_ref(), "--dir".as_ref(), dir.as_os_str()]);
    let ran = ran.succeeded();
    let folder = dir.join("my_merge");
    assert!(ran.out.contains(&format!("cd {}", folder.canonicalize().unwrap().display())), "{}", ran.out);
    for args in [&["test", "--offline"][..], &["build", "--release", "--offline"]] {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(args)
            .current_dir(&folder)
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("warning"), "{said}");
    }
    let library: PathBuf = folder.join("target/release").join(format!(
        "{}skillweld_plugin_my_merge{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ));
    check(&library, &[]).succeeded();
    let method = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    let method = method.split("#[cfg(test)]").next().unwrap();
    assert!(method.lines().filter(|line| !line.trim().is_empty()).count() <= 40, "{method}");

    let merge = Bench::language_models();
    let (recipe, out) = (merge.language_recipe("my_merge", ""), merge.join("merged"));
    let args =
        ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--plugin".as_ref(), library.as_os_str()];
    run(args).succeeded();

    let again =
        run(["plugins".as_ref(), "new".as_ref(), "my_merge".as_ref(), "--dir".as_ref(), dir.as_os_str()]);
    again.failed_with(&["already exists"]);
    run(["plugins", "new", "My Merge"]).failed_with(&["cannot name a method"]);
}

/// In a source tree the crate becomes a member of the workspace.
#[test]
fn a_new_plugin_joins_the_source_tree() {
    let bench = Bench::new();
    let sdk = bench.join("crates/plugin-sdk");
    std::fs::create_dir_all(&sdk).unwrap();
    std::fs::create_dir(bench.join("plugins")).unwrap();
    std::fs::write(sdk.join("Cargo.toml"), "[package]\nname = \"skillweld-plugin-sdk\"\n").unwrap();
    std::fs::write(bench.join("Cargo.toml"), "[workspace]\nmembers = [\"crates/plugin-sdk\"]\n").unwrap();
    let output = support::skillweld().args(["plugins", "new", "mine"]).current_dir(&sdk).output().unwrap();
    Ran::from(output).succeeded();
    let root = std::fs::read_to_string(bench.join("Cargo.toml")).unwrap();
    assert_eq!(root, "[workspace]\nmembers = [\"crates/plugin-sdk\", \"plugins/mine\"]\n");
    let manifest = std::fs::read_to_string(bench.join("plugins/mine/Cargo.toml")).unwrap();
    assert!(manifest.contains("skillweld-plugin-sdk.workspace = true"), "{manifest}");
}
