//! A policy in this process and the same one behind a socket: the same chunks, and errors that say what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use skillweld_drive::{LocalPolicy, RemoteOptions, RemotePolicy};
use skillweld_robot::{
    ActionSpace, ChunkRequest, ChunkSource, Expectation, Frame, Observation, Prompt, Unit,
};
use skillweld_serve::{
    Array, Handle, InferError, Metadata, Options, Policy, Reason, Reply, Routing, Scores, ServeError, Server,
    Value,
};

/// Answers with what it saw: the state, the first pixel of each image, and how many chunks the episode has had.
#[derive(Default)]
struct Echo {
    seen: Arc<Mutex<Vec<skillweld_serve::Observation>>>,
    fails: Arc<AtomicUsize>,
}

impl Policy for Echo {
    type Session = f32;

    fn metadata(&self) -> Metadata {
        let entry = |key: &str, value: Value| (key.to_owned(), value);
        let units = Value::from(vec!["degrees", "degrees", "percent"]);
        let space =
            vec![entry("kind", "joint_positions".into()), entry("names", Value::Nil), entry("units", units)];
        Metadata {
            name: "echo".into(),
            images: 2,
            state_dim: Some(3),
            action_horizon: 2,
            action_dim: 3,
            tasks: vec!["pick".into(), "push".into()],
            prompt: true,
            extra: vec![entry("action_space", Value::Map(space))],
        }
    }

    fn session(&self) -> f32 {
        0.0
    }

    fn infer(&self, session: &mut f32, seen: skillweld_serve::Observation) -> Result<Reply, InferError> {
        if self.fails.load(Ordering::SeqCst) > 0 {
            self.fails.fetch_sub(1, Ordering::SeqCst);
            return Err(InferError::Refused("the prompt has too many tokens".into()));
        }
        *session += 1.0;
        let pixel = |index: usize| f32::from(seen.images[index].rgb[0]);
        let rows = [&seen.state[..], &[pixel(0), pixel(1), *session]].concat();
        let actions = Array::from_f32(&[2, 3], &rows).unwrap();
        let task = seen.task.clone().unwrap_or_else(|| "push".into());
        let scores = Some(Scores { candidates: vec![], margin: 0.25 });
        self.seen.lock().unwrap().push(seen);
        let routing = Some(Routing { task, reason: Reason::Routed, scores, asked: true });
        Ok(Reply { actions, extra: vec![], routing, timing_ms: vec![] })
    }
}

fn request() -> ChunkRequest {
    let frame = |first: u8| Frame {
        rgb: vec![first; 4 * 6 * 3].into(),
        height: 4,
        width: 6,
        captured: Instant::now(),
    };
    ChunkRequest {
        observation: Observation {
            captured: Instant::now(),
            positions: vec![1.5, -2.5, 50.0],
            frames: vec![frame(7), frame(9), frame(11)],
            problems: Vec::new(),
        },
        prompt: Prompt { instruction: Some("pick up the cube".into()), task: Some("pick".into()) },
        inference_delay: 3,
        left_over: vec![vec![0.5, 1.5, 2.5]],
    }
}

fn options(url: String) -> RemoteOptions {
    let assumed = Expectation {
        action_dim: 3,
        space: ActionSpace::Positions,
        names: None,
        units: None,
        state_dim: Some(3),
        images: 2,
        horizon: 2,
        needs_instruction: true,
    };
    RemoteOptions { url, api_key: None, keys: "plain".into(), assumed, timeout: Duration::from_secs(10) }
}

struct Serving {
    handle: Handle,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    url: String,
    seen: Arc<Mutex<Vec<skillweld_serve::Observation>>>,
    fails: Arc<AtomicUsize>,
}

impl Serving {
    fn start(port: u16, api_key: Option<&str>) -> Self {
        let echo = Echo::default();
        let (seen, fails) = (Arc::clone(&echo.seen), Arc::clone(&echo.fails));
        let options = Options {
            address: ([127, 0, 0, 1], port).into(),
            api_key: api_key.map(str::to_owned),
            ..Options::default()
        };
        let server = Server::bind(echo, options).unwrap();
        let url = format!("ws://{}", server.address());
        let handle = server.handle();
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { handle, thread, url, seen, fails }
    }

    fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn both_ways_give_the_same_chunks() {
    let server = Serving::start(0, None);
    let mut remote = RemotePolicy::connect(options(server.url.clone())).unwrap();
    let mut local = LocalPolicy::new(Echo::default()).unwrap();
    assert_eq!(remote.expects(), local.expects());
    assert_eq!(local.expects().units, Some(vec![Unit::Degrees, Unit::Degrees, Unit::Percent]));
    for (episode, chunk) in [(1, 1.0), (1, 2.0), (2, 1.0)] {
        if episode == 2 && chunk == 1.0 {
            remote.start_episode();
            local.start_episode();
        }
        for source in [&mut remote as &mut dyn ChunkSource, &mut local] {
            let found = source.infer(&request()).unwrap();
            assert_eq!(found.actions, [[1.5, -2.5, 50.0], [7.0, 9.0, chunk]]);
            let routing = found.routing.unwrap();
            assert_eq!((&*routing.task, &*routing.reason, routing.margin), ("pick", "routed", Some(0.25)));
        }
    }
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen[0].inference_delay, Some(3));
    assert_eq!(seen[0].prev_chunk_left_over.as_ref().unwrap().to_f32(), [0.5, 1.5, 2.5]);
    assert_eq!((seen[0].images[0].height, seen[0].images[0].width), (4, 6));
    assert_eq!(seen[0].prompt, "pick up the cube");
}

