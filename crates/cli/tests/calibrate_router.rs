//! `calibrate-router`: statistics of each task's scores on its own observations, and routing by them.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use skillweld_store::{SafetensorsWriter, TensorSpec};
use skillweld_tensor::Dtype;
use support::{Bench, Ran, run};

/// A merged policy of two tasks, and demonstrations of two others.
fn bench() -> Bench {
    let bench = Bench::action_models();
    run([Path::new("merge"), &bench.action_recipe(), &bench.join("merged")]).succeeded();
    for task in ["goal_open", "object_milk"] {
        let out = bench.join(task);
        let sim = ["sim", "demos", out.to_str().unwrap(), "--task", task];
        run(sim.iter().chain(&["--episodes", "10", "--image-size", "16"])).succeeded();
    }
    bench
}

fn calibrate(bench: &Bench, datasets: &[(&str, &str)], more: &[&str]) -> Ran {
    let mut words = vec!["calibrate-router".to_owned(), path(&bench.join("merged"))];
    for (task, dataset) in datasets {
        words.extend(["--task".to_owned(), format!("{task}={}", path(&bench.join(dataset)))]);
    }
    run(words.into_iter().chain(more.iter().map(|&word| word.to_owned())))
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// An observation that is in no dataset.
fn observation(bench: &Bench) -> PathBuf {
    let image: Vec<u8> = (0..24 * 24 * 3).map(|i| (i * 7 % 256) as u8).collect();
    let state: Vec<u8> = (0..8).flat_map(|i| (i as f32 / 10.0).to_le_bytes()).collect();
    let tensors = [
        ("image_0", Dtype::U8, vec![24, 24, 3], &image),
        ("image_1", Dtype::U8, vec![24, 24, 3], &image),
        ("state", Dtype::F32, vec![8], &state),
    ];
    let spec = |(name, dtype, shape, _): &(&str, Dtype, Vec<usize>, &Vec<u8>)| TensorSpec {
        name: (*name).to_owned(),
        dtype: *dtype,
        shape: shape.clone(),
    };
    let metadata = [("prompt".to_owned(), "open the drawer".to_owned())].into();
    let specs = tensors.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(bench.path(), "observation", specs, &metadata, None).unwrap();
    for (index, (.., bytes)) in tensors.iter().enumerate() {
        writer.write_at(index, 0, bytes).unwrap();
    }
    writer.finish().unwrap();
    bench.join("observation.safetensors")
}

fn route(bench: &Bench, inputs: &Path, more: &[&str]) -> Ran {
    let (merged, inputs) = (path(&bench.join("merged")), path(inputs));
    run(["route", &merged, "--inputs", &inputs, "--json"].iter().chain(more))
}

#[test]
fn tasks_are_compared_by_what_is_usual_for_each() {
    let bench = bench();
    let inputs = observation(&bench);
    let raw = route(&bench, &inputs, &[]).succeeded().json();
    let datasets = [("spatial", "goal_open"), ("object", "object_milk")];
    let told = calibrate(&bench, &datasets, &["--json"]).succeeded().json();
    let of = &told["tasks"][1];
    assert_eq!(of["observations"], 10);
    let numbers = |name: &str| of[name].as_array().unwrap().len();
    assert!(numbers("mean") == numbers("deviation") && numbers("mean") > 2, "{of}");

    // Experts that know nothing are told apart by what their observations look like.
    let (merged, out) = (path(&bench.join("merged")), path(&bench.join("out")));
    let eval = ["eval", "run", &merged, "--task", "goal_open", "--task", "object_milk", "--episodes", "2"];
    let told = run(eval.iter().chain(&["--image-size", "16", "--json", "--out", &out])).succeeded().json();
    let routed = |suite: &str, expert: &str| json!({"suite": suite, "expert": expert, "trials": 2});
    assert_eq!(told["routed"], json!([routed("object", "object"), routed("goal", "spatial")]));
    assert_ne!(route(&bench, &inputs, &[]).succeeded().json(), raw);
    assert_eq!(route(&bench, &inputs, &["--raw-scores"]).succeeded().json(), raw);

    // Another calibration makes another policy: its trials are not added to these.
    calibrate(&bench, &datasets, &["--episodes", "3"]).succeeded();
    run(eval.iter().chain(&["--image-size", "16", "--out", &out])).failed_with(&["another folder"]);

    // One task's checkpoint routes nothing, and takes nothing of the router with it.
    let single = bench.join("single");
    run([
        Path::new("materialize"),
        &bench.join("merged"),
        Path::new("--task"),
        Path::new("spatial"),
        &single,
    ])
    .succeeded();
    assert!(bench.join("merged/router_calibration.json").is_file());
    assert!(!single.join("router_calibration.json").exists());
}

#[test]
fn what_cannot_be_calibrated_is_refused_by_name() {
    let bench = bench();
    let merged = bench.join("merged");
    calibrate(&bench, &[("spatial", "object_milk")], &[]).failed_with(&["`object`", "--task object=DATASET"]);
    calibrate(&bench, &[("objct", "object_milk")], &[]).failed_with(&["did you mean `object`?"]);
    calibrate(&bench, &[("spatial", "nowhere")], &[]).failed_with(&["nowhere"]);
    let both = [("spatial", "object_milk"), ("object", "object_milk")];
    calibrate(&bench, &both, &["--episodes", "1"]).failed_with(&["no spread", "more episodes"]);
    calibrate(&bench, &both, &["--images", "3"]).failed_with(&["2 cameras", "--images"]);
    assert!(!merged.join("router_calibration.json").exists());

    fs::write(merged.join("router_calibration.json"), "{}").unwrap();
    route(&bench, &observation(&bench), &[]).failed_with(&["router_calibration.json", "delete the file"]);
}
