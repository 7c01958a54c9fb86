//! Sweeps as a user runs them: real merges, evaluations in shell, and everything that may come between.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Bench, Ran, contents, names, run, skillweld};

const RECIPE: &str = "\
merge_method: linear
models:
  - {model: expert0, parameters: {weight: \"${1-alpha}\"}}
  - {model: expert1, parameters: {weight: \"${alpha}\"}}
";

struct Fixture {
    bench: Bench,
    recipe: PathBuf,
    out: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let bench = Bench::language_models();
        let (recipe, out) = (bench.recipe(RECIPE), bench.join("sweep"));
        Self { bench, recipe, out }
    }

    fn command(&self, eval: &str, more: &[&str]) -> Command {
        let mut command = skillweld();
        command.arg("sweep").arg(&self.recipe).arg("--out").arg(&self.out).args(["--eval", eval]).args(more);
        command.current_dir(self.bench.path());
        command
    }

    fn run(&self, eval: &str, more: &[&str]) -> Ran {
        self.command(eval, more).output().unwrap().into()
    }

    fn merge(&self, alpha: &str, out: &str) -> PathBuf {
        let out = self.bench.join(out);
        let set = format!("alpha={alpha}");
        run(["merge".as_ref(), self.recipe.as_os_str(), out.as_os_str(), "--set".as_ref(), set.as_ref()])
            .succeeded();
        out
    }

    /// What lies in the sweep's folder, but for its lock.
    fn left(&self) -> Vec<String> {
        names(&self.out).into_iter().filter(|name| name != ".lock").collect()
    }
}

const FILES: [&str; 4] = ["results.csv", "results.json", "sweep.json", "sweep.svg"];

fn means(ran: &Ran) -> Vec<Value> {
    ran.json()["points"].as_array().unwrap().iter().map(|point| point["mean"].clone()).collect()
}

#[test]
fn every_point_is_merged_evaluated_and_removed_and_the_best_is_kept() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.bench.join("seen")).unwrap();
    let eval = "cp {checkpoint}/model.safetensors seen/{point}; test -s {checkpoint}/config.json || exit 9; \
                alpha=${SKILLWELD_POINT#alpha=}; echo \"{\\\"score\\\": $alpha, \\\"seed\\\": {seed}}\"";
    let ran = fixture.run(eval, &["--set", "alpha=0.25:0.75:0.25", "--seeds", "2", "--keep-best", "--json"]);
    let ran = ran.succeeded();
    assert_eq!(means(&ran), [0.25, 0.5, 0.75]);
    assert_eq!(ran.json()["best"], "alpha=0.75");
    assert_eq!(ran.json()["points"][1]["metrics"]["seed"], 0.5);
    assert_eq!(names(&fixture.bench.join("seen")), ["alpha=0.25", "alpha=0.5", "alpha=0.75"]);
    for alpha in ["0.25", "0.5", "0.75"] {
        let seen = fs::read(fixture.bench.join("seen").join(format!("alpha={alpha}"))).unwrap();
        let merged = fixture.merge(alpha, &format!("merged-{alpha}"));
        assert!(seen == fs::read(merged.join("model.safetensors")).unwrap(), "{alpha}");
    }
    let relative = |dir: &Path| {
        let whole = contents(dir).into_iter();
        whole.map(|(path, bytes)| (path.strip_prefix(dir).unwrap().to_owned(), bytes)).collect::<Vec<_>>()
    };
    assert!(relative(&fixture.out.join("best")) == relative(&fixture.bench.join("merged-0.75")));
    let mut expected = vec!["best".to_owned()];
    expected.extend(FILES.map(str::to_owned));
    assert_eq!(fixture.left(), expected);

    // The same command again has nothing to do, and shows a table.
    let again = fixture.run(eval, &["--set", "alpha=0.25:0.75:0.25", "--seeds", "2"]).succeeded();
    assert!(again.out.contains("alpha") && again.out.contains("best"), "{}", again.out);
    assert!(again.error.contains("6 of 6 evaluations are there already"), "{}", again.error);
}

#[test]
fn masked_points_share_the_base_and_are_whole() {
    let bench = Bench::action_models();
    let recipe = bench.action_recipe();
    let out = bench.join("sweep");
    let base_files = contents(&bench.join("base"));
    // The pretrained weights are the base's file under another name; `inspect` reads masks, heads and all.
    let eval = format!(
        "find {{checkpoint}} -type f -links +1 | grep -q . || exit 8; \
         '{}' inspect {{checkpoint}} --json > /dev/null || exit 7; ls {{checkpoint}} | wc -l",
        env!("CARGO_BIN_EXE_skillweld")
    );
    let mut command = skillweld();
    command.arg("sweep").arg(&recipe).arg("--out").arg(&out).current_dir(bench.path());
    command.args(["--set", "mask.lambda=0.4,0.8", "--set", "router.rank=2,4", "--json", "--eval", &eval]);
    let ran = Ran::from(command.output().unwrap()).succeeded();
    assert_eq!(ran.json()["points"].as_array().unwrap().len(), 4);
    assert!(fs::read_to_string(out.join("sweep.svg")).unwrap().contains("mask.lambda"));
    assert!(contents(&bench.join("base")) == base_files, "the base model was written to");
}

#[test]
fn a_failing_evaluation_is_one_failed_point() {
    let fixture = Fixture::new();
    let eval = "test {point} != alpha=0.5 || { echo no robot >&2; exit 3; }; echo 1";
    let ran = fixture.run(eval, &["--set", "alpha=0.25,0.5,0.75", "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.error);
    assert_eq!(means(&ran), [Value::from(1.0), Value::Null, Value::from(1.0)]);
    assert_eq!(ran.json()["points"][1]["failed"]["0"], "exit status: 3: no robot");
    assert!(ran.error.contains("alpha=0.5, seed 0 failed: exit status: 3: no robot"), "{}", ran.error);
    assert_eq!(fixture.left(), FILES);
    let csv = fs::read_to_string(fixture.out.join("results.csv")).unwrap();
    assert_eq!(csv.lines().nth(2), Some("0.5,0,1,,,,,0"));
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_made() {
    let fixture = Fixture::new();
    let refused = |more: &[&str], eval: &str, words: &[&str]| {
        fixture.run(eval, more).failed_with(words);
        assert!(!fixture.out.exists());
    };
    refused(&["--set", "alhpa=0.1"], "echo 1", &["${alpha} (line 3)", "--set alpha=VALUE"]);
    let alpha = ["--set", "alpha=0.1,0.2"];
    let with = |more: &[&'static str]| alpha.into_iter().chain(more.iter().copied()).collect::<Vec<_>>();
    refused(
        &with(&["--set", "maks.lambda=1"]),
        "echo 1",
        &["at alpha=0.1,maks.lambda=1", "did you mean `mask`?"],
    );
    refused(&with(&["--set", "parameters.normalise=true"]), "echo 1", &["did you mean `normalize`?"]);
    refused(
        &with(&["--set", "models.expert7.parameters.weight=1"]),
        "echo 1",
        &["`expert7`", "did you mean"],
    );
    refused(&["--set", "alpha=0:1"], "echo 1", &["a range needs its step"]);
    refused(&alpha, "eval {chekpoint}", &["did you mean `{checkpoint}`?"]);
    refused(&with(&["--engine", "ray", "--keep"]), "echo 1", &["--keep-best"]);
    refused(&with(&["--set", "models.0.model=nowhere"]), "echo 1", &["nowhere", "not a local path"]);
}

#[test]
fn a_full_disk_stops_the_sweep_and_leaves_no_half_point() {
    let fixture = Fixture::new();
    let mut shell = Command::new("sh");
    let sweep = fixture.command("echo 1", &["--set", "alpha=0.25,0.5"]);
    // Blocks of 512 bytes: the ledger fits, a model does not.
    shell.args(["-c", "ulimit -f 40; exec \"$0\" \"$@\""]).arg(sweep.get_program()).args(sweep.get_args());
    shell.env("SKILLWELD_PLUGINS", support::plugins()).current_dir(fixture.bench.path());
    Ran::from(shell.output().unwrap()).failed_with(&["at alpha=0.25", "model.safetensors"]);
    assert_eq!(fixture.left(), FILES[..3]);
    fixture.run("echo 1", &["--set", "alpha=0.25,0.5"]).succeeded();
}

/// A sweep whose second point waits until a file is gone.
struct Waiting {
    fixture: Fixture,
    child: Child,
}

const WAITS: &str =
    "echo {point} >> log; while test -e wait && test {point} = alpha=0.5; do sleep 0.02; done; echo 1";
const THREE: [&str; 2] = ["--set", "alpha=0.25,0.5,0.75"];

impl Waiting {
    fn start() -> Self {
        let fixture = Fixture::new();
        fs::write(fixture.bench.join("wait"), "").unwrap();
        let mut command = fixture.command(WAITS, &THREE);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        let waiting = Self { fixture, child };
        while !waiting.log().contains("alpha=0.5") {
            assert!(started.elapsed() < Duration::from_secs(120), "it never came to the second point");
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting
    }

    fn log(&self) -> String {
        fs::read_to_string(self.fixture.bench.join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

/// The first point was done, the second was not: the same command does the rest.
fn resume(fixture: &Fixture) {
    let log = || fs::read_to_string(fixture.bench.join("log")).unwrap();
    assert_eq!(log(), "alpha=0.25\nalpha=0.5\n");
    fs::remove_file(fixture.bench.join("wait")).unwrap();
    let ran = fixture.run(WAITS, &THREE).succeeded();
    assert!(ran.error.contains("1 of 3 evaluations are there already"), "{}", ran.error);
    assert_eq!(log(), "alpha=0.25\nalpha=0.5\nalpha=0.5\nalpha=0.75\n");
    assert_eq!(fixture.left(), FILES);
}

#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let mut waiting = Waiting::start();
    waiting.signal("KILL");
    waiting.child.wait().unwrap();
    assert_eq!(names(&waiting.fixture.out.join(".points")), ["1"]);
    resume(&waiting.fixture);
}

#[test]
fn an_interrupted_sweep_says_how_far_it_came() {
    let waiting = Waiting::start();
    waiting.signal("INT");
    let Waiting { fixture, child } = waiting;
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.error);
    let said = "stopped; 1 of 3 evaluations are done; the same command goes on from there";
    assert!(ran.error.contains(said), "{}", ran.error);
    assert_eq!(fixture.left(), FILES);
    resume(&fixture);
}
