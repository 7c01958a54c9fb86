//! Tabletop tasks, and demonstrations of them as datasets.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use skillweld_recorder::Dataset;
use support::{Bench, Ran, run};

fn demos(out: &Path, more: &[&str]) -> Ran {
    let out = out.to_str().unwrap();
    run(["sim", "demos", out, "--image-size", "16", "--json"].iter().chain(more))
}

#[test]
fn every_suite_has_tasks_with_words_of_their_own() {
    let listed = run(["sim", "tasks", "--json"]).succeeded().json();
    let tasks = listed.as_array().unwrap();
    for suite in ["spatial", "object", "goal", "long"] {
        assert!(tasks.iter().filter(|task| task["suite"] == suite).count() >= 5, "{suite}");
    }
    let mut words: Vec<&str> = tasks.iter().map(|task| task["instruction"].as_str().unwrap()).collect();
    words.sort_unstable();
    assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
    assert!(run(["sim", "tasks", "--suite", "goal"]).succeeded().out.contains("drawer"));
}

#[test]
fn demonstrations_are_a_dataset_that_goes_on_where_it_was() {
    let bench = Bench::new();
    let (whole, parts) = (bench.join("whole"), bench.join("parts"));
    // So much that the expert fails at times, which shifts the layouts of what follows.
    let noisy = ["--suite", "spatial", "--noise", "0.5", "--episodes"];
    let told = demos(&whole, &[&noisy[..], &["2"]].concat()).succeeded().json();
    let tasks = told["tasks"].as_array().unwrap().len();
    let failed: u64 =
        told["tasks"].as_array().unwrap().iter().map(|task| task["failed"].as_u64().unwrap()).sum();
    assert!(failed > 0, "{told}");
    assert_eq!(told["episodes"], 2 * tasks);
    run([Path::new("dataset"), Path::new("inspect"), &whole]).succeeded();

    let dataset = Dataset::open(&whole).unwrap();
    assert_eq!((dataset.info().fps, dataset.episodes().len()), (20, 2 * tasks));
    let (state, action) = dataset.names();
    assert_eq!((state.len(), action.len()), (8, 7));
    let frames: Vec<_> = dataset.frames(0).unwrap().map(Result::unwrap).collect();
    let moves = |frame: &&skillweld_recorder::RecordedFrame| frame.action[..6].iter().any(|x| *x != 0.0);
    assert!(frames.iter().filter(moves).count() > frames.len() / 2, "the expert moves");
    assert!(frames.iter().flat_map(|frame| &frame.action).all(|x| (-1.0..=1.0).contains(x)));
    assert!(frames.iter().any(|frame| frame.action[6] > 0.0), "and grips");

    // One round, then both: the same as both at once.
    demos(&parts, &[&noisy[..], &["1"]].concat()).succeeded();
    demos(&parts, &[&noisy[..], &["2"]].concat()).succeeded();
    let frames = |path: &Path| {
        let dataset = Dataset::open(path).unwrap();
        let all = (0..2 * tasks).flat_map(|episode| dataset.frames(episode).unwrap().collect::<Vec<_>>());
        all.map(Result::unwrap).map(|frame| (frame.state, frame.action)).collect::<Vec<_>>()
    };
    assert_eq!(frames(&whole), frames(&parts));
    demos(&parts, &[&noisy[..], &["1"]].concat()).failed_with(&["more than"]);
    let other = ["--suite", "spatial", "--noise", "0.4", "--episodes", "3"];
    demos(&parts, &other).failed_with(&["begun by another command"]);
    assert_eq!(Dataset::open(&parts).unwrap().episodes().len(), 2 * tasks);
}

#[test]
fn what_cannot_be_shown_is_refused_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let out = bench.join("out");
    demos(&out, &["--task", "spatial_nowhere"]).failed_with(&["skillweld sim tasks"]);
    demos(&out, &["--suite", "goal", "--noise", "2"]).failed_with(&["0 … 1"]);
    let none = ["sim", "demos", out.to_str().unwrap(), "--suite", "goal", "--image-size", "0"];
    run(none).failed_with(&["pixels"]);
    assert!(!out.exists());
    fs::write(&out, "a file").unwrap();
    demos(&out, &["--suite", "goal"]).failed_with(&["out"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "a file");
}

/// Files of a seed hold the same scenes, whoever draws them; what is there already stays.
#[test]
fn scenes_are_drawn_with_their_things() {
    let bench = Bench::new();
    let (whole, parts) = (bench.join("whole"), bench.join("parts"));
    let scenes = |out: &Path, count: &str, threads: &str| {
        let out = out.to_str().unwrap();
        run(["sim", "scenes", out, "--count", count, "--image-size", "8", "--threads", threads, "--json"])
    };
    let told = scenes(&whole, "515", "2").succeeded().json();
    let names = told["things"].as_array().unwrap();
    assert!(names.len() > 15 && names.contains(&"red can".into()), "{told}");
    scenes(&parts, "512", "1").succeeded();
    scenes(&parts, "515", "1").succeeded();
    for file in ["things.json", "scenes-0000000000.safetensors", "scenes-0000000512.safetensors"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(parts.join(file)).unwrap(), "{file}");
    }
    let last = skillweld_store::Checkpoint::open(whole.join("scenes-0000000512.safetensors")).unwrap();
    let dims = |name: &str| last.get(name).unwrap().shape().to_vec();
    assert_eq!((dims("images"), dims("things")), (vec![3, 2, 8, 8, 3], vec![3, 8]));
    assert_eq!((dims("positions"), dims("pixels")), (vec![3, 8, 3], vec![3, 8, 2, 2]));
    assert_eq!((dims("lifted"), dims("actions")), (vec![3], vec![3, 8, 7]));
    // Fewer in the last file than are there are not what is there.
    scenes(&parts, "514", "1").failed_with(&["0000000512", "other scenes"]);
    run(["sim", "scenes", parts.to_str().unwrap(), "--seed", "1073741823", "--count", "2"])
        .failed_with(&["2^30"]);
}
