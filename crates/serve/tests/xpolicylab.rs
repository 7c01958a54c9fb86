//! What clients of XPolicyLab send, packed as their Python packs it, and what they get.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use std::time::{Duration, Instant};

use harness::mirror::Mirror;
use harness::{Client, Running, floats, map, numbers, recorded, small, with};
use skillweld_serve::{DecodeLimits, Metadata, Options, Value, ZeroCost, decode};

/// Two arms of six joints and a gripper each, three cameras.
fn two_arms() -> Metadata {
    Metadata { images: 3, state_dim: Some(14), action_dim: 14, prompt: true, ..small() }
}

fn frame(name: &str) -> Vec<u8> {
    recorded(&format!("xpolicylab/{name}"))
}

/// The same as a value, to be changed.
fn message(name: &str) -> Value {
    decode(&frame(name).into(), &DecodeLimits::default()).unwrap()
}

/// `message` with the entry under these keys replaced or, for `None`, removed.
fn changed(message: &Value, keys: &[&str], value: Option<Value>) -> Value {
    match keys {
        [key] => with(message, key, value),
        [key, inner @ ..] => with(message, key, Some(changed(message.get(key).unwrap(), inner, value))),
        [] => panic!("no key"),
    }
}

fn say(client: &mut Client, name: &str) -> Value {
    client.send_bytes(frame(name));
    client.receive().unwrap()
}

fn kind(answer: &Value) -> &str {
    answer.get("message_type").and_then(Value::as_text).unwrap()
}

fn payload(answer: &Value) -> &Value {
    answer.get("payload").unwrap()
}

/// The parts of every action under `key`.
fn steps(answer: &Value, key: &str) -> Vec<Vec<(String, Vec<f32>)>> {
    let Some(Value::List(steps)) = payload(answer).get(key) else { panic!("{answer:?}") };
    let parts = |step: &Value| {
        let Value::Map(parts) = step else { panic!("{step:?}") };
        parts.iter().map(|(name, _)| (name.clone(), numbers(step, name).1)).collect()
    };
    steps.iter().map(parts).collect()
}

fn in_parts(parts: &[(&str, &[f32])]) -> Vec<(String, Vec<f32>)> {
    parts.iter().map(|(name, numbers)| ((*name).to_owned(), numbers.to_vec())).collect()
}

