//! `skillweld retain`: one interpolation and chains of them, as a user runs them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skillweld_synth::{PolicyFamily, PolicySpec, write_observation};
use support::{Bench, Ran, contents, run, skillweld};

/// `pi0` and its fine-tunes `stove`, `drawer`, `cups`, all with the statistics of one data set.
fn policies() -> Bench {
    let bench = Bench::new();
    let spec = PolicySpec::tiny(PolicyFamily::Pi0);
    spec.write_base(&bench.join("pi0"), "kitchen").unwrap();
    for (index, name) in ["stove", "drawer", "cups"].into_iter().enumerate() {
        spec.write_expert(&bench.join(name), index, "kitchen").unwrap();
    }
    bench
}

/// `retain` in the bench's folder, where all paths are plain names.
fn retain(bench: &Bench, args: &str) -> Ran {
    let mut command = skillweld();
    command.current_dir(bench.path()).arg("retain").args(args.split_whitespace());
    command.output().unwrap().into()
}

const ONCE: &str = "--base pi0 --finetuned stove --alpha 0.8";

#[test]
fn a_policy_is_planned_made_and_replaced() {
    let bench = policies();
    let before = bench.names();
    let plan = retain(&bench, &format!("{ONCE} out --dry-run")).succeeded();
    for words in ["Plan", "linear", "π0", "vision", "language", "action", "gemma_expert", "merged"] {
        assert!(plan.out.contains(words), "`{words}` is not in\n{}", plan.out);
    }
    assert_eq!(bench.names(), before);
    let ran = retain(&bench, &format!("{ONCE} out")).succeeded();
    for words in ["Retained", "into out", "0.8", "of the base policy"] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    assert_eq!(ran.said(), [""; 0]);
    assert!(bench.join("out/assets/kitchen/norm_stats.json").is_file());
    retain(&bench, &format!("{ONCE} out")).failed_with(&["already exists", "--force"]);
    let json = retain(&bench, &format!("{ONCE} out --force --json --threads 1")).succeeded().json();
    assert_eq!(json["interpolation"]["alpha"]["language"], 0.8);
    assert_eq!(json["result_blake3"]["weights"].as_str().unwrap().len(), 64);
    let quiet = retain(&bench, &format!("{ONCE} out --force --quiet")).succeeded();
    assert_eq!((quiet.out.as_str(), quiet.error.as_str()), ("", ""));
    fs::remove_file(bench.join("out/skillweld_retain.json")).unwrap();
    retain(&bench, &format!("{ONCE} out --force")).failed_with(&["no output of Skillweld"]);
    retain(&bench, &format!("{ONCE} pi0 --force")).failed_with(&["is or holds an input"]);
    run([OsStr::new("inspect"), bench.join("out").as_os_str()]).succeeded();
}

#[test]
fn wrong_usage_is_told_from_what_cannot_be_done() {
    let bench = policies();
    for args in [
        "--base pi0 --finetuned stove --alpha 1.5 out",
        "--base pi0 --finetuned stove --alpha -0.1 out",
        "--base pi0 --finetuned stove --alpha nan out",
        "--base pi0 --finetuned stove out",
        "--base pi0 --finetuned stove --alpha 0.5 --preset language-only out",
        "--base pi0 --finetuned stove --alpha 0.5",
        "--finetuned stove --alpha 0.5 out",
        "--base pi0 --finetuned stove --alpha 0.5 --method dar out",
        "add state",
        "init state",
    ] {
        let ran = retain(&bench, args);
        assert_eq!(ran.code, Some(2), "{args}: {}", ran.error);
    }
    assert!(
        retain(&bench, "--base pi0 --finetuned stove --alpha 1.5 out").error.contains("0 (the base) to 1")
    );
    retain(&bench, &format!("{ONCE} --method dare out")).failed_with(&["density", "is missing"]);
    retain(&bench, &format!("{ONCE} --method dare --density 2 out")).failed_with(&["density", "at most 1"]);
    retain(&bench, &format!("{ONCE} --density 0.5 out")).failed_with(&["of no use"]);
    retain(&bench, "--base pi0 --finetuned pi0/. --alpha 0.5 out").failed_with(&["both"]);
    retain(&bench, "--base pi0 --finetuned owner/name --alpha 0.5 out")
        .failed_with(&["owner/name", "hf download"]);
    retain(&bench, "log pi0").failed_with(&["no state of skills"]);
    retain(&bench, "undo nowhere").failed_with(&["no state of skills", "retain init"]);
    assert!(!bench.join("out").exists());
    let help = retain(&bench, "--help").succeeded();
    assert!(help.out.contains("Examples:") && help.out.contains("--preset language-only"), "{}", help.out);
}

