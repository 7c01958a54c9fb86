//! What clients of openpi and StarVLA send, and what they get.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use harness::mirror::{image, mirror};
use harness::{Running, array, floats, libero, map, numbers, small, state, with};
use skillweld_serve::{Array, Dtype, Options, Value, ZeroCost};

fn number(answer: &Value, path: [&str; 2]) -> f64 {
    match answer.get(path[0]).and_then(|map| map.get(path[1])) {
        Some(Value::Float(number)) => *number,
        other => panic!("{path:?} is {other:?} in {answer:?}"),
    }
}

#[test]
fn a_libero_client_gets_metadata_and_actions() {
    let server = Running::start(ZeroCost::libero(), Options::default());
    let mut client = server.connect();
    assert_eq!(client.metadata.get("action_horizon"), Some(&Value::Int(8)));
    assert_eq!(client.metadata.get("action_dim"), Some(&Value::Int(7)));
    assert_eq!(client.metadata.get("server"), Some(&"skillweld".into()));
    for round in 0..3 {
        let answer = client.infer(&libero()).unwrap();
        let (shape, actions) = numbers(&answer, "actions");
        assert_eq!(shape, [8, 7]);
        let expected: Vec<f32> = (0..56).map(|index| (index % 7) as f32 / 8.0).collect();
        assert_eq!(actions, expected);
        assert!(number(&answer, ["policy_timing", "infer_ms"]) >= 0.0);
        assert!(number(&answer, ["server_timing", "infer_ms"]) >= 0.0);
        let timing = answer.get("server_timing").unwrap();
        assert_eq!(timing.get("prev_total_ms").is_some(), round > 0);
    }
    assert_eq!(server.metric("skillweld_requests_total{protocol=\"openpi\",kind=\"infer\"}"), 3.0);
    assert_eq!(server.metric("skillweld_inference_seconds_count"), 3.0);
    assert_eq!(server.metric("skillweld_clients"), 1.0);
}

