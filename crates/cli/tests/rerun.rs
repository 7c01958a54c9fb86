//! What a loop logs for the Rerun viewer, read back by the SDK's own decoder.
#![cfg(all(unix, feature = "rerun"))]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;

use re_sdk::external::re_log_encoding::DecoderApp;
use re_sdk::log::{Chunk, LogMsg};
use serde_json::json;
use skillweld_synth::Embodiment;
use support::served::wait_until;
use support::{Bench, Ran, run, skillweld};

const JOINTS: [&str; 6] =
    ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn arguments<'a>(policy: &'a Path, log: &'a str) -> [&'a str; 9] {
    let task = "put the red cube on the tray";
    ["drive", "--policy", text(policy), "--task", task, "--sim-images", "96x96", "--rerun", log]
}

fn drive(policy: &Path, log: &str, more: &[&str]) -> Ran {
    run(arguments(policy, log).iter().chain(more))
}

/// Rows of each entity, and the steps that they belong to; static ones have none.
fn read(path: &Path) -> BTreeMap<String, (usize, BTreeSet<i64>)> {
    let mut entities: BTreeMap<String, (usize, BTreeSet<i64>)> = BTreeMap::new();
    for message in DecoderApp::decode_lazy(BufReader::new(File::open(path).unwrap())) {
        let LogMsg::ArrowMsg(_, message) = message.unwrap() else { continue };
        let chunk = Chunk::from_arrow_msg(&message).unwrap();
        let (rows, steps) = entities.entry(chunk.entity_path().to_string()).or_default();
        if chunk.is_static() {
            continue;
        }
        *rows += chunk.num_rows();
        assert!(chunk.timelines().contains_key(&"time".into()), "{}", chunk.entity_path());
        steps.extend(chunk.timelines()[&"step".into()].times_raw());
    }
    entities
}

#[test]
fn every_step_is_logged() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let log = bench.join("run.rrd");
    let summary = drive(&policy, text(&log), &["--seconds", "2", "--json"]).succeeded().json();
    assert_eq!((&summary["problems"], &summary["remarks"]), (&json!([]), &json!([])));
    let steps = summary["steps"].as_u64().unwrap() as usize;

    let entities = read(&log);
    let rows = |entity: &str| entities.get(entity).unwrap_or_else(|| panic!("{entity}: {entities:?}")).0;
    assert_eq!(rows("/loop/lateness_ms"), steps);
    assert_eq!(entities["/loop/lateness_ms"].1.len(), steps, "each step once");
    for joint in JOINTS {
        assert_eq!(rows(&format!("/robot/joint/{joint}/measured")), steps);
        assert_eq!(rows(&format!("/robot/joint/{joint}/sent")), steps);
    }
    for camera in ["front", "wrist"] {
        assert!((1..=steps).contains(&rows(&format!("/robot/camera/{camera}"))), "{entities:?}");
    }
    assert_eq!(rows("/loop/queue"), steps);
    assert_eq!(rows("/policy/latency_ms") as u64, summary["inference"]["count"].as_u64().unwrap());
    assert!(rows("/policy/routing") >= 1);
    // The end at least.
    assert!(rows("/loop/events") >= 1);

    // What is there is kept.
    drive(&policy, text(&log), &[]).failed_with(&["run.rrd already exists", "choose another name"]);
    assert_eq!(read(&log)["/loop/lateness_ms"].0, steps);
}

/// A killed program has no time to end its file.
#[test]
fn what_a_killed_run_has_logged_can_be_read() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let log = bench.join("run.rrd");
    let mut child = skillweld()
        .args(arguments(&policy, text(&log)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a log", || log.metadata().is_ok_and(|file| file.len() > 200_000));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(read(&log)["/robot/joint/gripper/sent"].0 > 10);
}

#[test]
fn a_log_that_cannot_be_written_is_refused_before_anything_moves() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let nowhere = bench.join("nowhere/run.rrd");
    drive(&policy, text(&nowhere), &[])
        .failed_with(&["nowhere/run.rrd cannot be written", "name a file in a folder"]);
    drive(&policy, text(&bench.join("run.bag")), &[]).failed_with(&["OUT.rrd"]);
    drive(&policy, "rerun+http://127.0.0.1:9/proxy", &[]).failed_with(&["no viewer listens", "`rerun`"]);
    // A run that does not come about leaves nothing behind.
    let log = bench.join("run.rrd");
    drive(&policy, text(&log), &["--robot", "so101", "--id", "none", "--port", "/dev/nowhere"])
        .failed_with(&[]);
    drive(&policy, text(&log), &["--skill", "none"]).failed_with(&["none"]);
    assert!(!log.exists());
}
