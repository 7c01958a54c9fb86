//! `skillweld plugins`.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
fn a_folder_without_plugins_is_warned_of() {
    let bench = Bench::new();
    for folder in ["given", "searched"] {
        std::fs::create_dir(bench.join(folder)).unwrap();
    }
    let search = [support::plugins(), bench.join("searched")];
    let ran: Ran = support::skillweld()
        .args(["plugins", "inspect", "ties", "--plugin"])
        .arg(bench.join("given"))
        .env("SKILLWELD_PLUGINS", std::env::join_paths(search).unwrap())
        .output()
        .unwrap()
        .into();
    let ran = ran.succeeded();
    let warnings: Vec<&str> = ran.error.lines().filter(|line| line.contains("holds no plugin")).collect();
    let [given, searched] = warnings[..] else { panic!("two warnings expected: {}", ran.error) };
    assert!(given.contains(&bench.join("given").display().to_string()), "{given}");
    assert!(searched.contains(&bench.join("searched").display().to_string()), "{searched}");
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

#[test]
fn a_hang_is_ended_and_named() {
    let bench = Bench::new();
    for (oddity, place) in [
        // Prints without end, which is no sign of progress.
        ("LOOP", "while checking law "),
        ("STUCK", "while checking law fills_output of merge method `odd`"),
        ("STUCK_LOADING", "while loading it"),
    ] {
        let plugin = bench.odd_plugin(&[oddity]);
        let started = Instant::now();
        let ran = check(&plugin, &["--timeout", "1", "--json"]);
        assert!(started.elapsed() < Duration::from_secs(20), "{oddity}: {:?}", started.elapsed());
        assert_eq!(ran.code, Some(1), "{oddity}: {}{}", ran.out, ran.error);
        let report = ran.json();
        let hang = report["hang"].as_str().unwrap();
        assert!(hang.starts_with("the plugin hangs: stopped after 1 s ") && hang.contains(place), "{hang}");
        assert!(hang.contains("`--timeout`") && report["passed"] == false, "{report}");
        assert!(ran.error.lines().count() < 10, "{oddity}: {}", ran.error);
    }
    let ran = check(&bench.odd_plugin(&["STUCK"]), &["--timeout", "1"]);
    assert!(ran.out.contains("the plugin hangs"), "{}", ran.out);
    assert_eq!(check(Path::new("x.so"), &["--timeout", "0"]).code, Some(2));
}

#[test]
fn panics_are_counted_and_the_first_is_shown() {
    let bench = Bench::new();
    let ran = check(&bench.odd_plugin(&["PANICKY"]), &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.error);
    assert!(ran.out.contains("✗  no_panics") && ran.out.contains("index out of bounds"), "{}", ran.out);
    assert_eq!(ran.error.matches("panicked at src/lib.rs:20:9").count(), 1, "{}", ran.error);
    let note = ran.error.lines().find(|line| line.starts_with("note: the plugin panicked ")).unwrap();
    let times: u64 = note.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!(times > 10 && ran.error.lines().count() < 10, "{}", ran.error);
}

/// Whoever kills the check must not leave a plugin behind that computes for ever.
#[cfg(target_os = "linux")]
#[test]
fn the_process_that_checks_ends_with_its_parent() {
    let bench = Bench::new();
    for oddity in ["STUCK", "STUCK_LOADING"] {
        let mut parent = support::skillweld()
            .args(["plugins", "check"])
            .arg(bench.odd_plugin(&[oddity]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let child = wait_for(|| children(parent.id()).first().copied());
        // It has taken the plugin in hand.
        wait_for(|| {
            std::fs::read_to_string(format!("/proc/{child}/maps")).ok()?.contains("odd.so").then_some(())
        });
        parent.kill().unwrap();
        parent.wait().unwrap();
        wait_for(|| (!runs(child)).then_some(()));
    }
}

/// What `look` finds within ten seconds.
#[cfg(target_os = "linux")]
fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "waited for ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// State and parent of a process, the fields after its name in brackets.
#[cfg(target_os = "linux")]
fn state(process: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let processes = processes.filter_map(|name| name.parse().ok());
    processes.filter(|&process| state(process).is_some_and(|(_, of)| of == parent)).collect()
}

/// A zombie runs no more: who inherits it may let it lie.
#[cfg(target_os = "linux")]
fn runs(process: u32) -> bool {
    state(process).is_some_and(|(state, _)| state != "Z" && state != "X")
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
    // Nobody's search path leads to the program under test.
    assert!(ran.out.contains(&format!("{} plugins check ", env!("CARGO_BIN_EXE_skillweld"))), "{}", ran.out);
    assert_eq!(std::fs::read_to_string(folder.join(".gitignore")).unwrap(), "/target\n");
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
