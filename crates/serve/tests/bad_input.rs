//! Whatever one client does, it is told what was wrong, the server lives on, and another client does not notice.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{
    Bystander, Client, Goodbye, Running, array, floats, libero, map, numbers, small, state, wait_until, with,
};
use skillweld_serve::{
    Array, Dtype, InferError, Limits, Metadata, Observation, Options, Policy, Reply, Value, ZeroCost, encode,
};
use tokio_tungstenite::tungstenite::Message;

/// Sends one request on a connection of its own and expects to be told why it is wrong.
fn refused(server: &Running, request: &Value, expected: &str) {
    told(&mut server.connect(), Message::Binary(encode(request).into()), expected);
}

fn told(client: &mut Client, message: Message, expected: &str) {
    client.socket.send(message).unwrap();
    let Goodbye { message, code } = client.receive().unwrap_err();
    assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    assert_eq!(code, 1011, "{message}");
}

#[test]
fn wrong_observations_are_named() {
    let metadata = Metadata { tasks: vec!["pick".into()], ..ZeroCost::libero().metadata() };
    let server = Running::start(ZeroCost::new(metadata), Options::default());
    let bystander = Bystander::of(&server, libero());
    let check = |key: &str, value: Option<Value>, expected: &str| {
        refused(&server, &with(&libero(), key, value), expected);
        bystander.goes_on();
    };
    for key in ["observation/image", "observation/wrist_image", "observation/state", "prompt"] {
        check(key, None, &format!("missing key `{key}`"));
    }
    // Wrong dtypes, ranks, shapes.
    let integers = array(Dtype::I32, &[2, 4, 3], vec![0; 96]);
    check("observation/image", Some(integers), "`observation/image` has to be an image of uint8 or floats");
    check(
        "observation/image",
        Some(array(Dtype::U8, &[24], vec![0; 24])),
        "an array of shape [24] and dtype |u1",
    );
    check("observation/image", Some(array(Dtype::U8, &[2, 3, 4], vec![0; 24])), "height × width × 3");
    check("observation/image", Some(array(Dtype::U8, &[0, 4, 3], vec![])), "height × width × 3");
    check("observation/image", Some("cat.png".into()), "it is text");
    check("observation/image", Some(Value::Nil), "it is nothing (None)");
    check("observation/state", Some("home".into()), "a vector of numbers; it is text");
    check("observation/state", Some(floats(&[0.0; 7])), "has 7 numbers; the policy wants 8");
    let square: Value = Array::from_f32(&[2, 4], &[0.0; 8]).unwrap().into();
    check("observation/state", Some(square), "it is an array of shape [2, 4]");
    // Numbers that are none.
    let mut values = [0.0; 8];
    values[5] = f32::NAN;
    check(
        "observation/state",
        Some(floats(&values)),
        "`observation/state` holds NaN or infinity, first at element 5",
    );
    values[5] = f32::INFINITY;
    check(
        "observation/state",
        Some(Value::List(values.map(|v| Value::Float(v.into())).to_vec())),
        "first at element 5",
    );
    let image = |value: f32| Array::from_f32(&[1, 1, 3], &[0.0, value, 1.0]).unwrap().into();
    check(
        "observation/image",
        Some(image(f32::NAN)),
        "`observation/image` holds NaN or infinity, first at element 1",
    );
    check(
        "observation/image",
        Some(image(255.0)),
        "holds 255 at element 1; floating-point images range from 0 to 1",
    );
    // Text and control keys.
    check("prompt", Some("".into()), "`prompt` is empty");
    check("prompt", Some(" \n".into()), "`prompt` is empty");
    check("prompt", Some("x".repeat(2049).into()), "`prompt` has 2049 bytes; at most 2048 are taken");
    check("prompt", Some(Value::Int(3)), "`prompt` has to be the instruction, as text; it is an integer");
    check("task", Some("fly".into()), "unknown task `fly`; this policy knows pick");
    check("task", Some(Value::Int(1)), "`task` has to be the name of a task");
    check("reset", Some("yes".into()), "`reset` has to be true or false");
    check("inference_delay", Some(Value::Int(-1)), "`inference_delay` has to be");
    check("inference_delay", Some(Value::Float(1.5)), "`inference_delay` has to be");
    check("prev_chunk_left_over", Some(floats(&[0.0; 7])), "an array of at most 8 rows × 7 numbers");
    let long: Value = Array::from_f32(&[9, 7], &[0.0; 63]).unwrap().into();
    check("prev_chunk_left_over", Some(long), "an array of at most 8 rows × 7 numbers");
    let nan: Value = Array::from_f32(&[1, 7], &[f32::NAN; 7]).unwrap().into();
    check("prev_chunk_left_over", Some(nan), "`prev_chunk_left_over` holds NaN");
    // No observation at all.
    refused(&server, &map(vec![("picture", Value::Nil)]), "no known key among [\"picture\"]");
    refused(&server, &map(vec![]), "no known key");
    refused(&server, &Value::List(vec![]), "an observation is a map, not a list of 0");
    refused(&server, &Value::Nil, "an observation is a map, not nothing");
    assert_eq!(server.metric("skillweld_errors_total{kind=\"observation\"}"), 33.0);
    bystander.end();
}

