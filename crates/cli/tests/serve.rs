//! `serve` with real policies, made on the spot: what robots get over the socket is what `predict` computes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value as Json;
use skillweld_serve::{Array, Dtype, Value};
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::served::{Client, Server, wait_until};
use support::{Bench, run};

const STATE: [f32; 8] = [0.05, -0.1, 0.2, 0.3, 0.0, -0.2, 0.04, -0.04];
const PROMPT: &str = "Open the drawer";

fn merged() -> (Bench, PathBuf) {
    let bench = Bench::new();
    let spec = PrismaticSpec { dtype: skillweld_tensor::Dtype::F32, ..PrismaticSpec::tiny() };
    spec.write_all(bench.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
    let (recipe, policy) = (bench.action_recipe(), bench.join("merged"));
    run([Path::new("merge"), &recipe, &policy]).succeeded();
    (bench, policy)
}

/// A camera image of smooth colours.
fn pixels(height: usize, width: usize, phase: usize) -> Vec<u8> {
    (0..height * width * 3).map(|i| ((i / 3 % width * 2 + i % 3 * 40 + phase) % 256) as u8).collect()
}

fn state_bytes() -> Vec<u8> {
    STATE.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The observation as a LIBERO client sends it, with images of this size.
fn observation_of(height: usize, width: usize) -> Value {
    let array =
        |dtype, shape: &[usize], bytes: Vec<u8>| Array::new(dtype, shape.to_vec(), bytes.into()).unwrap();
    let image = |phase| array(Dtype::U8, &[height, width, 3], pixels(height, width, phase));
    Value::Map(vec![
        ("observation/image".into(), image(0).into()),
        ("observation/wrist_image".into(), image(90).into()),
        ("observation/state".into(), array(Dtype::F32, &[8], state_bytes()).into()),
        ("prompt".into(), PROMPT.into()),
    ])
}

fn observation() -> Value {
    observation_of(96, 128)
}

fn with(request: &Value, key: &str, value: impl Into<Value>) -> Value {
    let Value::Map(mut entries) = request.clone() else { panic!("no map") };
    entries.retain(|(name, _)| name != key);
    entries.push((key.into(), value.into()));
    Value::Map(entries)
}

/// The same observation as `predict` takes it, and what `predict` makes of it: its report, and the actions' bits.
fn predicted(bench: &Bench, policy: &Path, more: &[&str]) -> (Json, Vec<f32>) {
    let tensors = [
        ("image_0", skillweld_tensor::Dtype::U8, vec![96, 128, 3], pixels(96, 128, 0)),
        ("image_1", skillweld_tensor::Dtype::U8, vec![96, 128, 3], pixels(96, 128, 90)),
        ("state", skillweld_tensor::Dtype::F32, vec![8], state_bytes()),
    ];
    let specs = tensors.iter().map(|(name, dtype, shape, _)| TensorSpec {
        name: (*name).to_owned(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    drop(fs::remove_file(bench.join("in.safetensors")));
    let metadata = BTreeMap::from([("prompt".to_owned(), PROMPT.to_owned())]);
    let writer = SafetensorsWriter::create(bench.path(), "in", specs.collect(), &metadata, None).unwrap();
    for (index, (.., bytes)) in tensors.iter().enumerate() {
        writer.write_at(index, 0, bytes).unwrap();
    }
    writer.finish().unwrap();
    let (inputs, output) = (bench.join("in.safetensors"), bench.join("out.safetensors"));
    let arguments =
        [Path::new("predict"), policy, Path::new("--inputs"), &inputs, Path::new("--output"), &output];
    let arguments = arguments.iter().map(|path| path.as_os_str()).chain(more.iter().map(AsRef::as_ref));
    let report = run(arguments.chain(["--json".as_ref(), "--force".as_ref()])).succeeded().json();
    let actions = Checkpoint::open(&output).unwrap().get("actions").unwrap().to_f32().unwrap();
    assert_eq!(actions.shape(), [8, 7]);
    (report, actions.into_iter().collect())
}

fn actions(answer: &Value) -> Vec<f32> {
    match answer.get("actions") {
        Some(Value::Array(array)) if array.shape() == [8, 7] => array.to_f32(),
        other => panic!("{other:?}"),
    }
}

fn text<'a>(answer: &'a Value, map: &str, key: &str) -> &'a str {
    answer.get(map).and_then(|map| map.get(key)).and_then(Value::as_text).unwrap()
}

fn number(answer: &Value, path: [&str; 2]) -> f64 {
    match answer.get(path[0]).and_then(|map| map.get(path[1])) {
        Some(Value::Float(number)) => *number,
        other => panic!("{path:?} is {other:?}"),
    }
}

/// Task and reason of an answer.
fn routing(answer: &Value) -> (&str, &str) {
    (text(answer, "routing", "task"), text(answer, "routing", "reason"))
}

fn lines(log: &Path) -> Vec<Json> {
    fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn robots_get_what_predict_computes() {
    let (bench, policy) = merged();
    let log = bench.join("decisions.jsonl");
    let (report, expected) = predicted(&bench, &policy, &[]);
    let (chosen, candidates) = (report["task"].as_str().unwrap(), &report["routing"]["candidates"]);
    let other = if chosen == "spatial" { "object" } else { "spatial" };
    let (_, others) = predicted(&bench, &policy, &["--task", other]);
    assert_ne!(expected, others, "tasks differ");

    let server = Server::start(&policy, &["--decision-log", log.to_str().unwrap()]);
    let mut client = Client::connect(&server);
    assert_eq!(client.metadata.get("tasks"), Some(&vec!["spatial", "object"].into()));
    for _ in 0..2 {
        let answer = client.infer(&observation()).unwrap();
        assert_eq!(actions(&answer), expected);
        assert_eq!(routing(&answer), (chosen, "routed"));
        let scores = answer.get("routing").unwrap().get("scores").unwrap();
        for candidate in candidates.as_array().unwrap() {
            let score = Value::Float(candidate["score"].as_f64().unwrap());
            assert_eq!(scores.get(candidate["task"].as_str().unwrap()), Some(&score));
        }
        assert_eq!(number(&answer, ["routing", "margin"]), report["routing"]["margin"].as_f64().unwrap());
    }
    let answer = client.infer(&with(&observation(), "task", other)).unwrap();
    assert_eq!((actions(&answer), routing(&answer)), (others, (other, "requested")));
    let answer = client.infer(&Value::Map(vec![("reset".into(), true.into())])).unwrap();
    assert_eq!(answer.get("reset"), Some(&true.into()));
    let answer = client.infer(&observation()).unwrap();
    assert_eq!((actions(&answer), routing(&answer)), (expected.clone(), (chosen, "routed")));
    // A second client has an episode of its own.
    let mut second = Client::connect(&server);
    second.infer(&with(&observation(), "prompt", "close it")).unwrap();

    let logged = lines(&log);
    let heads: Vec<_> = logged
        .iter()
        .map(|line| {
            let number = |key: &str| line[key].as_u64().unwrap();
            let text = |key: &str| line[key].as_str().unwrap();
            (number("client"), number("episode"), number("chunk"), text("outcome"), text("prompt"))
        })
        .collect();
    let expected_heads = [
        (1, 1, 1, "routed", PROMPT),
        (1, 1, 3, "requested", PROMPT),
        (1, 2, 1, "routed", PROMPT),
        (2, 1, 1, "routed", "close it"),
    ];
    assert_eq!(heads, expected_heads);
    assert_eq!((&logged[0]["task"], &logged[1]["task"]), (&chosen.into(), &other.into()));
    for candidate in candidates.as_array().unwrap() {
        assert_eq!(logged[0]["scores"][candidate["task"].as_str().unwrap()], candidate["score"]);
    }
    assert_eq!(logged[0]["margin"], report["routing"]["margin"]);
    assert!(logged[0]["unix_time_s"].as_f64().unwrap() > 1.7e9);
    assert_eq!((&logged[1]["scores"], &logged[1]["margin"]), (&Json::Null, &Json::Null));
}

#[test]
fn what_the_policy_refuses_is_said_and_others_go_on() {
    let (_bench, policy) = merged();
    let server = Server::start(&policy, &["--task", "object"]);
    let mut bystander = Client::connect(&server);
    let first = bystander.infer(&observation()).unwrap();
    assert_eq!(routing(&first), ("object", "fixed"));
    let refused = |request: &Value, words: &str| {
        let (said, code) = Client::connect(&server).infer(request).unwrap_err();
        assert!(said.contains(words) && code == 1011, "{code}: {said}");
    };
    let short = Array::from_f32(&[7], &STATE[..7]).unwrap();
    refused(&with(&observation(), "observation/state", short), "has 7 numbers; the policy wants 8");
    // This one gets to the policy, whose limit are tokens.
    refused(&with(&observation(), "prompt", "q ".repeat(1000)), "tokens");
    refused(&with(&observation(), "task", "gaol"), "unknown task `gaol`; this policy knows spatial, object");
    assert_eq!(actions(&bystander.infer(&observation()).unwrap()), actions(&first));
}

#[test]
fn an_unsure_router_abstains_or_falls_back_and_both_are_logged() {
    let (bench, policy) = merged();
    let log = bench.join("decisions.jsonl");
    let unsure = ["--min-probability", "1", "--decision-log", log.to_str().unwrap()];
    let server = Server::start(&policy, &unsure);
    for client in 1..=2 {
        let (said, code) = Client::connect(&server).infer(&observation()).unwrap_err();
        assert!(said.contains("not sure") && said.contains("fallback") && code == 1011, "{code}: {said}");
        let line = &lines(&log)[client - 1];
        assert_eq!((&line["outcome"], &line["task"]), (&"abstained".into(), &Json::Null));
        assert_eq!((line["client"].as_u64(), line["chunk"].as_u64()), (Some(client as u64), Some(1)));
        assert_eq!(line["scores"].as_object().unwrap().len(), 2);
        assert!((0.0..1.0).contains(&line["margin"].as_f64().unwrap()), "{line}");
    }
    assert_eq!(server.metric("skillweld_decisions_total{task=\"\",outcome=\"abstained\"}"), 2.0);
    assert_eq!(server.metric("skillweld_errors_total{kind=\"abstained\"}"), 2.0);
    // Naming a task needs no router.
    let answer = Client::connect(&server).infer(&with(&observation(), "task", "spatial")).unwrap();
    assert_eq!(routing(&answer), ("spatial", "requested"));
    drop(server);

    fs::remove_file(&log).unwrap();
    let server = Server::start(&policy, &[&unsure[..], &["--fallback", "object"]].concat());
    let (_, expected) = predicted(&bench, &policy, &["--task", "object"]);
    let answer = Client::connect(&server).infer(&observation()).unwrap();
    assert_eq!((actions(&answer), routing(&answer)), (expected, ("object", "fallback")));
    assert_eq!(lines(&log)[0]["outcome"], "fallback");
    assert_eq!(server.metric("skillweld_decisions_total{task=\"object\",outcome=\"fallback\"}"), 1.0);
    assert_eq!(server.metric("skillweld_answers_total{task=\"object\",reason=\"fallback\"}"), 1.0);
}

#[test]
fn the_router_is_asked_again_every_so_many_chunks() {
    let (bench, policy) = merged();
    let log = bench.join("decisions.jsonl");
    let server = Server::start(&policy, &["--every", "2", "--decision-log", log.to_str().unwrap()]);
    let mut client = Client::connect(&server);
    let asked = (0..5).map(|_| {
        let answer = client.infer(&observation()).unwrap();
        assert_eq!(routing(&answer).1, "routed");
        number(&answer, ["policy_timing", "routing_ms"]) > 0.0
    });
    assert_eq!(asked.collect::<Vec<_>>(), [true, false, true, false, true]);
    let chunks: Vec<_> = lines(&log).iter().map(|line| line["chunk"].as_u64().unwrap()).collect();
    assert_eq!(chunks, [1, 3, 5]);
    let chosen = lines(&log)[0]["task"].as_str().unwrap().to_owned();
    let metric = |name: &str| {
        server.metric(&format!(
            "skillweld_{name}_total{{task=\"{chosen}\",{}=\"routed\"}}",
            if name == "answers" { "reason" } else { "outcome" }
        ))
    };
    assert_eq!((metric("answers"), metric("decisions")), (5.0, 3.0));
    // On the console, only the first is news.
    assert_eq!(server.said().iter().filter(|line| line.contains("routed")).count(), 1);
}

/// What it takes to get the weights of a task, on the first request for it.
fn first_switch_ms(policy: &Path, options: &[&str], task: Option<&str>) -> f64 {
    let server = Server::start(policy, options);
    let request = task.map_or_else(observation, |task| with(&observation(), "task", task));
    number(&Client::connect(&server).infer(&request).unwrap(), ["policy_timing", "switch_ms"])
}

#[test]
fn a_server_that_is_ready_loads_nothing_more() {
    let (_bench, policy) = merged();
    // Looking up weights that are there takes microseconds, rewriting those of the smallest model a millisecond or so.
    let cold = first_switch_ms(&policy, &["--task", "spatial"], Some("object"));
    for (options, task) in [
        (&["--task", "object"][..], None),
        (&["--active-tasks", "2"], None),
        (&["--active-tasks", "2"], Some("spatial")),
        (&["--active-tasks", "2"], Some("object")),
    ] {
        let warm = || first_switch_ms(&policy, options, task);
        // A busy machine may interrupt one of them.
        assert!(
            warm() < cold / 10.0 || warm() < cold / 10.0,
            "{options:?} {task:?}: {cold} ms when it has to"
        );
    }
}

/// Every write to it fails as on a full disk.
#[test]
#[cfg(target_os = "linux")]
fn a_log_that_cannot_be_written_is_said_once() {
    let (_bench, policy) = merged();
    let server = Server::start(&policy, &["--every", "1", "--decision-log", "/dev/full"]);
    let mut client = Client::connect(&server);
    for _ in 0..3 {
        client.infer(&observation()).unwrap();
    }
    server.terminate();
    let (status, said) = server.end();
    assert!(status.success());
    let warnings: Vec<_> = said.iter().filter(|line| line.contains("/dev/full")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("No space left"), "{said:?}");
    run([Path::new("serve"), &policy, Path::new("--decision-log"), Path::new("/nowhere/log")])
        .failed_with(&["cannot write /nowhere/log"]);
}

#[test]
fn limits_are_options() {
    let (_bench, policy) = merged();
    let server =
        Server::start(&policy, &["--task", "object", "--max-clients", "1", "--max-frame-bytes", "200000"]);
    let mut client = Client::connect(&server);
    client.infer(&observation()).unwrap();
    assert!(Client::try_connect(&server.address).err().unwrap().contains("503"));
    let (said, code) = client.infer(&observation_of(200, 400)).unwrap_err();
    assert!(said.contains("larger than 200000 bytes") && code == 1009, "{code}: {said}");
    let help = run(["serve", "--help"]).succeeded().out;
    for words in [
        "--max-queue",
        "[default: 128]",
        "memory for messages is at most 5 × this × --max-clients",
        "[default: 33554432]",
    ] {
        assert!(help.contains(words), "{help}");
    }
    run(["serve", "merged", "--max-clients", "0"].map(Path::new)).code.filter(|&code| code == 2).unwrap();
}

/// A 4K image keeps the policy busy for long enough: preprocessing reads every pixel.
#[test]
fn sigterm_lets_the_running_request_end() {
    let (_bench, policy) = merged();
    let server = Server::start(&policy, &["--task", "object"]);
    let mut client = Client::connect(&server);
    let image = Array::new(Dtype::U8, vec![2160, 3840, 3], pixels(2160, 3840, 0).into()).unwrap();
    client.send(&with(&observation(), "observation/image", image));
    let request = "skillweld_requests_total{protocol=\"openpi\",kind=\"infer\"}";
    wait_until("the request", || server.metric(request) == 1.0);
    // Counted, it has still to reach the policy's thread; a stop before that would end it.
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert_eq!(server.metric("skillweld_inference_seconds_count"), 0.0, "it is still running");
    server.terminate();
    server.wait_for("stopping");
    actions(&client.receive().unwrap());
    assert_eq!(client.receive().unwrap_err(), (String::new(), 1001));
    let (status, _) = server.end();
    assert!(status.success());
}

/// Whoever started it may close the pipe that it talks to.
#[test]
fn nobody_has_to_listen_to_what_it_says() {
    let (_bench, policy) = merged();
    let mut command = support::skillweld();
    command.args(["serve", "--port", "0"]).arg(&policy).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("ws://")?.1.to_owned())).unwrap();
    assert!(lines.any(|line| line.contains("ready")));
    drop(lines);
    let mut client = Client::try_connect(&address).unwrap();
    for task in ["spatial", "object", "spatial"] {
        client.infer(&with(&observation(), "task", task)).unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