#[test]
fn refusals_are_passed_on_and_the_next_chunk_comes() {
    let server = Serving::start(0, None);
    let mut remote = RemotePolicy::connect(options(server.url.clone())).unwrap();
    server.fails.store(1, Ordering::SeqCst);
    let error = remote.infer(&request()).unwrap_err().to_string();
    assert!(error.contains(&server.url) && error.contains("too many tokens"), "{error}");
    assert!(remote.infer(&request()).is_ok());
}

#[test]
fn a_server_that_was_restarted_is_found_again() {
    let server = Serving::start(0, None);
    let mut remote = RemotePolicy::connect(options(server.url.clone())).unwrap();
    assert!(remote.infer(&request()).is_ok());
    let port = server.port();
    drop(server);
    let error = remote.infer(&request()).unwrap_err().to_string();
    assert!(
        error.contains("cannot be reached") && error.contains("is a policy server running there"),
        "{error}"
    );
    let _server = Serving::start(port, None);
    assert_eq!(remote.infer(&request()).unwrap().actions[1][2], 1.0);
}

/// The server that was restarted has not seen how the episode began: it must not choose another task in the middle of it.
#[test]
fn a_new_connection_goes_on_with_the_task() {
    let mut request = request();
    request.prompt.task = None;
    let server = Serving::start(0, None);
    let mut remote = RemotePolicy::connect(options(server.url.clone())).unwrap();
    remote.start_episode();
    (0..2).for_each(|_| assert_eq!(remote.infer(&request).unwrap().routing.unwrap().task, "push"));
    let asked = |server: &Serving| -> Vec<Option<String>> {
        server.seen.lock().unwrap().iter().map(|seen| seen.task.clone()).collect()
    };
    assert_eq!(asked(&server), [None, None]);
    let port = server.port();
    drop(server);
    let server = Serving::start(port, None);
    (0..2).for_each(|_| drop(remote.infer(&request).unwrap()));
    remote.start_episode();
    remote.infer(&request).unwrap();
    assert_eq!(asked(&server), [Some("push".to_owned()), Some("push".to_owned()), None]);
}

#[test]
fn what_is_no_policy_server_is_named_with_the_remedy() {
    let said = |options: RemoteOptions| RemotePolicy::connect(options).unwrap_err().to_string();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = said(options(format!("ws://{free}")));
    assert!(text.contains("cannot be reached") && text.contains("policy server"), "{text}");
    for url in ["http://localhost:8000", "localhost:8000", "", "wss://host:8000"] {
        let text = said(options(url.into()));
        assert!(text.contains("no address of a policy server"), "{url}: {text}");
    }
    let text = said(RemoteOptions { keys: "LIBRO".into(), ..options("ws://localhost:1".into()) });
    assert!(text.contains("LIBERO"), "{text}");
    // Its envelope is another.
    let text = said(RemoteOptions { keys: "StarVLA".into(), ..options("ws://localhost:1".into()) });
    assert!(text.contains("plain, LIBERO") || text.contains("LIBERO, DROID, ALOHA, plain"), "{text}");

    let locked = Serving::start(0, Some("secret"));
    let text = said(options(locked.url.clone()));
    assert!(text.contains("401") && text.contains("API key"), "{text}");
    assert!(
        RemotePolicy::connect(RemoteOptions {
            api_key: Some("secret".into()),
            ..options(locked.url.clone())
        })
        .is_ok()
    );

    // A web server.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let web = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    });
    let text = said(options(url));
    assert!(text.contains("404") && text.contains("policy server"), "{text}");
    web.join().unwrap();
}

/// A server of another make: it says nothing of its policy, and then does as it likes.
fn other_server(
    then: impl FnOnce(tungstenite::WebSocket<TcpStream>) + Send + 'static,
) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept(stream).unwrap();
        let metadata = skillweld_serve::encode(&Value::Map(vec![]));
        socket.send(tungstenite::Message::Binary(metadata.into())).unwrap();
        then(socket);
    });
    (url, server)
}

/// Reads what comes, and says nothing.
fn listen(mut socket: tungstenite::WebSocket<TcpStream>) {
    while socket.read().is_ok() {}
}

/// Is alive, and only pings.
fn ping(mut socket: tungstenite::WebSocket<TcpStream>) {
    while socket.send(tungstenite::Message::Ping(vec![].into())).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server that has gone to sleep does not hold the robot's loop for ever; nor does one whose pings are no answer.
#[test]
fn an_answer_that_does_not_come_is_given_up() {
    for then in [listen, ping] {
        let (url, server) = other_server(then);
        let options = RemoteOptions { timeout: Duration::from_millis(200), ..options(url) };
        let mut remote = RemotePolicy::connect(options).unwrap();
        let asked = Instant::now();
        let mut request = request();
        request.prompt.task = None;
        let error = remote.infer(&request).unwrap_err().to_string();
        assert!(error.contains("no answer within 0.2 s"), "{error}");
        assert!(asked.elapsed() < Duration::from_secs(5));
        drop(remote);
        server.join().unwrap();
    }
}

/// A server of another make cannot be told which expert to run: that must not pass unseen.
#[test]
fn a_task_by_name_is_for_servers_that_take_one() {
    let (url, server) = other_server(listen);
    let mut remote = RemotePolicy::connect(options(url)).unwrap();
    let error = remote.infer(&request()).unwrap_err().to_string();
    assert!(error.contains("`pick`") && error.contains("instruction"), "{error}");
    drop(remote);
    server.join().unwrap();
}