/// Counts what reaches the policy.
struct Counting(Arc<AtomicU64>);

impl Policy for Counting {
    type Session = ();

    fn metadata(&self) -> Metadata {
        ZeroCost::libero().metadata()
    }

    fn session(&self) {}

    fn infer(&self, (): &mut (), seen: Observation) -> Result<Reply, InferError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        ZeroCost::libero().infer(&mut (), seen)
    }
}

/// Small messages to send, expensive to work on: they are refused at the socket, at once, and the policy never sees them.
#[test]
fn what_would_take_long_is_refused_before_it_is_queued() {
    let ran = Arc::new(AtomicU64::new(0));
    let server = Running::start(Counting(ran.clone()), Options::default());
    let zeroes = |shape: &[usize]| array(Dtype::U8, shape, vec![0; shape.iter().product()]);
    let most = "at most 4096 a side and 8388608 in all are taken";
    for (shape, size) in [
        ([1, 2_000_000, 3], "1 × 2000000"),
        ([2_000_000, 1, 3], "2000000 × 1"),
        ([3, 1, 4097], "1 × 4097"),
        ([4097, 1, 3], "4097 × 1"),
        ([3000, 3000, 3], "3000 × 3000"),
    ] {
        let request = with(&libero(), "observation/wrist_image", Some(zeroes(&shape)));
        let start = Instant::now();
        refused(&server, &request, &format!("`observation/wrist_image` is {size} pixels; {most}"));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // Millions of numbers instead of eight are not converted to be counted.
    let state = array(Dtype::U8, &[20_000_000], vec![0; 20_000_000]);
    refused(
        &server,
        &with(&libero(), "observation/state", Some(state)),
        "has 20000000 numbers; the policy wants 8",
    );
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    // A 4K camera is none of this.
    let large = with(&libero(), "observation/image", Some(zeroes(&[2160, 3840, 3])));
    server.connect().infer(&large).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn more_images_than_a_client_has_are_asked_for_in_vain() {
    let server = Running::start(
        ZeroCost::new(Metadata { images: 3, ..ZeroCost::libero().metadata() }),
        Options::default(),
    );
    refused(&server, &libero(), "the policy wants 3 images; LIBERO observations have 2");
}

#[test]
fn malformed_and_oversized_messages_are_refused() {
    let limits = Limits { frame_bytes: 1 << 20, ..Limits::default() };
    let server = Running::start(ZeroCost::libero(), Options { limits, ..Options::default() });
    let bystander = Bystander::of(&server, libero());
    let mut cut = encode(&libero());
    cut.truncate(cut.len() / 2);
    told(&mut server.connect(), Message::Binary(cut.into()), "malformed msgpack");
    told(&mut server.connect(), Message::Binary(vec![].into()), "malformed msgpack");
    told(&mut server.connect(), Message::Binary(vec![0xc1].into()), "extension type");
    told(&mut server.connect(), Message::text("{}"), "one binary message in msgpack, not text");
    bystander.goes_on();

    // Larger than the limit, in one frame and in many.
    let mut client = server.connect();
    client.socket.send(Message::Binary(vec![0; 8 << 20].into())).unwrap();
    let Goodbye { message, code } = client.receive().unwrap_err();
    assert!(message.contains("larger than 1048576 bytes"), "{message}");
    assert_eq!(code, 1009);
    bystander.goes_on();

    let mut client = server.connect();
    let stream = client.socket.get_mut();
    // Fragments of 64 KiB, masked with zeroes: the first binary, the others continuing.
    for index in 0..20 {
        let head = [u8::from(index == 0) * 2, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        stream.write_all(&[&head[..], &[0; 1 << 16]].concat()).unwrap();
    }
    assert_eq!(client.receive().unwrap_err().code, 1009);
    assert_eq!(server.metric("skillweld_errors_total{kind=\"oversized\"}"), 2.0);
    assert_eq!(server.metric("skillweld_errors_total{kind=\"malformed\"}"), 4.0);
    bystander.end();
}

#[test]
fn whatever_breaks_the_websocket_ends_only_that_connection() {
    let server = Running::start(ZeroCost::libero(), Options::default());
    let bystander = Bystander::of(&server, libero());
    let bytes: [&[u8]; 4] = [
        &[0x82, 0x05, 1, 2, 3, 4, 5],          // not masked, as clients must
        &[0xf2, 0x80, 0, 0, 0, 0],             // reserved bits
        &[0x83, 0x80, 0, 0, 0, 0],             // a reserved opcode
        &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff], // text that is none
    ];
    for bytes in bytes {
        let mut client = server.connect();
        client.socket.get_mut().write_all(bytes).unwrap();
        client.receive().unwrap_err();
    }
    // HTTP that is none.
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/9\r\n\r\n", &[b'x'; 100_000]]
    {
        let mut stream = TcpStream::connect(server.address).unwrap();
        drop(stream.write_all(bytes));
        drop(stream.shutdown(Shutdown::Write));
    }
    bystander.end();
}

#[test]
fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let server = Running::start(ZeroCost::libero().with_delay(Duration::from_millis(30)), Options::default());
    let bystander = Bystander::of(&server, libero());
    let request = encode(&libero());
    for _ in 0..3 {
        // In the middle of a frame.
        let mut client = server.connect();
        let head = [0x82, 0x80 | 127, 0, 0, 0, 0, 0, 4, 0x98, 0, 0, 0, 0, 0];
        client.socket.get_mut().write_all(&[&head[..], &request[..1000]].concat()).unwrap();
        drop(client);
        // While its request waits or runs, with and without a close.
        let mut client = server.connect();
        client.send(&libero());
        drop(client);
        let mut client = server.connect();
        client.send(&libero());
        client.socket.close(None).unwrap();
        // In the middle of the handshake.
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nUpgr").unwrap();
    }
    wait_until("the end of the connections", || server.metric("skillweld_clients") == 1.0);
    bystander.end();
}

#[test]
fn silent_and_deaf_clients_are_dropped() {
    let options = Options {
        ping_interval: Duration::from_millis(150),
        ping_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let server = Running::start(ZeroCost::libero(), options);
    let bystander = Bystander::of(&server, libero());
    // It never reads, so that it never answers a ping: what a half-open connection looks like.
    let start = Instant::now();
    let silent = server.connect();
    wait_until("the end of the silent client", || server.metric("skillweld_timeouts_total") == 1.0);
    assert!(start.elapsed() >= Duration::from_millis(400));
    drop(silent);

    // One that answers pings stays far longer than that.
    let mut lively = server.connect();
    lively.socket.get_mut().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        drop(lively.socket.read());
    }
    lively.socket.get_mut().set_read_timeout(Some(harness::PATIENCE)).unwrap();
    lively.infer(&libero()).unwrap();
    assert!(server.events().iter().any(|event| event.contains("timed out")));
    bystander.end();
}

/// Fails as a policy can, by what the state says.
struct Faulty;

impl Policy for Faulty {
    type Session = u32;

    fn metadata(&self) -> Metadata {
        small()
    }

    fn session(&self) -> u32 {
        0
    }

    fn infer(&self, count: &mut u32, seen: Observation) -> Result<Reply, InferError> {
        *count += 1;
        let actions = |shape: &[usize], value: f32| {
            Array::from_f32(shape, &vec![value; shape.iter().product()]).unwrap()
        };
        let good = Reply { actions: actions(&[3, 2], 1.0), extra: vec![], routing: None, timing_ms: vec![] };
        match seen.state[0] as i32 {
            1 => panic!("no such luck"),
            2 => Err(InferError::Failed("out of memory".into())),
            3 => Err(InferError::Refused("the prompt has 900 tokens; at most 512 fit".into())),
            4 => Ok(Reply { actions: actions(&[3, 2], f32::NAN), ..good }),
            5 => Ok(Reply { actions: actions(&[6], 0.0), ..good }),
            6 => Ok(Reply { extra: vec![("values".into(), actions(&[2], 0.0))], ..good }),
            7 => Ok(Reply { extra: vec![("routing".into(), actions(&[3], 0.0))], ..good }),
            _ => Ok(good),
        }
    }
}

#[test]
fn a_policy_that_fails_or_panics_does_not_take_the_server_along() {
    let server = Running::start(Faulty, Options::default());
    let bystander = Bystander::of(&server, state([0.0, 0.0]));
    for (what, expected) in [
        (1.0, "inference failed: the policy panicked: no such luck"),
        (2.0, "inference failed: out of memory"),
        (3.0, "the prompt has 900 tokens"),
        (4.0, "NaN or infinity in the actions, first at element 0"),
        (5.0, "actions of shape [6]"),
        (6.0, "`values` of shape [2], whose first dimension is not the horizon 3"),
        (7.0, "the reserved name `routing`"),
    ] {
        refused(&server, &state([what, 0.0]), expected);
        bystander.goes_on();
    }
    assert_eq!(server.metric("skillweld_errors_total{kind=\"policy\"}"), 6.0);
    // In an envelope, the connection outlives the panic.
    let mut client = server.connect();
    let envelope = |value: f32| map(vec![("type", "infer".into()), ("payload", state([value, 0.0]))]);
    assert_eq!(client.infer(&envelope(1.0)).unwrap().get("ok"), Some(&false.into()));
    let answer = client.infer(&envelope(0.0)).unwrap();
    assert_eq!(numbers(answer.get("data").unwrap(), "actions").0, [3, 2]);
    bystander.end();
}
