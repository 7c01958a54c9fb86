//! From a merged checkpoint to a moving arm: simulated, behind a socket, and on a bus of fake servos.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skillweld_fake_servo_bus::{ServoBus, Servos, address};
use skillweld_synth::Embodiment;
use support::served::{Server, wait_until};
use support::{Bench, Ran, run, skillweld};

const IDS: [u8; 6] = [1, 2, 3, 4, 5, 6];
const JOINTS: [&str; 6] =
    ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"];
/// Homing offset, least and largest position of each joint, in ticks.
const RANGES: [(i32, i32, i32); 6] = [
    (-709, 743, 3335),
    (1104, 825, 3217),
    (-1220, 884, 3098),
    (-2047, 877, 3198),
    (2047, 0, 4095),
    (0, 2020, 3522),
];

fn drive(policy: &str, more: &[&str]) -> Ran {
    let arguments = ["drive", "--policy", policy, "--task", "put the red cube on the tray"];
    let small: &[&str] = if more.contains(&"so101") { &[] } else { &["--sim-images", "96x96"] };
    run(arguments.iter().chain(small).chain(more))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_merged_policy_moves_a_simulated_arm_and_what_it_does_is_recorded_and_replayed() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let data = bench.join("data");
    let ran = drive(text(&policy), &["--seconds", "3", "--record", text(&data), "--json"]).succeeded();
    let summary = ran.json();
    assert_eq!(summary["success"], true);
    assert_eq!(summary["end"], "the run is over");
    assert_eq!(summary["torque_may_be_on"], Value::Null);
    assert!(summary["steps"].as_u64().unwrap() > 20, "{summary}");
    assert!(summary["inference"]["count"].as_u64().unwrap() >= 2, "{summary}");
    assert!(ran.error.contains("task "), "the routing decision is said: {}", ran.error);

    let inspected = run(["dataset", "inspect", text(&data), "--pixels", "--json"]).succeeded().json();
    assert_eq!(inspected["problems"], json!([]));
    assert_eq!(inspected["info"]["robot_type"], "so101_sim");
    assert_eq!(inspected["tasks"], json!(["put the red cube on the tray"]));
    let frames = inspected["episodes"][0]["frames"].as_u64().unwrap();
    assert_eq!(summary["episodes"][0]["frames"], frames);
    assert!(frames > 10, "{inspected}");
    let page = run(["dataset", "inspect", text(&data)]).succeeded().out;
    assert!(page.contains("put the red cube") && page.contains("whole"), "{page}");

    let replayed = run(["replay", text(&data), "--sim-images", "96x96", "--json"]).succeeded().json();
    assert!(replayed["steps"].as_u64().unwrap() <= frames + 1, "{replayed}");
    assert_eq!(replayed["inference"], Value::Null);
    run(["replay", text(&data), "--episode", "7"]).failed_with(&["7"]);
    run(["replay", text(&data), "--fps", "10"]).failed_with(&["--fps 30"]);

    // The next run is the next episode.
    drive(text(&policy), &["--seconds", "1", "--record", text(&data), "--skill", "goal"])
        .failed_with(&["goal"]);
    drive(text(&policy), &["--seconds", "1", "--record", text(&data)]).succeeded();
    let inspected = run(["dataset", "inspect", text(&data), "--json"]).succeeded().json();
    assert_eq!(inspected["info"]["total_episodes"], 2);
}

#[test]
fn the_same_policy_behind_a_socket() {
    let (_bench, policy) = Bench::merged(Embodiment::So101);
    let server = Server::start(&policy, &[]);
    let summary =
        drive(&format!("ws://{}", server.address), &["--seconds", "2", "--json", "--send-hz", "90"])
            .succeeded()
            .json();
    assert_eq!(summary["success"], true);
    assert!(summary["inference"]["count"].as_u64().unwrap() >= 1, "{summary}");
}

