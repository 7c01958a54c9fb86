//! `--video`: with the feature `mp4` and ffmpeg, or the program that `SKILLWELD_FFMPEG` names, and without the feature.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::process::Command;

use skillweld_synth::Embodiment;
use support::{Bench, Ran, run, skillweld};

/// Drives a simulated arm for two seconds by a small policy, and records into `data` on the bench.
fn command(bench: &Bench, more: &[&str], ffmpeg: Option<&str>) -> Command {
    let mut command = skillweld();
    command.args(["drive", "--task", "put the red cube on the tray", "--seconds", "2", "--json", "--policy"]);
    command.arg(bench.join("merged")).arg("--record").arg(bench.join("data")).args(more);
    command.envs(ffmpeg.map(|program| ("SKILLWELD_FFMPEG", program)));
    command
}

fn drive(bench: &Bench, more: &[&str], ffmpeg: Option<&str>) -> Ran {
    Ran::from(command(bench, more, ffmpeg).output().unwrap())
}

#[test]
#[cfg(feature = "mp4")]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn a_run_is_recorded_as_video_inspected_and_replayed() {
    const VIDEO: [&str; 3] = ["--video", "--sim-images", "96x96"];
    let (bench, _) = Bench::merged(Embodiment::So101);
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

/// Torque is off, and the encoder hangs: who does not want to wait need not.
#[test]
#[cfg(all(unix, feature = "mp4"))]
fn a_program_that_saves_can_be_ended() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    let (bench, _) = Bench::merged(Embodiment::So101);
    let ffmpeg = bench.join("ffmpeg");
    let script = "#!/bin/sh\ncase \"$*\" in *null*) cat > /dev/null;; *) exec sleep 20;; esac\n";
    std::fs::write(&ffmpeg, script).unwrap();
    std::fs::set_permissions(&ffmpeg, std::fs::Permissions::from_mode(0o755)).unwrap();
    let more = ["--video", "--sim-images", "96x96"];
    let mut program = command(&bench, &more, ffmpeg.to_str());
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> =
        lines.take_while(|line| !line.contains("saving episode 1 of 1; Ctrl-C")).collect();
    assert!(said.iter().any(|line| line.contains("torque is off")), "{said:?}");
    let begun = std::time::Instant::now();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(2), "{status}, {said:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    let inspected = run(["dataset", "inspect", bench.join("data").to_str().unwrap(), "--json"]);
    assert_eq!(inspected.json()["info"]["total_episodes"], 0);
}

#[test]
#[cfg(not(feature = "mp4"))]
fn without_the_feature_it_says_how_to_build() {
    let (bench, _) = Bench::merged(Embodiment::So101);
    drive(&bench, &["--video"], None).failed_with(&["--features mp4"]);
    assert!(!bench.join("data").exists());
    let alone = run(["drive", "--policy", "x", "--video"]);
    assert!(alone.code == Some(2) && alone.error.contains("--record"), "{}", alone.error);
}