#[test]
fn droid_and_aloha_observations_are_put_in_order() {
    let pixel = |value: u8| image(&[2, 4, 3], vec![value; 24]);
    let server = mirror(2, 8);
    let droid = map(vec![
        ("observation/wrist_image_left", pixel(2)),
        ("observation/gripper_position", Value::Float(7.0)),
        ("observation/joint_position", floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("observation/exterior_image_1_left", pixel(1)),
        ("prompt", "go".into()),
    ]);
    let answer = server.connect().infer(&droid).unwrap();
    assert_eq!(numbers(&answer, "actions").1, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(numbers(&answer, "images").1, [2.0, 4.0, 1.0, 1.0, 1.0, 2.0, 4.0, 2.0, 2.0, 2.0]);

    let server = mirror(3, 14);
    // Channels first, as ALOHA's clients send images.
    let planes = |value: u8| image(&[3, 2, 4], [[value; 8], [value + 1; 8], [value + 2; 8]].concat());
    let aloha = map(vec![
        (
            "images",
            map(vec![
                ("cam_low", planes(40)),
                ("cam_right_wrist", planes(30)),
                ("cam_high", planes(10)),
                ("cam_left_wrist", planes(20)),
            ]),
        ),
        ("state", floats(&[0.5; 14])),
        ("prompt", "go".into()),
    ]);
    let answer = server.connect().infer(&aloha).unwrap();
    let expected =
        [10.0, 20.0, 30.0].into_iter().flat_map(|value| [2.0, 4.0, value, value + 1.0, value + 2.0]);
    assert_eq!(numbers(&answer, "images").1, expected.collect::<Vec<_>>());
    // Slashes instead of maps say the same.
    let Some(Value::Map(cameras)) = aloha.get("images") else { panic!() };
    let mut flat = with(&aloha, "images", None);
    for (camera, image) in cameras {
        flat = with(&flat, &format!("images/{camera}"), Some(image.clone()));
    }
    assert_eq!(numbers(&server.connect().infer(&flat).unwrap(), "images"), numbers(&answer, "images"));
    // Nothing of it is left over as unknown.
    assert_eq!(numbers(&answer, "facts").1[4], 0.0);
}

#[test]
fn images_and_states_come_in_many_kinds() {
    let server = mirror(1, 3);
    let mut client = server.connect();
    let mut seen = |image: Value, state: Value| {
        let request =
            map(vec![("observation/image", image), ("observation/state", state), ("prompt", "go".into())]);
        let answer = client.infer(&request).unwrap();
        (numbers(&answer, "images").1, numbers(&answer, "actions").1)
    };
    // 0 … 1 becomes 0 … 255, cut off: 0.5 · 255 = 127.5.
    let float_pixels = [0.0_f32, 0.5, 1.0].repeat(8);
    let float_image: Value = Array::from_f32(&[2, 4, 3], &float_pixels).unwrap().into();
    let state: Vec<u8> = [1.0_f64, 2.0, 3.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    let (image_seen, state_seen) = seen(float_image, array(Dtype::F64, &[1, 3], state));
    assert_eq!(image_seen, [2.0, 4.0, 0.0, 127.0, 255.0]);
    assert_eq!(state_seen, [1.0, 2.0, 3.0]);

    let planes: Vec<u8> =
        [0.0_f64, 0.5, 1.0].iter().flat_map(|value| [*value; 8]).flat_map(f64::to_le_bytes).collect();
    let list = Value::List(vec![Value::Int(1), Value::Float(2.0), Value::Int(-3)]);
    let (image_seen, state_seen) = seen(array(Dtype::F64, &[1, 3, 2, 4], planes), list);
    assert_eq!(image_seen, [2.0, 4.0, 0.0, 127.0, 255.0]);
    assert_eq!(state_seen, [1.0, 2.0, -3.0]);
}

#[test]
fn requests_may_carry_more_than_an_observation() {
    let server = mirror(0, 2);
    let mut client = server.connect();
    let plain = with(&state([1.0, 2.0]), "prompt", Some("go".into()));
    let answer = client.infer(&plain).unwrap();
    // The first request, no delay, nothing left over, two letters, nothing unknown.
    assert_eq!(numbers(&answer, "facts").1, [1.0, -1.0, -1.0, 2.0, 0.0]);
    assert_eq!(answer.get("routing").unwrap().get("task"), Some(&"pick".into()));
    assert_eq!(number(answer.get("routing").unwrap(), ["scores", "push"]), 0.25);
    assert_eq!(number(&answer, ["routing", "margin"]), 0.5);
    assert_eq!(number(&answer, ["policy_timing", "vision"]), 1.5);

    let mut request = with(&plain, "task", Some("push".into()));
    request = with(&request, "inference_delay", Some(Value::Int(3)));
    let left: Value = Array::from_f32(&[3, 2], &[0.0; 6]).unwrap().into();
    request = with(&request, "prev_chunk_left_over", Some(left));
    request = with(&request, "mood", Some("fine".into()));
    let answer = client.infer(&request).unwrap();
    assert_eq!(numbers(&answer, "facts").1, [2.0, 3.0, 6.0, 2.0, 1.0]);
    assert_eq!(answer.get("routing").unwrap().get("task"), Some(&"push".into()));

    // Alone, `reset` is answered without inference; with an observation, it comes first.
    let answer = client.infer(&map(vec![("reset", true.into())])).unwrap();
    assert_eq!(answer.get("reset"), Some(&true.into()));
    assert_eq!(numbers(&client.infer(&plain).unwrap(), "facts").1[0], 1.0);
    assert_eq!(numbers(&client.infer(&plain).unwrap(), "facts").1[0], 2.0);
    let answer = client.infer(&with(&plain, "reset", Some(true.into()))).unwrap();
    assert_eq!(numbers(&answer, "facts").1[0], 1.0);
    // Another connection has its own session.
    assert_eq!(numbers(&server.connect().infer(&plain).unwrap(), "facts").1[0], 1.0);
}

/// What clients, the log and the metrics are told of tasks: every reply, every decision, abstentions too.
#[test]
fn every_decision_is_told() {
    let server = mirror(0, 2);
    let mut client = server.connect();
    let plain = with(&state([1.0, 2.0]), "prompt", Some("go".into()));
    let ask = |client: &mut harness::Client, request: &Value| client.infer(request).unwrap();
    let routing = |answer: &Value, key: &str| answer.get("routing").unwrap().get(key).unwrap().clone();
    for _ in 0..3 {
        assert_eq!(routing(&ask(&mut client, &plain), "reason"), "routed".into());
    }
    let push = with(&plain, "task", Some("push".into()));
    let answer = ask(&mut client, &push);
    assert_eq!((routing(&answer, "task"), routing(&answer, "reason")), ("push".into(), "requested".into()));
    let reset = map(vec![("reset", true.into())]);
    ask(&mut client, &reset);
    // Nothing has been asked for since: this is still the second episode.
    ask(&mut client, &with(&plain, "reset", Some(true.into())));
    let message = client.infer(&with(&plain, "prompt", Some("abstain".into()))).unwrap_err().message;
    assert_eq!(message, "not sure");

    let told: Vec<_> = server.events().into_iter().filter(|event| event.contains("chunk")).collect();
    let scores = "margin 0.500; pick 0.750 push 0.250";
    let expected = [
        format!("client 1: episode 1, chunk 1: task pick (routed; {scores})"),
        // Nothing new in the second and third.
        format!("client 1: episode 1, chunk 4: task push (requested; {scores})"),
        format!("client 1: episode 2, chunk 1: task pick (routed; {scores})"),
        format!("client 1: episode 2, chunk 2: no task (abstained; {scores})"),
    ];
    assert_eq!(told, expected);
    for (line, count) in [
        ("skillweld_answers_total{task=\"pick\",reason=\"routed\"}", 4.0),
        ("skillweld_answers_total{task=\"push\",reason=\"requested\"}", 1.0),
        ("skillweld_decisions_total{task=\"pick\",outcome=\"routed\"}", 2.0),
        ("skillweld_decisions_total{task=\"\",outcome=\"abstained\"}", 1.0),
        ("skillweld_errors_total{kind=\"abstained\"}", 1.0),
        ("skillweld_requests_total{protocol=\"openpi\",kind=\"reset\"}", 1.0),
        ("skillweld_requests_total{protocol=\"openpi\",kind=\"infer\"}", 6.0),
    ] {
        assert_eq!(server.metric(line), count, "{line}");
    }
}

/// Without scores there is no margin, but there is a task and a reason.
#[test]
fn a_fixed_task_is_told_as_well() {
    let server = Running::start(ZeroCost::new(small()), Options::default());
    let mut client = server.connect();
    for (request, task, reason) in [
        (state([0.0; 2]), "pick", "fixed"),
        (with(&state([0.0; 2]), "task", Some("push".into())), "push", "requested"),
    ] {
        let expected = map(vec![
            ("task", task.into()),
            ("reason", reason.into()),
            ("scores", map(vec![])),
            ("margin", Value::Nil),
        ]);
        assert_eq!(client.infer(&request).unwrap().get("routing"), Some(&expected));
    }
}

/// A log that fails must not stop a robot.
#[test]
fn a_log_that_panics_stops_nobody() {
    let options = Options { on_event: std::sync::Arc::new(|_| panic!("no log")), ..Options::default() };
    let address = ([127, 0, 0, 1], 0).into();
    let server =
        skillweld_serve::Server::bind(ZeroCost::new(small()), Options { address, ..options }).unwrap();
    let (address, handle) = (server.address(), server.handle());
    let running = std::thread::spawn(move || server.run());
    let mut client = harness::Client::connect(address).unwrap();
    for _ in 0..3 {
        client.infer(&state([0.0; 2])).unwrap();
    }
    handle.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let server = Running::start(ZeroCost::new(small()), Options::default());
    let mut client = server.connect();
    client.send(&state([1.0, 0.0]));
    client.send(&state([2.0, 0.0]));
    assert_eq!(numbers(&client.receive().unwrap(), "actions").1[0], 1.0);
    assert_eq!(numbers(&client.receive().unwrap(), "actions").1[0], 2.0);
}

fn envelope(kind: &str, payload: Option<Value>) -> Value {
    let request = map(vec![("type", kind.into()), ("request_id", "r-7".into())]);
    with(&request, "payload", payload)
}

#[test]
fn starvlas_envelope_is_spoken_on_the_same_port() {
    let server = mirror(2, 2);
    let mut client = server.connect();
    let mut ask = |request: &Value| client.infer(request).unwrap();

    let answer = ask(&envelope("ping", None));
    let expected = map(vec![
        ("status", "ok".into()),
        ("ok", true.into()),
        ("type", "ping".into()),
        ("request_id", "r-7".into()),
    ]);
    assert_eq!(answer, expected);
    let answer = ask(&envelope("init", Some(map(vec![]))));
    assert_eq!(answer.get("data").unwrap().get("action_dim"), Some(&Value::Int(2)));

    let pixel = |value: u8| image(&[2, 4, 3], vec![value; 24]);
    let openpi_keys = map(vec![
        ("observation/image", pixel(1)),
        ("observation/wrist_image", pixel(2)),
        ("observation/state", floats(&[1.0, 2.0])),
        ("prompt", "go".into()),
    ]);
    let answer = ask(&envelope("infer", Some(openpi_keys)));
    assert_eq!(
        (answer.get("ok"), answer.get("type")),
        (Some(&true.into()), Some(&"inference_result".into()))
    );
    assert_eq!(answer.get("request_id"), Some(&"r-7".into()));
    assert_eq!(numbers(answer.get("data").unwrap(), "actions"), (vec![1, 2], vec![1.0, 2.0]));

    // StarVLA's own clients send a batch of one and take the batch's first actions.
    let example = map(vec![
        ("image", Value::List(vec![pixel(1), pixel(2)])),
        ("lang", "go".into()),
        ("state", floats(&[3.0, 4.0])),
    ]);
    let batch =
        |examples: Vec<Value>| map(vec![("examples", Value::List(examples)), ("do_sample", false.into())]);
    let answer = ask(&batch(vec![example.clone()]));
    let data = answer.get("data").unwrap();
    assert_eq!(numbers(data, "actions"), (vec![1, 1, 2], vec![3.0, 4.0]));
    assert_eq!(numbers(data, "images").1, [2.0, 4.0, 1.0, 1.0, 1.0, 2.0, 4.0, 2.0, 2.0, 2.0]);

    // Errors are answers, and the connection stays.
    for (request, message) in [
        (batch(vec![example.clone(), example.clone()]), "a list of one observation, not 2 examples"),
        (batch(vec![Value::Nil]), "an observation is a map"),
        (batch(vec![with(&example, "lang", None)]), "missing key `lang`"),
        (envelope("infer", Some(with(&example, "image", None))), "missing key"),
        (envelope("infer", Some(with(&example, "task", Some("fly".into())))), "unknown task `fly`"),
        (envelope("dance", Some(example.clone())), "unknown type `dance`"),
    ] {
        let answer = ask(&request);
        assert_eq!((answer.get("ok"), answer.get("status")), (Some(&false.into()), Some(&"error".into())));
        let said = answer.get("error").unwrap().get("message").unwrap().as_text().unwrap();
        assert!(said.contains(message), "`{said}` does not say `{message}`");
    }

    let answer = ask(&envelope("reset", None));
    assert_eq!(answer.get("data").unwrap().get("reset"), Some(&true.into()));
    assert_eq!(numbers(ask(&batch(vec![example])).get("data").unwrap(), "facts").1[0], 1.0);
}