#[test]
fn a_dry_run_says_what_would_be_sent() {
    let (_bench, policy) = Bench::merged(Embodiment::So101);
    let ran = drive(text(&policy), &["--seconds", "3", "--dry-run", "--json"]).succeeded();
    let lines = ran.error.lines().filter(|line| line.contains(" s  would be sent: shoulder_pan ")).count();
    assert!((1..=3).contains(&lines), "once a second, if there is an action: {}", ran.error);
    let summary = ran.json();
    let joints = summary["dry_run"]["joints"].as_array().unwrap();
    assert_eq!(joints.iter().map(|joint| joint["joint"].as_str().unwrap()).collect::<Vec<_>>(), JOINTS);
    assert!(summary["dry_run"]["commands"].as_u64().unwrap() > 5);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_moves() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let policy = text(&policy);
    drive(policy, &["--units", "centred"]).failed_with(&["degrees", "--units degrees"]);
    run(["drive", "--policy", policy]).failed_with(&["--task"]);
    drive("ws://127.0.0.1:9", &[]).failed_with(&["cannot be reached", "skillweld serve"]);
    drive(policy, &["--view"]).failed_with(&["terminal"]);
    drive(policy, &["--camera", "front=pattern"]).failed_with(&["front", "two of this name"]);
    drive(policy, &["--images", "3"]).failed_with(&["wants 3 images", "--camera NAME=SOURCE"]);
    // One camera more than the policy was trained with is not shown to it.
    drive(policy, &["--camera", "top=pattern:64x48", "--seconds", "1"]).succeeded();
    drive(policy, &["--camera", "side"]).failed_with(&["NAME=SOURCE"]);
    drive(policy, &["--port", "/dev/ttyACM0"]).failed_with(&["--robot so101"]);
    drive(policy, &["--id", "my_arm"]).failed_with(&["--id is an arm's: add --robot so101"]);
    let leader = drive(policy, &["--leader-id", "my_leader"]);
    assert!(leader.code == Some(2) && leader.error.contains("--leader-port"), "{}", leader.error);
    drive(policy, &["--max-velocity", "0"]).failed_with(&["0 is no velocity"]);
    run(["drive", "--policy", policy, "--task", "x", "--sim-images", "0x96"])
        .failed_with(&["1 … 4096 pixels"]);
    drive(policy, &["--camera", "top=pattern@1"]).failed_with(&["1 frames a second are none of 3 to 1000"]);
    drive(policy, &["--max-step", "0"]).failed_with(&["--max-step"]);
    #[cfg(not(feature = "rerun"))]
    drive(policy, &["--rerun", "run.rrd"]).failed_with(&["built without Rerun", "--features rerun"]);
    let port = bench.join("nothing");
    let so101 = ["--robot", "so101", "--id", "my_arm", "--port", text(&port)];
    drive(policy, &so101).failed_with(&["my_arm", "skillweld robot calibrate"]);

    let (_bench, libero) = Bench::merged(Embodiment::Libero);
    drive(text(&libero), &[]).failed_with(&["7 numbers", "so101_sim has 6 joints", "another robot"]);
}

/// A fake arm behind a port, calibrated as the file in the folder says.
struct Arm {
    servos: Servos,
    bus: ServoBus,
    calibrations: PathBuf,
}

impl Arm {
    fn new(bench: &Bench, role: &str, name: &str) -> Self {
        let servos = Servos::new(&IDS);
        let mut file = serde_json::Map::new();
        for (index, (offset, min, max)) in RANGES.into_iter().enumerate() {
            let id = IDS[index];
            servos.calibrate(id, offset, min as u16, max as u16);
            servos.turn(id, f64::from((min + max) / 2 + offset));
            file.insert(
                JOINTS[index].into(),
                json!({"id": id, "drive_mode": 0, "homing_offset": offset, "range_min": min, "range_max": max}),
            );
        }
        let calibrations = bench.join("calibration");
        let folder = calibrations.join(role);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.json")), Value::Object(file).to_string()).unwrap();
        let bus = ServoBus::start(&servos).unwrap();
        Self { servos, bus, calibrations }
    }

    fn port(&self) -> String {
        self.bus.path().to_str().unwrap().to_owned()
    }

    fn torque(&self) -> Vec<bool> {
        IDS.iter().map(|&id| self.servos.torque_enabled(id)).collect()
    }

    /// Every goal that a servo was ever told, in ticks.
    fn goals(&self, id: u8) -> Vec<i32> {
        self.servos.goals().iter().filter(|write| write.id == id).map(|write| write.goal).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = skillweld();
        command.env("HF_LEROBOT_CALIBRATION", &self.calibrations).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }
}

const CAMERAS: [&str; 4] = ["--camera", "front=pattern:96x96", "--camera", "wrist=pattern:96x96"];

