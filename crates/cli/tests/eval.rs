//! A policy in the tabletop suites: in this process and behind a socket, interrupted, compared.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use skillweld_recorder::Dataset;
use skillweld_synth::{Embodiment, ExpertForm, PrismaticSpec};
use support::served::Server;
use support::{Bench, Ran, run};

/// Two experts of LIBERO's shape, merged: they know nothing, but see and move.
fn merged() -> (Bench, PathBuf) {
    let bench = Bench::new();
    let spec = PrismaticSpec {
        dtype: skillweld_tensor::Dtype::F32,
        embodiment: Embodiment::Libero,
        ..PrismaticSpec::tiny()
    };
    spec.write_all(bench.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
    let (recipe, policy) = (bench.action_recipe(), bench.join("merged"));
    run([Path::new("merge"), &recipe, &policy]).succeeded();
    (bench, policy)
}

fn eval(policy: &str, out: &Path, more: &[&str]) -> Ran {
    let arguments = ["eval", "run", policy, "--image-size", "32", "--json", "--out", out.to_str().unwrap()];
    run(arguments.iter().chain(more))
}

#[test]
fn a_merged_policy_is_tried_and_results_go_on_and_are_compared() {
    let (bench, policy) = merged();
    let policy = policy.to_str().unwrap();
    let (out, parts) = (bench.join("out"), bench.join("parts"));
    let two = ["--task", "goal_open", "--task", "goal_push", "--episodes"];
    let told = eval(policy, &out, &[&two[..], &["2"]].concat()).succeeded().json();
    assert_eq!(told["all"]["trials"], 4);
    assert_eq!(told["groups"]["goal"]["trials"], 4);
    assert_eq!(told["groups"]["goal_open"]["trials"], 2);
    let routed: u64 =
        told["routed"].as_array().unwrap().iter().map(|row| row["trials"].as_u64().unwrap()).sum();
    assert_eq!(routed, 4, "{told}");

    // The same results, in the order in which trials happened to end; of one job, layout by layout.
    eval(policy, &parts, &[&two[..], &["1"]].concat()).succeeded();
    eval(policy, &parts, &[&two[..], &["2"]].concat()).succeeded();
    let file = |out: &Path| {
        let text = fs::read_to_string(out.join("trials.jsonl")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    assert_eq!(file(&out), file(&parts));
    assert_eq!(file(&out).len(), 1 + 4);
    let alone = bench.join("alone");
    eval(policy, &alone, &[&two[..], &["2", "--jobs", "1"]].concat()).succeeded();
    assert_eq!(file(&out), file(&alone));

    let (out, parts) = (out.to_str().unwrap(), parts.to_str().unwrap());
    let compared = run(["eval", "compare", out, parts, "--json"]).succeeded().json();
    assert_eq!((&compared["trials"], &compared["p_value"]), (&4.into(), &1.0.into()));
    let shown = run(["eval", "show", out]).succeeded().out;
    assert!(shown.contains("goal_push") && shown.contains("Routing"), "{shown}");

    // Other results, and trials that both lack.
    let dark = bench.join("dark");
    let one = ["--task", "goal_open", "--episodes", "1", "--perturb", "light:strong"];
    eval(policy, &dark, &one).succeeded();
    run(["eval", "compare", out, dark.to_str().unwrap()]).failed_with(&["no trial in common"]);
    // Trials under perturbations lie beside others.
    let both = eval(policy, &dark, &[&one[..], &["--perturb", "none", "--perturb", "none"]].concat())
        .succeeded()
        .json();
    let trials = |group: &str| both["groups"][group]["trials"].clone();
    assert_eq!(
        [trials("light:strong"), trials("none"), trials("goal light:strong"), trials("goal none")],
        [1, 1, 1, 1].map(serde_json::Value::from)
    );
    // One folder, one kind of trials.
    eval(policy, Path::new(out), &["--split", "final"]).failed_with(&["another folder"]);
    eval(policy, Path::new(out), &["--actions", "1"]).failed_with(&["another folder"]);
}

/// The expert shows what to do where a policy has got to: the arm is not where episodes begin.
#[test]
fn demonstrations_go_on_where_a_policy_leads() {
    let (bench, policy) = merged();
    let demos = |name: &str, more: &[&str]| {
        let out = bench.join(name);
        let sim = [
            "sim",
            "demos",
            out.to_str().unwrap(),
            "--task",
            "goal_open",
            "--image-size",
            "32",
            "--episodes",
        ];
        run(sim.iter().chain(more)).succeeded();
        let dataset = Dataset::open(&out).unwrap();
        let episodes = 0..dataset.episodes().len();
        let states = |episode| dataset.frames(episode).unwrap().map(|frame| frame.unwrap().state).collect();
        episodes.map(states).collect::<Vec<Vec<_>>>()
    };
    let led = ["--policy", policy.to_str().unwrap()];
    let (plain, whole) = (demos("plain", &["4"]), demos("whole", &[&["4"], &led[..]].concat()));
    assert_eq!(whole.len(), 4);
    let highest = |episodes: &[Vec<Vec<f32>>]| {
        episodes.iter().map(|states| states[0][2]).fold(f32::NEG_INFINITY, f32::max)
    };
    // This policy, which knows nothing, lifts its arm.
    assert!(highest(&whole) > 2.0 * highest(&plain), "{} {}", highest(&whole), highest(&plain));

    demos("parts", &[&["2"], &led[..]].concat());
    assert_eq!(demos("parts", &[&["4"], &led[..]].concat()), whole);
}

#[test]
fn a_server_gives_the_same_results() {
    let (bench, policy) = merged();
    let server = Server::start(&policy, &[]);
    let trials = ["--task", "spatial_left", "--episodes", "1"];
    let (here, there) = (bench.join("here"), bench.join("there"));
    eval(policy.to_str().unwrap(), &here, &trials).succeeded();
    eval(&format!("ws://{}", server.address), &there, &trials).succeeded();
    let results = |out: &Path| {
        let text = fs::read_to_string(out.join("trials.jsonl")).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(results(&here), results(&there));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let bench = Bench::new();
    let out = bench.join("out");
    eval("nowhere", &out, &["--task", "goal_shut"]).failed_with(&["skillweld sim tasks"]);
    let wrong = eval("nowhere", &out, &["--perturb", "light:blinding"]);
    assert!(wrong.code == Some(2) && wrong.error.contains("mild, medium, strong"), "{}", wrong.error);
    eval("nowhere", &out, &[]).failed_with(&["nowhere"]);
    assert!(!out.exists());
}

#[test]
fn rollouts_are_filmed() {
    let (bench, policy) = merged();
    let policy = policy.to_str().unwrap();
    let film = |name: &str, more: &[&str]| {
        let out = bench.join(name);
        let fixed =
            ["eval", "film", policy, "--image-size", "32", "--task", "goal_open", "--episodes", "1", "--out"];
        (run(fixed.iter().chain([&out.to_str().unwrap()]).chain(more)), out)
    };
    let (ran, gif) = film("film.gif", &[]);
    ran.succeeded();
    let mut decoder = gif::DecodeOptions::new().read_info(fs::File::open(&gif).unwrap()).unwrap();
    // 32 pixels, each twice, and a frame of three.
    assert_eq!((decoder.width(), decoder.height()), (70, 70));
    let mut frames = 0;
    while decoder.read_next_frame().unwrap().is_some() {
        frames += 1;
    }
    // 160 steps, a picture every two and one at the end, which stays for twelve.
    assert_eq!(frames, 81 + 12);
    let (ran, sheet) = film("sheet.png", &[]);
    ran.succeeded();
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(&sheet).unwrap()));
    let info = decoder.read_info().unwrap();
    assert_eq!((info.info().width, info.info().height), (8 * 70, 70));
    film("film.gif", &[]).0.failed_with(&["--force"]);
    film("film.mov", &[]).0.failed_with(&["OUT.gif or OUT.png"]);
}