/// What [`Mirror`] makes of the recorded state of two arms.
fn mirrored() -> Vec<Vec<(String, Vec<f32>)>> {
    vec![in_parts(&[
        ("left_arm_joint_state", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("left_ee_joint_state", &[6.0]),
        ("right_arm_joint_state", &[7.0, 8.0, 9.0, 10.0, 11.0, 12.0]),
        ("right_ee_joint_state", &[13.0]),
    ])]
}

#[test]
fn a_recorded_evaluation_is_answered() {
    let server = Running::start(Mirror(two_arms()), Options::default());
    let mut client = server.connect();

    let hello = say(&mut client, "hello");
    assert_eq!(kind(&hello), "hello_ack");
    for (key, expected) in [
        ("message_id", "id-hello".into()),
        ("evaluation_id", "evaluation".into()),
        ("action_case_id", Value::Nil),
        ("trial_id", "trial-1".into()),
        ("repeat_index", Value::Int(2)),
        ("step", Value::Int(3)),
    ] {
        assert_eq!(hello.get(key), Some(&expected), "{key}");
    }
    assert!(hello.get("sent_at").unwrap().as_text().unwrap().starts_with("20"));
    for (key, expected) in
        [("ok", true.into()), ("server", "skillweld".into()), ("action_dim", Value::Int(14))]
    {
        assert_eq!(payload(&hello).get(key), Some(&expected), "{key}");
    }

    let prepared = say(&mut client, "prepare_case");
    assert_eq!((kind(&prepared), prepared.get("action_case_id")), ("prepare_case_ack", Some(&"case".into())));
    assert_eq!(payload(&prepared).get("ok"), Some(&true.into()));

    for count in [1.0, 2.0] {
        let answer = say(&mut client, "infer_two_arms");
        assert_eq!(kind(&answer), "infer_result");
        assert_eq!(steps(&answer, "actions"), mirrored());
        let pixel = |value: f32| [2.0, 4.0, value, value, value];
        assert_eq!(numbers(payload(&answer), "images").1, [10.0, 20.0, 30.0].map(pixel).concat());
        // Requests since the reset, and the letters of the instruction.
        let facts = numbers(payload(&answer), "facts").1;
        assert_eq!((facts[0], facts[3]), (count, 15.0));
        assert!(matches!(payload(&answer).get("latency_ms"), Some(Value::Float(ms)) if *ms >= 0.0));
    }
    assert_eq!(kind(&say(&mut client, "reset")), "reset_result");
    let answer = say(&mut client, "infer_two_arms");
    assert_eq!(numbers(payload(&answer), "facts").1[0], 1.0);

    // RoboTwin's own keys have no parts: an action is the vector that its environments take.
    let answer = say(&mut client, "infer_robotwin");
    assert_eq!(numbers(payload(&answer), "actions"), (vec![1, 14], (0..14).map(|n| n as f32).collect()));
    assert_eq!(numbers(payload(&answer), "images").1[2..8], [1.0, 1.0, 1.0, 2.0, 4.0, 2.0]);

    assert_eq!(kind(&say(&mut client, "trial_end")), "trial_end_ack");
    assert_eq!(kind(&say(&mut client, "heartbeat")), "heartbeat_ack");
    client.send_bytes(frame("close"));
    let goodbye = client.receive().unwrap_err();
    assert_eq!((goodbye.code, &*goodbye.message), (1000, ""));
    for (kind, count) in [("infer", 4.0), ("reset", 2.0), ("server", 4.0), ("refused", 0.0)] {
        let line = format!("skillweld_requests_total{{protocol=\"xpolicylab\",kind=\"{kind}\"}}");
        assert_eq!(server.metric(&line), count, "{line}");
    }
}

#[test]
fn one_arm_has_keys_of_its_own() {
    let metadata = Metadata { images: 2, state_dim: Some(7), action_dim: 7, prompt: true, ..small() };
    let server = Running::start(Mirror(metadata), Options::default());
    // Big-endian numbers, a scalar, an instruction in a list of one.
    let answer = say(&mut server.connect(), "infer_one_arm");
    let arm = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    assert_eq!(
        steps(&answer, "actions"),
        [in_parts(&[("arm_joint_state", &arm), ("ee_joint_state", &[6.0])])]
    );
    assert_eq!(numbers(payload(&answer), "facts").1[3], 4.0);
}

#[test]
fn newer_clients_send_the_observation_before_they_ask() {
    let server = Running::start(Mirror(two_arms()), Options::default());
    let mut client = server.connect();
    for count in [1.0, 2.0] {
        let kept = say(&mut client, "update_obs");
        assert_eq!((kind(&kept), payload(&kept)), ("call_result", &map(vec![("ok", true.into())])));
        let answer = say(&mut client, "get_action");
        assert_eq!((kind(&answer), payload(&answer).get("ok")), ("call_result", Some(&true.into())));
        assert_eq!(steps(&answer, "result"), mirrored());
        assert_eq!(numbers(payload(&answer), "facts").1[0], count);
    }
    // Each is used once, and gone when something else was asked.
    assert_eq!(kind(&say(&mut client, "get_action")), "error");
    say(&mut client, "update_obs");
    say(&mut client, "infer_two_arms");
    let answer = say(&mut client, "get_action");
    let said = payload(&answer).get("message").and_then(Value::as_text).unwrap();
    assert!(said.contains("send `update_obs` before each"), "{said}");

    let call = |function: &str, obs: Option<Value>| {
        let payload = with(&map(vec![("func_name", function.into())]), "obs", obs);
        with(&message("get_action"), "payload", Some(payload))
    };
    let observation = message("infer_two_arms").get("payload").unwrap().get("observation").cloned();
    assert_eq!(steps(&client.infer(&call("get_action", observation)).unwrap(), "result"), mirrored());
    assert_eq!(kind(&client.infer(&call("reset", None)).unwrap()), "call_result");
}

#[test]
fn errors_are_messages_and_the_connection_stays() {
    let server = Running::start(Mirror(two_arms()), Options::default());
    let mut client = server.connect();
    let infer = message("infer_two_arms");
    let observation = ["payload", "observation"];
    let change =
        |keys: &[&str], value: Option<Value>| changed(&infer, &[&observation[..], keys].concat(), value);
    let call = changed(&message("get_action"), &["payload", "func_name"], Some("get_action_batch".into()));
    let arm = ["state", "left_arm_joint_state"];
    for (request, code, said) in [
        (
            with(&infer, "message_type", Some("dance".into())),
            "unknown_message_type",
            "unknown message_type `dance`",
        ),
        (call, "unknown_message_type", "unknown func_name `get_action_batch`"),
        (with(&infer, "payload", Some(Value::List(vec![]))), "invalid_frame", "`payload` has to be a map"),
        (with(&infer, "payload", None), "invalid_frame", "`payload` has no `observation`"),
        (changed(&infer, &observation, Some(Value::Int(1))), "invalid_frame", "an observation is a map"),
        (change(&["instruction"], None), "invalid_frame", "missing key `instruction`"),
        (
            change(&["vision", "cam_left_wrist"], None),
            "invalid_frame",
            "missing key `vision/cam_left_wrist/color`",
        ),
        (
            change(&["vision", "cam_head", "color"], Some(Value::Bytes(vec![0xff, 0xd8].into()))),
            "invalid_frame",
            "not encoded; it is 2 bytes",
        ),
        (change(&arm, None), "invalid_frame", "missing key `state/left_arm_joint_state`"),
        (change(&arm, Some(floats(&[0.0; 5]))), "invalid_frame", "has 13 numbers; the policy wants 14"),
        (change(&arm, Some(floats(&[f32::NAN; 6]))), "invalid_frame", "NaN or infinity, first at element 0"),
        (change(&["instruction"], Some("abstain".into())), "infer_failed", "not sure"),
    ] {
        let answer = client.infer(&request).unwrap();
        assert_eq!(kind(&answer), "error", "{said}");
        assert_eq!(answer.get("trial_id"), Some(&"trial-1".into()));
        assert_eq!(payload(&answer).get("code"), Some(&code.into()), "{said}");
        let message = payload(&answer).get("message").and_then(Value::as_text).unwrap();
        assert!(message.contains(said), "`{message}` does not say `{said}`");
        assert_eq!(payload(&answer).get("details"), Some(&map(vec![])));
    }
    let answer = client.infer(&with(&infer, "message_id", None)).unwrap();
    let message = payload(&answer).get("message").and_then(Value::as_text).unwrap();
    assert!(message.contains("missing `message_id`"), "{message}");
    assert_eq!(kind(&say(&mut client, "infer_two_arms")), "infer_result");

    // What cannot be read has no number that an answer could repeat.
    for (name, said) in [("objects", "holds pickled objects"), ("structure", "dtype `V`")] {
        let mut client = server.connect();
        client.send_bytes(frame(name));
        let goodbye = client.receive().unwrap_err();
        assert!(goodbye.message.contains(said) && goodbye.code == 1011, "{goodbye:?}");
    }
}

#[test]
fn a_policy_of_another_robot_is_refused() {
    let server = Running::start(Mirror(Metadata { action_dim: 7, ..two_arms() }), Options::default());
    let answer = say(&mut server.connect(), "infer_two_arms");
    let said = payload(&answer).get("message").and_then(Value::as_text).unwrap();
    let expected = "the policy's actions have 7 numbers; XPolicyLab, two arms actions (left_arm_joint_state 6, \
        left_ee_joint_state 1, right_arm_joint_state 6, right_ee_joint_state 1) have 14: it is of another robot";
    assert_eq!(said, expected);
}

#[test]
fn heartbeats_and_close_do_not_wait_for_inference() {
    const DELAY: Duration = Duration::from_millis(800);
    let server = Running::start(ZeroCost::new(two_arms()).with_delay(DELAY), Options::default());
    let mut client = server.connect();
    let start = Instant::now();
    client.send_bytes(frame("infer_two_arms"));
    for _ in 0..3 {
        assert_eq!(kind(&say(&mut client, "heartbeat")), "heartbeat_ack");
    }
    assert!(start.elapsed() < DELAY, "the heartbeats waited");
    let answer = client.receive().unwrap();
    assert_eq!((kind(&answer), steps(&answer, "actions").len()), ("infer_result", 3));
    assert!(start.elapsed() >= DELAY);

    client.send_bytes(frame("infer_two_arms"));
    let start = Instant::now();
    client.send_bytes(frame("close"));
    assert_eq!(client.receive().unwrap_err().code, 1000);
    assert!(start.elapsed() < DELAY, "the close waited");
}

#[test]
fn scalars_of_numpy_are_read() {
    let payload = message("trial_end").get("payload").unwrap().clone();
    assert_eq!(payload.get("success"), Some(&Value::Bool(true)));
    // More than the 53 bits of a float.
    assert_eq!(payload.get("steps"), Some(&Value::Int(-(1 << 60))));
}
