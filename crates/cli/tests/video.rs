//! `--video`: with the feature `mp4` and ffmpeg, or the program that `SKILLWELD_FFMPEG` names, and without the feature.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use skillweld_synth::{Embodiment, ExpertForm, PrismaticSpec};
use support::{Bench, Ran, run, skillweld};

/// Drives a simulated arm for a second by a small policy, and records into `data` on the bench.
fn drive(bench: &Bench, more: &[&str], ffmpeg: Option<&str>) -> Ran {
    let policy = bench.join("merged");
    if !policy.exists() {
        let embodiment = Embodiment::So101;
        let spec = PrismaticSpec { dtype: skillweld_tensor::Dtype::F32, embodiment, ..PrismaticSpec::tiny() };
        spec.write_all(bench.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
        run([std::path::Path::new("merge"), &bench.action_recipe(), &policy]).succeeded();
    }
    let mut command = skillweld();
    command.args(["drive", "--task", "put the red cube on the tray", "--seconds", "2", "--json", "--policy"]);
    command.arg(policy).arg("--record").arg(bench.join("data")).args(more);
    command.envs(ffmpeg.map(|program| ("SKILLWELD_FFMPEG", program)));
    Ran::from(command.output().unwrap())
}

#[test]
#[cfg(feature = "mp4")]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn a_run_is_recorded_as_video_inspected_and_replayed() {
    const VIDEO: [&str; 3] = ["--video", "--sim-images", "96x96"];
    let bench = Bench::new();
    let data = bench.join("data");
    let data = data.to_str().unwrap();
    // Nothing has moved, and nothing is left behind.
    drive(&bench, &VIDEO, Some("/nowhere/ffmpeg")).failed_with(&[
        "/nowhere/ffmpeg",
        "install ffmpeg",
        "SKILLWELD_FFMPEG",
    ]);
    drive(&bench, &["--video", "--sim-images", "95x96"], None).failed_with(&["even numbers"]);
    assert!(!bench.join("data").exists());

    drive(&bench, &VIDEO, None).succeeded();
    let inspected = run(["dataset", "inspect", data, "--json"]).succeeded();
    assert!(inspected.error.contains("are in mp4 files"), "{}", inspected.error);
    let inspected = inspected.json();
    assert_eq!(inspected["problems"], serde_json::json!([]));
    assert_eq!(inspected["info"]["features"]["observation.images.front"]["dtype"], "video");
    run(["replay", data, "--sim-images", "96x96", "--json"]).succeeded();
    drive(&bench, &["--sim-images", "96x96"], None).failed_with(&["are mp4: add --video"]);

    let video = bench.join("data/videos/observation.images.front/chunk-000/file-000.mp4");
    std::fs::remove_file(video).unwrap();
    let inspected = run(["dataset", "inspect", data, "--json"]);
    assert_eq!(inspected.code, Some(1));
    assert!(inspected.error.contains("front: ") && inspected.error.contains("file-000.mp4"));
}

#[test]
#[cfg(not(feature = "mp4"))]
fn without_the_feature_it_says_how_to_build() {
    let bench = Bench::new();
    drive(&bench, &["--video"], None).failed_with(&["--features mp4"]);
    assert!(!bench.join("data").exists());
    let alone = run(["drive", "--policy", "x", "--video"]);
    assert!(alone.code == Some(2) && alone.error.contains("--record"), "{}", alone.error);
}
