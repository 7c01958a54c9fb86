//! Warm-up, long inference, queueing, shutdown, keys.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use std::io::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Client, Goodbye, PATIENCE, Running, map, numbers, small, state, wait_until};
use skillweld_serve::{
    Array, InferError, Limits, Metadata, Observation, Options, Policy, Reply, ServeError, Server, ZeroCost,
    encode,
};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Infers only when told to, and tells what it begins with.
struct Gated {
    begun: Mutex<Sender<f32>>,
    go: Mutex<Receiver<()>>,
}

/// The other ends.
struct Gate {
    begun: Receiver<f32>,
    go: Sender<()>,
}

fn gated() -> (Gated, Gate) {
    let (begun, begun_here) = channel();
    let (go, go_there) = channel();
    (Gated { begun: begun.into(), go: go_there.into() }, Gate { begun: begun_here, go })
}

impl Policy for Gated {
    type Session = ();

    fn metadata(&self) -> Metadata {
        small()
    }

    fn session(&self) {}

    fn infer(&self, (): &mut (), seen: Observation) -> Result<Reply, InferError> {
        self.begun.lock().unwrap().send(seen.state[0]).unwrap();
        self.go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        let actions = Array::from_f32(&[3, 2], &[seen.state[0]; 6]).unwrap();
        Ok(Reply { actions, extra: vec![], routing: None, timing_ms: vec![] })
    }
}

impl Gate {
    /// Waits for the next inference to begin; returns what it is for.
    fn next(&self) -> f32 {
        self.begun.recv_timeout(PATIENCE).unwrap()
    }

    fn open(&self) {
        self.go.send(()).unwrap();
    }
}

fn first_action(answer: Result<skillweld_serve::Value, Goodbye>) -> f32 {
    numbers(&answer.unwrap(), "actions").1[0]
}