#[test]
fn every_method_and_the_preset_run() {
    let bench = policies();
    for (name, options) in [
        ("slerp", "--alpha 0.8 --method slerp"),
        ("dare", "--alpha 0.8 --method dare --density 0.5 --seed 1"),
        ("dare_slerp", "--alpha 0.8 --method dare-slerp --density 0.5"),
        ("language", "--preset language-only"),
        ("more", "--preset language-only --alpha-language 0.7 --alpha-vision 0.1 --dtype float32"),
    ] {
        let json = retain(&bench, &format!("--base pi0 --finetuned stove {options} {name} --json"))
            .succeeded()
            .json();
        let language = if name == "more" { 0.7 } else { 0.8 };
        assert_eq!(json["interpolation"]["alpha"]["language"], language);
    }
    let weights = |name: &str| fs::read(bench.join(name).join("model.safetensors")).unwrap();
    assert!(weights("dare") != weights("slerp") && weights("dare_slerp") != weights("dare"));
}

#[test]
fn a_policy_with_an_action_head_is_kept_and_acts() {
    let bench = Bench::action_models();
    skillweld_synth::PrismaticSpec::tiny()
        .write_expert(&bench.join("goal"), 2, skillweld_synth::ExpertForm::Full)
        .unwrap();
    let args = "--base object --finetuned goal --alpha 0.8 out";
    retain(&bench, args).failed_with(&["statistics differ", "--statistics finetuned"]);
    retain(&bench, &format!("{args} --statistics finetuned")).succeeded();
    let observation = bench.join("observation.safetensors");
    write_observation(&observation, "open the drawer", 0).unwrap();
    let mut predict = skillweld();
    predict.current_dir(bench.path());
    predict.args([
        "predict",
        "out",
        "--inputs",
        "observation.safetensors",
        "--output",
        "actions.safetensors",
    ]);
    Ran::from(predict.output().unwrap()).succeeded();
    assert!(bench.join("actions.safetensors").is_file());
}

#[test]
fn skills_are_added_shown_replayed_and_undone() {
    let bench = policies();
    retain(&bench, "init kitchen --base pi0").succeeded();
    assert!(retain(&bench, "log kitchen").succeeded().out.contains("no skill yet"));
    let added = retain(&bench, "add kitchen --finetuned stove --alpha 0.8").succeeded();
    for words in ["Added", "stove", "kitchen/checkpoint"] {
        assert!(added.out.contains(words), "`{words}` is not in\n{}", added.out);
    }
    // Finetuned from pi0, not from what the state had by then.
    let second =
        retain(&bench, "add kitchen --finetuned drawer --preset language-only --name drawers").succeeded();
    assert!(second.error.contains("was not finetuned from this state's checkpoint"), "{}", second.error);
    let log = retain(&bench, "log kitchen --verify").succeeded();
    for words in ["stove", "drawers", "0.8", "linear", "contradicted"] {
        assert!(log.out.contains(words), "`{words}` is not in\n{}", log.out);
    }
    assert!(log.error.contains("skill drawers was not finetuned from the policy before it"), "{}", log.error);
    let json = retain(&bench, "log kitchen --json").succeeded().json();
    assert_eq!(json["ledger"]["skills"][1]["name"], "drawers");
    retain(&bench, "replay kitchen again").succeeded();
    let relative = |name: &str| {
        let dir = bench.join(name);
        let files = contents(&dir).into_iter();
        files.map(|(path, bytes)| (path.strip_prefix(&dir).unwrap().to_owned(), bytes)).collect::<Vec<_>>()
    };
    assert!(relative("again") == relative("kitchen/checkpoint"));
    retain(&bench, "replay kitchen again").failed_with(&["already exists"]);
    retain(&bench, "replay kitchen again --force").succeeded();
    let undone = retain(&bench, "undo kitchen --json").succeeded().json();
    assert_eq!(undone["undone"]["name"], "drawers");
    assert_eq!(retain(&bench, "log kitchen --json").json()["ledger"]["skills"].as_array().unwrap().len(), 1);
    // What a step would do, and nothing more.
    let before = contents(bench.path());
    assert!(
        retain(&bench, "add kitchen --finetuned cups --alpha 0.5 --dry-run").succeeded().out.contains("Plan")
    );
    assert!(contents(bench.path()) == before);
    // A changed input.
    let norm = bench.join("stove/assets/kitchen/norm_stats.json");
    fs::write(&norm, fs::read_to_string(&norm).unwrap().replacen("0.", "1.", 1)).unwrap();
    let verify = retain(&bench, "log kitchen --verify");
    assert_eq!(verify.code, Some(1), "{}", verify.error);
    assert!(verify.error.contains("statistics of skill stove has changed"), "{}", verify.error);
    // A new state in one step.
    retain(&bench, "add other --base pi0 --finetuned drawer --alpha 0.5").succeeded();
    retain(&bench, "add other --base pi0 --finetuned cups --alpha 0.5").failed_with(&["is a state already"]);
}