#[test]
fn a_policy_moves_an_so101_and_lets_go_of_it() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let arm = Arm::new(&bench, "robots/so_follower", "arm");
    let port = arm.port();
    let so101 = ["drive", "--robot", "so101", "--port", &port, "--policy", text(&policy), "--task", "pick"];
    let summary = arm.run(&[&so101[..], &CAMERAS, &["--seconds", "3", "--json"]].concat()).succeeded().json();
    assert_eq!(summary["success"], true);
    assert_eq!(arm.torque(), [false; 6]);
    for (id, (_, min, max)) in IDS.into_iter().zip(RANGES) {
        let goals = arm.goals(id);
        assert!(goals.len() > 10, "servo {id} was told {} goals", goals.len());
        assert!(goals.iter().all(|goal| (min..=max).contains(goal)), "servo {id}: {goals:?}");
    }

    // Pulled out, the arm cannot be told; the message names the cable.
    let child = arm
        .command(&[&so101[..], &CAMERAS, &["--json"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let before = arm.goals(1).len();
    wait_until("commands", || arm.goals(1).len() > before + 5);
    arm.servos.unplug();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.error);
    assert!(ran.json()["torque_may_be_on"].is_string(), "{}", ran.out);
    assert!(ran.json()["end"].as_str().unwrap().contains("cable"), "{}", ran.out);
}

/// Ctrl-C, as the shell sends it: the arm holds, and lets go.
#[test]
fn an_interrupted_drive_turns_torque_off_and_says_so() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let arm = Arm::new(&bench, "robots/so_follower", "arm");
    let port = arm.port();
    let so101 = ["drive", "--robot", "so101", "--port", &port, "--policy", text(&policy), "--task", "pick"];
    for (signal, data) in [("-INT", "data"), ("-TSTP", "data2")] {
        let data = bench.join(data);
        let child = arm
            .command(&[&so101[..], &CAMERAS, &["--json", "--record", text(&data)]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let before = arm.goals(1).len();
        // Until the first chunk comes the arm is told to hold, which is not recorded: three seconds are enough for one.
        wait_until("commands", || arm.goals(1).len() > before + 90);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let interrupted = Instant::now();
        wait_until("torque off", || arm.torque() == [false; 6]);
        // A period of 33 ms and some exchanges of a millisecond; the rest is for a busy machine.
        assert!(interrupted.elapsed() < Duration::from_secs(2), "{:?}", interrupted.elapsed());
        let ran = Ran::from(child.wait_with_output().unwrap()).succeeded();
        assert_eq!(ran.json()["end"], "stop was asked for");
        assert_eq!(ran.json()["torque_may_be_on"], Value::Null);
        // What was done until then is kept.
        assert_eq!(ran.json()["episodes"].as_array().unwrap().len(), 1, "{}", ran.out);
        run(["dataset", "inspect", text(&data)]).succeeded();
    }
}

/// A killed program can do nothing; its guardian can.
#[test]
fn a_killed_drive_leaves_no_torque_behind() {
    let (bench, policy) = Bench::merged(Embodiment::So101);
    let arm = Arm::new(&bench, "robots/so_follower", "arm");
    let port = arm.port();
    let so101 = ["drive", "--robot", "so101", "--port", &port, "--policy", text(&policy), "--task", "pick"];
    let mut child = arm.command(&[&so101[..], &CAMERAS].concat()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("torque on", || arm.torque() == [true; 6]);
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = Instant::now();
    wait_until("torque off", || arm.torque() == [false; 6]);
    // 100 ms until the dead program's port is closed, an exchange a servo, and time for a busy machine.
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
}

#[test]
fn one_arm_follows_another_and_episodes_are_kept() {
    let bench = Bench::new();
    let follower = Arm::new(&bench, "robots/so_follower", "arm");
    let leader = Arm::new(&bench, "teleoperators/so_leader", "leader");
    let (port, leader_port, data) = (follower.port(), leader.port(), bench.join("data"));
    let arms = ["--robot", "so101", "--port", &port, "--leader-port", &leader_port];
    let times = ["--episodes", "2", "--episode-seconds", "1", "--reset-seconds", "0.3"];
    let record = ["record", text(&data), "--task", "wave", "--camera", "front=pattern:64x48"];
    leader.servos.turn(1, f64::from((743 + 3335) / 2 - 709 + 200));
    let summary = follower.run(&[&record[..], &arms, &times, &["--json"]].concat()).succeeded().json();
    assert_eq!(summary["episodes"].as_array().unwrap().len(), 2, "{summary}");
    assert_eq!(follower.torque(), [false; 6]);
    let last = *follower.goals(1).last().unwrap();
    assert!((last - ((743 + 3335) / 2 + 200)).abs() <= 3, "the follower was told {last}");
    let inspected = run(["dataset", "inspect", text(&data), "--json"]).succeeded().json();
    assert_eq!(inspected["problems"], json!([]));
    assert_eq!(inspected["info"]["total_episodes"], 2);

    // Replayed, the follower is told what was recorded.
    let before = follower.goals(1).len();
    let replay = ["replay", text(&data), "--camera", "front=pattern:64x48", "--json"];
    let so101 = ["--robot", "so101", "--port", &port];
    follower.run(&[&replay[..], &so101].concat()).succeeded();
    let frames = inspected["episodes"][0]["frames"].as_u64().unwrap() as usize;
    let told = follower.goals(1).split_off(before);
    assert!(told.len() >= frames / 2, "{} goals for {frames} frames", told.len());
    assert!((told[told.len() - 1] - last).abs() <= 3, "{told:?}");
    follower.run(&[&replay[..], &so101, &["--units", "centred"]].concat()).failed_with(&["--units degrees"]);
    let other =
        ["record", text(&data), "--task", "wave", "--camera", "front=pattern:64x48", "--units", "centred"];
    follower.run(&[&other[..], &arms].concat()).failed_with(&["units", "degrees", "centred"]);

    let teleop = ["robot", "teleop", "--seconds", "1", "--json"];
    assert_eq!(follower.run(&[&teleop[..], &arms].concat()).succeeded().json()["success"], true);
    let none = ["robot", "teleop", "--robot", "so101", "--port", &port];
    follower.run(&none).failed_with(&["--leader-port"]);
}

#[test]
fn an_arm_is_found_scanned_watched_and_calibrated() {
    let bench = Bench::new();
    let arm = Arm::new(&bench, "robots/so_follower", "arm");
    let port = arm.port();
    let found = arm.run(&["robot", "scan", "--port", &port, "--quick", "--json"]).succeeded().json();
    let ids: Vec<_> = found["servos"].as_array().unwrap().iter().map(|servo| servo["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    let seen = arm.run(&["robot", "monitor", "--port", &port, "--json"]).succeeded().json();
    assert_eq!(seen["joints"][2]["joint"], "elbow_flex");
    let page = arm.run(&["robot", "monitor", "--port", &port, "--once"]).succeeded().out;
    assert!(page.contains("elbow_flex") && page.contains("well"), "{page}");
    run(["robot", "find-port", "--json"]).succeeded().json();
    arm.servos.set(3, address::TORQUE_ENABLE, &[1]);
    arm.run(&["robot", "release", "--port", &port]).succeeded();
    assert_eq!(arm.torque(), [false; 6]);

    let calibrate = ["robot", "calibrate", "--follower", "--port", &port];
    arm.run(&[&calibrate[..], &["--id", "arm"]].concat()).failed_with(&["--from-file", "--force"]);
    arm.run(&[&calibrate[..], &["--id", "arm", "--from-file"]].concat()).succeeded();
    arm.run(&[&calibrate[..], &["--id", "new"]].concat()).failed_with(&["standard input has ended"]);
    // Where no file can be written, nobody moves an arm about for nothing.
    let mut nowhere = arm.command(&[&calibrate[..], &["--id", "new"]].concat());
    let file = bench.join("file");
    fs::write(&file, "").unwrap();
    let ran = Ran::from(nowhere.env("HF_LEROBOT_CALIBRATION", &file).output().unwrap());
    ran.failed_with(&["file is a file; name another folder"]);
    arm.run(&["robot", "monitor", "--port", "/dev/nowhere"]).failed_with(&["/dev/nowhere", "find-port"]);
}

/// Minutes of work are not lost with a motor that does not answer at their end.
#[test]
fn a_calibration_is_in_its_file_before_it_is_in_the_motors() {
    let bench = Bench::new();
    let arm = Arm::new(&bench, "robots/so_follower", "arm");
    let (port, file) = (arm.port(), arm.calibrations.join("robots/so_follower/new.json"));
    let calibrate = ["robot", "calibrate", "--follower", "--port", &port, "--id", "new"];
    // On a busy machine the fake servos may answer too late, and setting up does not ask again.
    let begin = || {
        let mut command = arm.command(&calibrate);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line.contains("middle of its range")).map(|_| (child, lines))
    };
    let (mut child, mut lines) = (0..5).find_map(|_| begin()).expect("an arm that answers");
    let mut keyboard = child.stdin.take().unwrap();
    let mut wait_for = |words: &str| lines.find(|line| line.contains(words)).expect(words);
    writeln!(keyboard).unwrap();
    wait_for("whole range");
    for by in [-500.0, 500.0] {
        for (id, (offset, min, max)) in IDS.into_iter().zip(RANGES) {
            arm.servos.turn(id, f64::from((min + max) / 2 + offset) + by);
        }
        let before = arm.servos.packets().len();
        wait_until("samples", || arm.servos.packets().len() > before + 5);
    }
    arm.servos.set_connected(3, false);
    writeln!(keyboard).unwrap();
    let error = wait_for("error: ");
    assert!(error.contains("new.json is there, but not all motors have it: --from-file"), "{error}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    arm.servos.set_connected(3, true);
    arm.run(&[&calibrate[..], &["--from-file"]].concat()).succeeded();
    let read: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let range = |joint: &str| (read[joint]["range_min"].as_i64(), read[joint]["range_max"].as_i64());
    assert_eq!(range("elbow_flex"), (Some(1547), Some(2547)), "{read}");
}