#[test]
fn pings_are_answered_and_nobody_is_dropped_while_inference_runs() {
    // The inference takes many times what a silent client is given.
    let options = Options {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    let (policy, gate) = gated();
    let server = Running::start(policy, options);
    let mut client = server.connect();
    client.send(&state([1.0, 0.0]));
    assert_eq!(gate.next(), 1.0);
    let start = Instant::now();
    let mut answered = 0;
    while start.elapsed() < Duration::from_secs(1) {
        let payload = format!("{answered}");
        client.socket.send(Message::Ping(payload.clone().into())).unwrap();
        loop {
            match client.socket.read().unwrap() {
                Message::Pong(pong) => break assert_eq!(pong, payload.as_bytes()),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
        answered += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(answered > 10);
    assert_eq!(server.get("/healthz", ""), (200, "OK\n".into()));
    gate.open();
    assert_eq!(first_action(client.receive()), 1.0);
}

/// A client that only waits is not dropped either, however many times longer than its timeout the inference takes.
fn an_inference_is_answered(inference: Duration, options: Options) {
    let server = Running::start(ZeroCost::new(small()).with_delay(inference), options);
    let mut client = server.connect();
    client.socket.get_mut().set_read_timeout(Some(inference + PATIENCE)).unwrap();
    assert_eq!(first_action(client.infer(&state([1.0, 0.0]))), 1.0);
    assert_eq!(server.metric("skillweld_timeouts_total"), 0.0);
}

#[test]
fn an_inference_of_many_timeouts_is_answered() {
    let options = Options {
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    an_inference_is_answered(Duration::from_millis(1500), options);
}

/// As above with the default intervals: what openpi's own server drops clients for.
#[test]
#[ignore = "takes a minute"]
fn an_inference_of_a_minute_is_answered() {
    an_inference_is_answered(Duration::from_secs(60), Options::default());
}

/// Bytes of one message trickle in for many times what a silent client is given; when they stop, it is dropped.
#[test]
fn a_slow_upload_is_not_silence() {
    let options = Options {
        ping_interval: Duration::from_millis(150),
        ping_timeout: Duration::from_millis(150),
        ..Options::default()
    };
    let server = Running::start(ZeroCost::new(small()), options);
    // One masked frame, the mask zeroes.
    let body = encode(&state([1.0, 0.0]));
    let frame = [&[0x82, 0x80 | u8::try_from(body.len()).unwrap(), 0, 0, 0, 0], &body[..]].concat();
    let mut client = server.connect();
    let start = Instant::now();
    for byte in frame.chunks(1) {
        client.socket.get_mut().write_all(byte).unwrap();
        std::thread::sleep(Duration::from_millis(15));
    }
    assert!(start.elapsed() > Duration::from_millis(900), "three times an interval and a timeout");
    assert_eq!(first_action(client.receive()), 1.0);
    assert_eq!(server.metric("skillweld_timeouts_total"), 0.0);
    drop(client);

    let start = Instant::now();
    let mut stuck = server.connect();
    stuck.socket.get_mut().write_all(&frame[..10]).unwrap();
    wait_until("the end of the one that got stuck", || server.metric("skillweld_timeouts_total") == 1.0);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn clients_take_turns() {
    let (policy, gate) = gated();
    let server = Running::start(policy, Options::default());
    // One sends ahead as fast as it is let, two others send one request after another.
    let mut greedy = server.connect();
    greedy.send(&state([1.0, 0.0]));
    assert_eq!(gate.next(), 1.0);
    greedy.send(&state([1.5, 0.0]));
    let mut second = server.connect();
    let mut third = server.connect();
    second.send(&state([2.0, 0.0]));
    wait_until("the second client's request", || server.metric("skillweld_queue_length") == 1.0);
    third.send(&state([3.0, 0.0]));
    wait_until("the third client's request", || server.metric("skillweld_queue_length") == 2.0);
    gate.open();
    assert_eq!(first_action(greedy.receive()), 1.0);
    let mut order = vec![gate.next()];
    for _ in 0..2 {
        gate.open();
        order.push(gate.next());
    }
    assert_eq!(order, [2.0, 3.0, 1.5]);
    gate.open();
    assert_eq!(first_action(second.receive()), 2.0);
    assert_eq!(first_action(third.receive()), 3.0);
    assert_eq!(first_action(greedy.receive()), 1.5);
}

#[test]
fn a_full_queue_is_busy_and_a_client_that_left_makes_room() {
    let (policy, gate) = gated();
    let limits = Limits { queue: 1, ..Limits::default() };
    let server = Running::start(policy, Options { limits, ..Options::default() });
    let mut running = server.connect();
    running.send(&state([1.0, 0.0]));
    gate.next();
    let mut waiting = server.connect();
    waiting.send(&state([2.0, 0.0]));
    wait_until("a full queue", || server.metric("skillweld_queue_length") == 1.0);
    let mut late = server.connect();
    let Goodbye { message, code } = late.infer(&state([3.0, 0.0])).unwrap_err();
    assert_eq!((&*message, code), ("busy: 1 requests wait for the policy; try again later", 1011));
    // In StarVLA's envelope the client may try again on the same connection.
    let mut envelope = server.connect();
    let request = map(vec![("type", "infer".into()), ("payload", state([4.0, 0.0]))]);
    let answer = envelope.infer(&request).unwrap();
    let said = answer.get("error").unwrap().get("message").unwrap().as_text().unwrap();
    assert!(said.starts_with("busy"), "{said}");

    drop(waiting);
    wait_until("the end of the one that left", || server.metric("skillweld_clients") == 2.0);
    envelope.send(&request);
    wait_until("the next in the queue", || {
        server.metric("skillweld_requests_total{protocol=\"starvla\",kind=\"infer\"}") == 2.0
    });
    gate.open();
    assert_eq!(first_action(running.receive()), 1.0);
    assert_eq!(gate.next(), 4.0, "the request of the client that left is not run");
    gate.open();
    assert_eq!(envelope.receive().unwrap().get("ok"), Some(&true.into()));
}

#[test]
fn a_client_that_sends_more_and_more_ahead_is_stopped() {
    let (policy, gate) = gated();
    let server = Running::start(policy, Options::default());
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(&state([1.0, 0.0]));
    }
    let Goodbye { message, code } = client.receive().unwrap_err();
    assert!(message.starts_with("busy: the last two requests"), "{message}");
    assert_eq!(code, 1011);
    gate.next();
    gate.open();
}

#[test]
fn no_more_clients_than_the_limit() {
    let limits = Limits { clients: 2, ..Limits::default() };
    let server = Running::start(ZeroCost::new(small()), Options { limits, ..Options::default() });
    let first = server.connect();
    let mut second = server.connect();
    match Client::connect(server.address) {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 503),
        other => panic!("{:?}", other.err()),
    }
    drop(first);
    wait_until("a free place", || server.metric("skillweld_clients") == 1.0);
    server.connect().infer(&state([0.0, 0.0])).unwrap();
    second.infer(&state([0.0, 0.0])).unwrap();
}

/// Warms up when told to.
struct Warming(Mutex<Receiver<Result<(), InferError>>>);

impl Policy for Warming {
    type Session = ();

    fn metadata(&self) -> Metadata {
        small()
    }

    fn session(&self) {}

    fn warm_up(&self) -> Result<(), InferError> {
        self.0.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    }

    fn infer(&self, (): &mut (), seen: Observation) -> Result<Reply, InferError> {
        ZeroCost::new(small()).infer(&mut (), seen)
    }
}

#[test]
fn it_is_ready_after_warm_up_and_early_clients_wait() {
    let (warm, warming) = channel();
    let server = Running::start(Warming(warming.into()), Options::default());
    assert_eq!(server.get("/healthz", ""), (503, "warming up\n".into()));
    let mut socket = Client::handshake(server.address, &[]).unwrap();
    socket.get_mut().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(socket.read().is_err(), "metadata before the policy is warm");
    warm.send(Ok(())).unwrap();
    socket.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Binary(_)));
    assert_eq!(server.get("/healthz", ""), (200, "OK\n".into()));
    assert!(server.events().iter().any(|event| event.starts_with("ready")));
}

#[test]
fn a_failed_warm_up_ends_the_server() {
    let (warm, warming) = channel();
    let server = Server::bind(
        Warming(warming.into()),
        Options { address: ([127, 0, 0, 1], 0).into(), ..Options::default() },
    );
    warm.send(Err(InferError::Failed("no memory".into()))).unwrap();
    let error = server.unwrap().run().unwrap_err();
    assert_eq!(error.to_string(), "the policy's warm-up failed: inference failed: no memory");
}

#[test]
fn stopping_finishes_what_runs_and_says_goodbye() {
    let (policy, gate) = gated();
    let server = Running::start(policy, Options::default());
    let (mut running, mut waiting, mut idle) = (server.connect(), server.connect(), server.connect());
    running.send(&state([1.0, 0.0]));
    gate.next();
    waiting.send(&state([2.0, 0.0]));
    wait_until("the second request", || server.metric("skillweld_queue_length") == 1.0);
    let address = server.address;
    let stopped = std::thread::spawn(move || server.stop());
    let goodbye = Goodbye { message: String::new(), code: 1001 };
    assert_eq!(idle.receive().unwrap_err(), goodbye);
    assert_eq!(waiting.receive().unwrap_err(), goodbye);
    assert!(Client::connect(address).is_err(), "nobody is let in any more");
    gate.open();
    assert_eq!(first_action(running.receive()), 1.0);
    assert_eq!(running.receive().unwrap_err(), goodbye);
    stopped.join().unwrap().unwrap();
}

#[test]
fn stopping_does_not_wait_longer_than_asked() {
    let (policy, gate) = gated();
    let options = Options { shutdown_grace: Duration::from_millis(100), ..Options::default() };
    let server = Running::start(policy, options);
    let mut client = server.connect();
    client.send(&state([1.0, 0.0]));
    gate.next();
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    gate.open();
}

#[test]
fn only_who_knows_the_key_is_let_in() {
    let options = Options { api_key: Some("s3cret".into()), ..Options::default() };
    let server = Running::start(ZeroCost::new(small()), options);
    assert_eq!(server.get("/healthz", "").0, 200);
    assert_eq!(server.get("/metrics", "").0, 401);
    assert_eq!(server.get("/metrics", "Authorization: Api-Key s3cret\r\n").0, 200);
    for wrong in ["Api-Key s3cre", "Api-Key s3cret1", "Api-Key", "Basic s3cret", "s3cret", ""] {
        match Client::connect_with(server.address, &[("Authorization", wrong)]) {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 401, "{wrong}"),
            other => panic!("{wrong}: {:?}", other.err()),
        }
    }
    for right in ["Api-Key s3cret", "api-key s3cret", "Bearer s3cret"] {
        let mut client = Client::connect_with(server.address, &[("Authorization", right)]).unwrap();
        client.infer(&state([0.0, 0.0])).unwrap();
    }
    for key in ["", "two words", "schlüssel"] {
        let options = Options { api_key: Some(key.into()), ..Options::default() };
        assert!(matches!(Server::bind(ZeroCost::new(small()), options), Err(ServeError::ApiKey)));
    }
}

#[test]
fn http_is_answered_and_web_pages_are_not() {
    let server = Running::start(ZeroCost::new(small()), Options::default());
    assert_eq!(server.get("/", "").0, 426);
    assert_eq!(server.get("/metrics", "").0, 200);
    match Client::connect_with(server.address, &[("Origin", "https://example.org")]) {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{:?}", other.err()),
    }
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    assert_eq!(server.get("/", &format!("{upgrade}Sec-WebSocket-Version: 12\r\n")).0, 426);
    assert_eq!(server.get("/", &format!("{upgrade}Sec-WebSocket-Version: 13\r\n")).0, 400);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Running::start(ZeroCost::new(small()), Options::default());
    let options = Options { address: server.address, ..Options::default() };
    let error = Server::bind(ZeroCost::new(small()), options).err().unwrap().to_string();
    assert!(error.contains(&server.address.to_string()) && error.contains("another port"), "{error}");
    assert!(Options::default().address.ip().is_loopback());
    // Shared, so that a log can be kept elsewhere.
    let _: Arc<dyn Fn(&skillweld_serve::Event) + Send + Sync> = Options::default().on_event;
}