/// Skills in a state; fails unless its checkpoint is what the ledger says.
fn skills(bench: &Bench) -> usize {
    let json = retain(bench, "log state --verify --json").succeeded().json();
    json["ledger"]["skills"].as_array().unwrap().len()
}

fn partials(bench: &Bench) -> usize {
    bench.names().iter().filter(|name| name.contains(".partial-")).count()
}

#[test]
fn a_chain_that_is_killed_is_before_the_step_or_after_it() {
    let bench = policies();
    retain(&bench, "add state --base pi0 --finetuned stove --alpha 0.8").succeeded();
    let mut caught = 0;
    for (args, delay_ms) in ["add state --finetuned drawer --alpha 0.5", "undo state"]
        .into_iter()
        .flat_map(|args| [0, 1, 2, 4, 7, 11, 16, 25].map(|delay| (args, delay)))
    {
        if args.starts_with("undo") && skills(&bench) < 2 {
            retain(&bench, "add state --finetuned drawer --alpha 0.5").succeeded();
        } else if args.starts_with("add") && skills(&bench) == 2 {
            retain(&bench, "undo state").succeeded();
        }
        assert_eq!(partials(&bench), 0, "{:?}", bench.names());
        let before = skills(&bench);
        let mut command = skillweld();
        command.current_dir(bench.path()).arg("retain").args(args.split_whitespace());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while partials(&bench) == 0 && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(120), "it never began to write");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        caught += usize::from(!ended.success());
        let after = if args.starts_with("add") { before + 1 } else { before - 1 };
        let now = skills(&bench);
        assert!(now == before || now == after, "{args}: {before}, then {now}");
        // Going on cleans up what the dead left.
        if now == before {
            retain(&bench, args).succeeded();
            assert_eq!(skills(&bench), after);
        } else {
            retain(
                &bench,
                if after == 2 { "undo state" } else { "add state --finetuned drawer --alpha 0.5" },
            )
            .succeeded();
        }
    }
    assert!(caught > 3, "only {caught} were caught at work");
}

/// Mounts a file system of size `$1` at `$2`, copies the state `$3` there, runs the rest, and leaves the names and the
/// ledger that are there afterwards in `$4`.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o "size=$1" skillweld-test "$2" || exit 99
disk=$2 state=$3 left=$4
shift 4
cp -r "$state" "$disk/state" || exit 98
"$@"
code=$?
{ ls -A "$disk"; cat "$disk/state/retain.json"; } >"$left"
exit $code
"#;

#[test]
fn a_full_disk_leaves_the_chain_before_the_step() {
    let bench = policies();
    retain(&bench, "add state --base pi0 --finetuned stove --alpha 0.8").succeeded();
    let ledger = fs::read_to_string(bench.join("state/retain.json")).unwrap();
    fs::create_dir(bench.join("disk")).unwrap();
    let used: usize =
        contents(&bench.join("state")).iter().map(|(_, bytes)| bytes.len().next_multiple_of(4096)).sum();
    let size = format!("{}", used + used / 2);
    let program = skillweld();
    let attempt = |namespace: &str| {
        let mut command = Command::new("unshare");
        command.args([namespace, "sh", "-c", ON_A_SMALL_DISK, "sh", &size]);
        command.args([bench.join("disk"), bench.join("state"), bench.join("left")]);
        command.arg(program.get_program()).args(["retain", "add"]).arg(bench.join("disk/state"));
        command.arg("--finetuned").arg(bench.join("drawer")).args(["--alpha", "0.5"]);
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().ok()?;
        // Otherwise there was no namespace, or nothing could be mounted in it.
        Some((Ran::from(output), fs::read_to_string(bench.join("left")).ok()?))
    };
    let Some((ran, left)) = ["-rm", "-m"].iter().find_map(|namespace| attempt(namespace)) else {
        support::say(
            "a_full_disk_leaves_the_chain_before_the_step: SKIPPED, no namespace with a disk of its own here",
        );
        return;
    };
    ran.failed_with(&["space left"]);
    assert_eq!(left, format!("state\n{ledger}"));
}

#[test]
fn a_limit_on_files_leaves_the_chain_before_the_step() {
    let bench = policies();
    retain(&bench, "add state --base pi0 --finetuned stove --alpha 0.8").succeeded();
    let before = contents(bench.path());
    let program = skillweld();
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes: less than the weights take.
    shell.args(["-c", "ulimit -f 16 && exec \"$0\" \"$@\""]).arg(program.get_program());
    shell
        .args(["retain", "add", "state", "--finetuned", "drawer", "--alpha", "0.5"])
        .current_dir(bench.path());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::from(shell.output().unwrap()).failed_with(&["ulimit -f"]);
    assert!(contents(bench.path()) == before);
}
