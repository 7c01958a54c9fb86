//! A server in this process, and clients as small as they can be.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

pub mod mirror;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use skillweld_serve::{
    Array, DecodeLimits, Dtype, Event, Handle, Metadata, Options, Policy, ServeError, Server, Value, decode,
    encode,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

/// Far longer than anything here takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Running {
    pub address: SocketAddr,
    #[cfg(feature = "zmq")]
    pub zmq_address: Option<SocketAddr>,
    pub handle: Handle,
    events: Arc<Mutex<Vec<Event>>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    pub fn start(policy: impl Policy, options: Options) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let options = Options {
            address: ([127, 0, 0, 1], 0).into(),
            on_event: Arc::new(move |event| heard.lock().unwrap().push(event.clone())),
            ..options
        };
        let server = Server::bind(policy, options).unwrap();
        let (address, handle) = (server.address(), server.handle());
        #[cfg(feature = "zmq")]
        let zmq_address = server.zmq_address();
        let thread = Some(std::thread::spawn(move || server.run()));
        Self {
            address,
            #[cfg(feature = "zmq")]
            zmq_address,
            handle,
            events,
            thread,
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// `GET path`: status and body.
    pub fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of one line of `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics", "");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    pub fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    /// Stops it, and returns what `run` did.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || matches!(ended, Ok(Ok(()))), "{ended:?}");
        }
    }
}

/// How the other side ended the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The text frame before the end.
    pub message: String,
    /// Of the close frame; 1006 if there was none.
    pub code: u16,
}

pub struct Client {
    pub socket: WebSocket<TcpStream>,
    pub metadata: Value,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self, Error> {
        Self::connect_with(address, &[])
    }

    pub fn connect_with(address: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut socket = Self::handshake(address, headers)?;
        let metadata = match socket.read()? {
            Message::Binary(frame) => decode(&frame, &DecodeLimits::default()).unwrap(),
            other => panic!("{other:?} instead of metadata"),
        };
        Ok(Self { socket, metadata })
    }

    /// A connection whose metadata has not been read.
    pub fn handshake(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<WebSocket<TcpStream>, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        match client(request, stream) {
            Ok((socket, _)) => Ok(socket),
            Err(HandshakeError::Failure(error)) => Err(error),
            Err(HandshakeError::Interrupted(_)) => panic!("a blocking socket does not block"),
        }
    }

    pub fn send(&mut self, request: &Value) {
        self.send_bytes(encode(request));
    }

    pub fn send_bytes(&mut self, frame: Vec<u8>) {
        self.socket.send(Message::Binary(frame.into())).unwrap();
    }

    /// The next answer, or how the connection ended.
    pub fn receive(&mut self) -> Result<Value, Goodbye> {
        let mut message = String::new();
        loop {
            match self.socket.read() {
                Ok(Message::Binary(frame)) => return Ok(decode(&frame, &DecodeLimits::default()).unwrap()),
                Ok(Message::Text(text)) => message = text.to_string(),
                Ok(Message::Close(frame)) => {
                    let code = frame.map_or(1005, |CloseFrame { code, .. }| code.into());
                    return Err(Goodbye { message, code });
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("no answer")
                }
                Err(_) => return Err(Goodbye { message, code: 1006 }),
            }
        }
    }

    pub fn infer(&mut self, request: &Value) -> Result<Value, Goodbye> {
        self.send(request);
        self.receive()
    }
}

pub fn map(entries: Vec<(&str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// `request` with an entry replaced, added or, for `None`, removed.
pub fn with(request: &Value, key: &str, value: Option<Value>) -> Value {
    let Value::Map(entries) = request else { panic!("no map") };
    let mut entries: Vec<_> = entries.iter().filter(|(name, _)| name != key).cloned().collect();
    entries.extend(value.map(|value| (key.to_owned(), value)));
    Value::Map(entries)
}

pub fn array(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Value {
    Array::new(dtype, shape.to_vec(), bytes.into()).unwrap().into()
}

pub fn floats(values: &[f32]) -> Value {
    Array::from_f32(&[values.len()], values).unwrap().into()
}

/// A frame that a Python client has sent: see `tests/data/record.py`.
pub fn recorded(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{path}.msgpack", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What a LIBERO client sends: two images of 224², 301 KB in all, and a state of eight f64.
pub fn libero() -> Value {
    let image = |seed: u8| {
        let bytes = (0..224 * 224 * 3).map(|index| (index as u8).wrapping_mul(31) ^ seed).collect();
        array(Dtype::U8, &[224, 224, 3], bytes)
    };
    let state = (0..8).flat_map(|index| (f64::from(index) / 8.0).to_le_bytes()).collect();
    map(vec![
        ("observation/image", image(1)),
        ("observation/wrist_image", image(2)),
        ("observation/state", array(Dtype::F64, &[8], state)),
        ("prompt", "pick up the black bowl".into()),
    ])
}

/// A policy without images, for requests of a few bytes: a state of two numbers, chunks of 3 × 2.
pub fn small() -> Metadata {
    Metadata {
        name: "small".into(),
        images: 0,
        state_dim: Some(2),
        action_horizon: 3,
        action_dim: 2,
        tasks: vec!["pick".into(), "push".into()],
        prompt: false,
        extra: Vec::new(),
    }
}

/// A request for [`small`].
pub fn state(values: [f32; 2]) -> Value {
    map(vec![("state", floats(&values))])
}

/// The numbers of an array in an answer.
pub fn numbers(answer: &Value, key: &str) -> (Vec<usize>, Vec<f32>) {
    match answer.get(key) {
        Some(Value::Array(array)) => (array.shape().to_vec(), array.to_f32()),
        other => panic!("`{key}` is {other:?} in {answer:?}"),
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client that infers without pause and must not notice anything.
pub struct Bystander {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bystander {
    pub fn of(server: &Running, request: Value) -> Self {
        let mut client = server.connect();
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (answers, stop) = (answers.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    client.infer(&request).unwrap();
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { answers, stop, thread }
    }

    /// Two more answers come: at least one of them was asked for after this call.
    pub fn goes_on(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_until("another answer to the bystander", || self.answers.load(Ordering::Relaxed) > before + 1);
    }

    pub fn end(self) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
