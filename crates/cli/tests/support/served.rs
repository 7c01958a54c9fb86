//! A server as a process of its own, and a robot's client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use skillweld_serve::{DecodeLimits, Value, decode, encode};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    said: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// `skillweld serve POLICY` on a free port, once it is ready.
    pub(crate) fn start(policy: &Path, more: &[&str]) -> Self {
        let mut command = super::skillweld();
        command.args(["serve", "--port", "0"]).arg(policy).args(more).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = listen(child.stderr.take().unwrap(), said.clone());
        let mut server = Self { child, address: String::new(), said, listener: Some(listener) };
        server.wait_for("ready");
        let line = server.said().into_iter().find(|line| line.contains("ws://")).unwrap();
        server.address = line.split_once("ws://").unwrap().1.to_owned();
        server
    }

    /// Lines on standard error so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn wait_for(&self, words: &str) {
        let found = || self.said().iter().any(|line| line.contains(words));
        wait_until(&format!("`{words}`"), found);
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: robot\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The value of one line of `/metrics`; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        self.listener.take().unwrap().join().unwrap();
        (status, self.said())
    }
}

impl Drop for Server {
    /// Leaves no server behind when a test fails.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(error: ChildStderr, said: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        BufReader::new(error).lines().map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line));
    })
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(3));
    }
}

pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    pub(crate) metadata: Value,
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        Self::try_connect(&server.address).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_connect(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut socket, _) = client(format!("ws://{address}"), stream).map_err(|error| error.to_string())?;
        let metadata = match socket.read().unwrap() {
            Message::Binary(frame) => decode(&frame, &DecodeLimits::default()).unwrap(),
            other => panic!("{other:?} instead of metadata"),
        };
        Ok(Self { socket, metadata })
    }

    pub(crate) fn send(&mut self, request: &Value) {
        self.socket.send(Message::Binary(encode(request).into())).unwrap();
    }

    /// The next answer; or the text that came before the end, and the code of the close frame.
    pub(crate) fn receive(&mut self) -> Result<Value, (String, u16)> {
        let mut said = String::new();
        loop {
            match self.socket.read().unwrap() {
                Message::Binary(frame) => return Ok(decode(&frame, &DecodeLimits::default()).unwrap()),
                Message::Text(text) => said = text.to_string(),
                Message::Close(frame) => return Err((said, frame.map_or(1005, |frame| frame.code.into()))),
                _ => {}
            }
        }
    }

    pub(crate) fn infer(&mut self, request: &Value) -> Result<Value, (String, u16)> {
        self.send(request);
        self.receive()
    }
}
