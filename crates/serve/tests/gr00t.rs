//! What GR00T's clients send over ZeroMQ, packed as their Python packs it, and what they get.
#![cfg(feature = "zmq")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{PATIENCE, Running, floats, map, numbers, recorded, small, wait_until};
use skillweld_serve::{DecodeLimits, Limits, Metadata, Options, Policy, Value, ZeroCost, decode, encode};

/// A REQ socket as small as it can be.
struct Req(TcpStream);

impl Req {
    fn connect(server: &Running) -> Self {
        let mut stream = TcpStream::connect(server.zmq_address.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = [0; 64];
        (greeting[0], greeting[9], greeting[10], greeting[11]) = (0xff, 0x7f, 3, 1);
        greeting[12..16].copy_from_slice(b"NULL");
        stream.write_all(&greeting).unwrap();
        let mut theirs = [0; 64];
        stream.read_exact(&mut theirs).unwrap();
        assert_eq!(theirs, greeting);
        let mut req = Self(stream);
        req.frame(4, b"\x05READY\x0bSocket-Type\0\0\0\x03REQ\x08Identity\0\0\0\0");
        assert_eq!(
            req.read_frame(),
            (4, b"\x05READY\x0bSocket-Type\0\0\0\x03REP\x08Identity\0\0\0\0".to_vec())
        );
        req
    }

    fn frame(&mut self, flags: u8, data: &[u8]) {
        let head = [&[flags | 2][..], &(data.len() as u64).to_be_bytes()].concat();
        self.0.write_all(&[&head, data].concat()).unwrap();
    }

    fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let mut flags = [0];
        self.0.read_exact(&mut flags).unwrap();
        let mut length = [0; 8];
        let from = if flags[0] & 2 == 0 { 7 } else { 0 };
        self.0.read_exact(&mut length[from..]).unwrap();
        let mut data = vec![0; usize::try_from(u64::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut data).unwrap();
        (flags[0] & !2, data)
    }

    fn send(&mut self, request: &[u8]) {
        self.frame(1, b"");
        self.frame(0, request);
    }

    fn receive_bytes(&mut self) -> Vec<u8> {
        assert_eq!(self.read_frame(), (1, Vec::new()));
        let (flags, body) = self.read_frame();
        assert_eq!(flags, 0);
        body
    }

    fn receive(&mut self) -> Value {
        decode(&self.receive_bytes().into(), &DecodeLimits::default()).unwrap()
    }

    fn ask(&mut self, request: &[u8]) -> Value {
        self.send(request);
        self.receive()
    }

    fn error(&mut self, request: &[u8]) -> String {
        self.ask(request).get("error").and_then(Value::as_text).unwrap().to_owned()
    }

    /// Whether the server has ended the connection.
    fn ended(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn start(policy: impl Policy, options: Options) -> Running {
    Running::start(policy, Options { zmq_address: Some(([127, 0, 0, 1], 0).into()), ..options })
}

fn frame(name: &str) -> Vec<u8> {
    recorded(&format!("gr00t/{name}"))
}

/// The demonstration policy of DROID: seven joints and a gripper.
fn droid() -> ZeroCost {
    ZeroCost::new(Metadata { action_dim: 8, ..ZeroCost::libero().metadata() })
}

#[test]
fn flat_observations_are_answered_with_a_map() {
    let server = start(ZeroCost::libero(), Options::default());
    let mut client = Req::connect(&server);
    let pong = map(vec![("status", "ok".into()), ("message", "Server is running".into())]);
    assert_eq!(client.ask(&frame("ping")), pong);
    for _ in 0..2 {
        let answer = client.ask(&frame("get_action_flat"));
        let Value::Map(entries) = &answer else { panic!("{answer:?}") };
        assert_eq!(entries.len(), 7);
        for (index, name) in ["x", "y", "z", "roll", "pitch", "yaw", "gripper"].into_iter().enumerate() {
            // The policy's action is the beginning of the state.
            let expected = (vec![8, 1], vec![index as f32; 8]);
            assert_eq!(numbers(&answer, &format!("action.{name}")), expected, "{name}");
        }
    }
    let reset = client.ask(&frame("reset"));
    assert_eq!(reset.get("reset"), Some(&true.into()));
    assert_eq!(server.metric("skillweld_requests_total{protocol=\"gr00t\",kind=\"infer\"}"), 2.0);
    assert_eq!(server.metric("skillweld_requests_total{protocol=\"gr00t\",kind=\"reset\"}"), 1.0);
    assert_eq!(server.metric("skillweld_clients"), 1.0);
    drop(client);
    wait_until("the end", || server.events().iter().any(|event| event.contains("gone after 2 answers")));
}

#[test]
fn nested_observations_are_answered_with_a_list_in_the_clients_form() {
    let server = start(droid(), Options::default());
    let mut client = Req::connect(&server);
    for (name, mark, other) in [
        ("get_action_nested", &b"__ndarray_class__"[..], &b"\xc4\x02nd"[..]),
        ("get_action_msgpack_numpy", b"\xc4\x02nd", b"__ndarray_class__"),
    ] {
        client.send(&frame(name));
        let bytes = client.receive_bytes();
        let holds = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
        assert!(holds(mark) && !holds(other), "{name}");
        let answer = decode(&bytes.clone().into(), &DecodeLimits::default()).unwrap();
        let Value::List(answer) = answer else { panic!("{answer:?}") };
        let [actions, info] = &*answer else { panic!("{answer:?}") };
        let joints: Vec<f32> = (0..8 * 7).map(|index| (index % 7) as f32).collect();
        assert_eq!(numbers(actions, "joint_position"), (vec![1, 8, 7], joints));
        assert_eq!(numbers(actions, "gripper_position"), (vec![1, 8, 1], vec![7.0; 8]));
        assert!(info.get("server_timing").is_some());
    }
}

#[test]
fn the_modality_config_is_that_of_the_policys_robot() {
    let told =
        |policy: ZeroCost| Req::connect(&start(policy, Options::default())).ask(&frame("modality_config"));
    let config = told(ZeroCost::libero());
    let keys = |modality: &str| config.get(modality).unwrap().get("modality_keys").unwrap().clone();
    assert_eq!(keys("video"), vec!["image", "wrist_image"].into());
    assert_eq!(keys("state"), vec!["x", "y", "z", "roll", "pitch", "yaw", "gripper"].into());
    assert_eq!(keys("language"), vec!["annotation.human.task_description"].into());
    let action = config.get("action").unwrap();
    assert_eq!(action.get("delta_indices"), Some(&(0..8_usize).collect::<Vec<_>>().into()));
    let video = config.get("video").unwrap();
    let json = video.get("as_json").and_then(Value::as_text).unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let expected =
        serde_json::json!({"delta_indices": [0], "modality_keys": ["video.image", "video.wrist_image"]});
    assert_eq!(json, expected);
    let dict = vec![("delta_indices", vec![0_usize].into()), ("modality_keys", keys("video"))];
    assert_eq!(video.get("as_dict"), Some(&map(dict)));

    let config = told(droid());
    let state = config.get("state").unwrap().get("modality_keys");
    assert_eq!(state, Some(&vec!["joint_position", "gripper_position"].into()));
    let unknown = told(ZeroCost::new(small()));
    let said = unknown.get("error").and_then(Value::as_text).unwrap();
    assert!(said.contains("actions of 2 numbers"), "{said}");
}

#[test]
fn errors_are_answers_and_the_connection_stays() {
    let server = start(ZeroCost::libero(), Options::default());
    let mut client = Req::connect(&server);
    let request =
        |endpoint: &str, data: Value| encode(&map(vec![("endpoint", endpoint.into()), ("data", data)]));
    let state = |numbers: &[f32]| map(vec![("state.x", floats(numbers))]);
    for (request, said) in [
        (frame("kill"), "`kill` is refused"),
        (frame("objects"), "holds pickled objects"),
        (request("dance", Value::Nil), "unknown endpoint `dance`"),
        (request("get_action", Value::Nil), "an observation is a map"),
        (request("get_action", state(&[1.0])), "missing key `video/image`"),
        (encode(&map(vec![("endpoint", Value::Int(1))])), "`endpoint` has to be text"),
        (encode(&Value::List(vec![])), "a request is a map"),
        (vec![0xc1], "extension"),
        (Vec::new(), "1 bytes are announced"),
    ] {
        let error = client.error(&request);
        assert!(error.contains(said), "`{error}` does not say `{said}`");
    }
    // The policy's actions of seven numbers are not DROID's.
    let error = client.error(&frame("get_action_nested"));
    assert!(error.contains("GR00T, DROID actions (joint_position 7, gripper_position 1) have 8"), "{error}");
    assert!(client.ask(&frame("get_action_flat")).get("action.x").is_some());
}

#[test]
fn the_token_is_the_servers_key() {
    let options = Options { api_key: Some("open-sesame".into()), ..Options::default() };
    let server = start(ZeroCost::libero(), options);
    let mut client = Req::connect(&server);
    assert_eq!(client.error(&frame("ping")), "Unauthorized: Invalid API token");
    assert!(client.error(&frame("kill")).contains("refused"));
}

#[test]
fn what_is_too_large_is_answered_before_the_end() {
    let limits = Limits { frame_bytes: 1000, ..Limits::default() };
    let server = start(ZeroCost::libero(), Options { limits, ..Options::default() });
    let mut client = Req::connect(&server);
    let error = client.error(&vec![0; 5000]);
    assert!(error.contains("larger than 1000 bytes"), "{error}");
    assert!(client.ended());
    assert_eq!(server.metric("skillweld_errors_total{kind=\"oversized\"}"), 1.0);
    // Nine bytes that announce 16 EiB hold nothing.
    let mut client = Req::connect(&server);
    client.0.write_all(&[2, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap();
    assert!(client.receive().get("error").is_some() && client.ended());
}

#[test]
fn strangers_are_sent_away_and_pings_answered() {
    let server = start(ZeroCost::libero(), Options::default());
    let mut web = TcpStream::connect(server.zmq_address.unwrap()).unwrap();
    web.set_read_timeout(Some(PATIENCE)).unwrap();
    web.write_all(&[b"GET / HTTP/1.1\r\n".repeat(8).as_slice(), b"\r\n"].concat()).unwrap();
    let mut answer = Vec::new();
    // The greeting, and nothing else; the end may come as a reset, because not all was read.
    drop(web.read_to_end(&mut answer));
    assert_eq!(answer.len(), 64);
    wait_until("the end", || server.events().iter().any(|event| event.contains("does not speak ZeroMQ")));

    let mut client = Req::connect(&server);
    client.frame(4, b"\x04PING\0\0context");
    assert_eq!(client.read_frame(), (4, b"\x04PONGcontext".to_vec()));
    assert!(client.ask(&frame("ping")).get("status").is_some());
}

#[test]
fn silent_clients_are_pinged_and_given_up() {
    let short = Duration::from_millis(100);
    let options = Options { ping_interval: short, ping_timeout: short, ..Options::default() };
    let server = start(ZeroCost::libero(), options);
    let mut client = Req::connect(&server);
    assert_eq!(client.read_frame(), (4, b"\x04PING\0\0".to_vec()));
    client.frame(4, b"\x04PONG");
    assert_eq!(client.read_frame(), (4, b"\x04PING\0\0".to_vec()));
    assert!(client.ended());
    assert_eq!(server.metric("skillweld_timeouts_total"), 1.0);
}

#[test]
fn clients_share_the_policy_and_a_stop_ends_what_runs_first() {
    let server = start(ZeroCost::libero().with_delay(Duration::from_millis(300)), Options::default());
    let (mut one, mut other) = (Req::connect(&server), Req::connect(&server));
    one.send(&frame("get_action_flat"));
    other.send(&frame("get_action_flat"));
    assert!(one.receive().get("action.x").is_some());
    assert!(other.receive().get("action.x").is_some());
    one.send(&frame("get_action_flat"));
    wait_until("the request", || {
        server.metric("skillweld_requests_total{protocol=\"gr00t\",kind=\"infer\"}") == 3.0
    });
    // It is counted a moment before it runs.
    std::thread::sleep(Duration::from_millis(100));
    server.handle.stop();
    assert!(one.receive().get("action.x").is_some());
    assert!(one.ended() && other.ended());
    server.stop().unwrap();
}
