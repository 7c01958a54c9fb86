//! A policy behind openpi's websocket protocol.

mod connection;
mod request;

use std::time::Duration;

use bytes::Bytes;
use skillweld_robot::{Chunk, ChunkError, ChunkRequest, ChunkSource, Expectation};
use skillweld_serve::{DecodeLimits, KEY_SETS, KeySet, Value, decode, encode};

use crate::{expectation, reply};
use connection::{Broken, Connection};

/// Where a policy is served, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// `ws://HOST:PORT`.
    pub url: String,
    /// What the server asks for, if it does.
    pub api_key: Option<String>,
    /// The keys that it expects, by the name of a [`KEY_SETS`] entry that speaks this protocol: `plain`, `LIBERO`, `DROID`, `ALOHA`.
    pub keys: String,
    /// What counts where the server does not say it: openpi's own says nothing of its actions.
    pub assumed: Expectation,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// A connection to a policy server, opened again when it is lost.
#[derive(Debug)]
pub struct RemotePolicy {
    options: RemoteOptions,
    keys: &'static KeySet,
    expectation: Expectation,
    /// Whether it is a server of Skillweld, which takes more keys than an observation's.
    takes_control: bool,
    connection: Option<Connection>,
    /// A new episode begins with the next observation.
    begins: bool,
    /// The task that the last answer of this episode was of.
    task: Option<String>,
    /// Whether this connection is not the one that the episode began on: the server knows nothing of it.
    resumed: bool,
}

/// Why a policy server cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address of a server.
    #[error("`{url}` is no address of a policy server, such as ws://192.168.1.20:8000{hint}")]
    Url {
        /// As given.
        url: String,
        /// What else to do.
        hint: &'static str,
    },
    /// No set of keys.
    #[error("no set of observation keys is called `{name}`; there are {}", key_sets())]
    Keys {
        /// As given.
        name: String,
    },
    /// Nobody answers there.
    #[error("{url}: cannot be reached ({reason}); is a policy server running there, and its port open?")]
    Unreachable {
        /// Its address.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// It refuses, or is none.
    #[error("{url}: {problem}")]
    Server {
        /// Its address.
        url: String,
        /// What went wrong, and what to do.
        problem: String,
    },
}

/// The families that speak openpi's protocol; the others of [`KEY_SETS`] have envelopes of their own.
const SPOKEN: [&str; 4] = ["plain", "LIBERO", "DROID", "ALOHA"];

fn spoken() -> impl Iterator<Item = &'static KeySet> {
    KEY_SETS.iter().filter(|set| SPOKEN.contains(&set.name))
}

fn key_sets() -> String {
    spoken().map(|set| set.name).collect::<Vec<_>>().join(", ")
}

impl RemotePolicy {
    /// Connects, and takes what the server says of its policy.
    ///
    /// # Errors
    /// [`ConnectError`] that names the address and the remedy.
    pub fn connect(options: RemoteOptions) -> Result<Self, ConnectError> {
        let keys = spoken().find(|set| set.name.eq_ignore_ascii_case(&options.keys));
        let keys = keys.ok_or_else(|| ConnectError::Keys { name: options.keys.clone() })?;
        let (connection, metadata) = Connection::open(&options)?;
        let server = |problem: String| ConnectError::Server { url: options.url.clone(), problem };
        let metadata = decode(&metadata, &DecodeLimits::default()).map_err(|error| {
            server(format!("is no policy server: its first message is no msgpack ({error})"))
        })?;
        let expectation = expectation::of_server(&metadata, &options.assumed)
            .map_err(|problem| server(format!("says of its policy that {problem}")))?;
        if expectation.images > keys.images.len() {
            let (wanted, offered) = (expectation.images, keys.images.len());
            return Err(server(format!(
                "{wanted} images are to be sent, the keys of {} have {offered}: choose other keys, or give fewer cameras",
                keys.name
            )));
        }
        let takes_control = metadata.get("server").and_then(Value::as_text) == Some("skillweld");
        Ok(Self {
            options,
            keys,
            expectation,
            takes_control,
            connection: Some(connection),
            begins: true,
            task: None,
            resumed: false,
        })
    }

    /// A request as the server takes it. In an episode that it does not know the beginning of it is told the task that ran, every
    /// time, for it would choose anew as soon as it is not.
    fn message(&self, request: &ChunkRequest) -> Result<Bytes, ChunkError> {
        let mut message = request::observation(request, self.keys, &self.expectation)?;
        if self.takes_control {
            let running = self.task.as_ref().filter(|_| self.resumed);
            message.extend(request::control(request, self.begins, running)?);
        } else if let Some(task) = &request.prompt.task {
            let url = &self.options.url;
            let problem = format!("{url} takes no task by its name `{task}`: leave that to the instruction");
            return Err(ChunkError::Failed(problem));
        }
        Ok(encode(&Value::Map(message)).into())
    }

    /// Sends a message and waits for the answer. A connection that the server has closed is opened again, once.
    fn ask(&mut self, request: &ChunkRequest) -> Result<Bytes, ChunkError> {
        let message = self.message(request)?;
        let failed = |url: &str, broken: Broken| ChunkError::Failed(format!("{url}: {broken}"));
        if let Some(mut connection) = self.connection.take() {
            // Mostly it had been closed before: a message into a closed connection is noticed only when reading.
            let sent = connection.send(message).map_err(|_| Broken::Closed);
            match sent.and_then(|()| connection.receive()) {
                Ok(answer) => {
                    self.connection = Some(connection);
                    return Ok(answer);
                }
                Err(Broken::Closed) => {}
                Err(broken) => return Err(failed(&self.options.url, broken)),
            }
        }
        let mut connection = self.reconnect()?;
        self.resumed = !self.begins;
        let message = self.message(request)?;
        let answer = connection.send(message).and_then(|()| connection.receive());
        let answer = answer.map_err(|broken| failed(&self.options.url, broken))?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// A new connection; to the server it is a new episode.
    fn reconnect(&mut self) -> Result<Connection, ChunkError> {
        let opened = Connection::open(&self.options);
        let (connection, metadata) = opened.map_err(|error| ChunkError::Failed(error.to_string()))?;
        let says = decode(&metadata, &DecodeLimits::default()).ok();
        let says = says.and_then(|metadata| expectation::of_server(&metadata, &self.options.assumed).ok());
        if says.as_ref() != Some(&self.expectation) {
            let problem = "serves another policy than before: look what it does, and start again";
            return Err(ChunkError::Failed(format!("{} {problem}", self.options.url)));
        }
        Ok(connection)
    }
}

impl ChunkSource for RemotePolicy {
    fn expects(&self) -> Expectation {
        self.expectation.clone()
    }

    fn start_episode(&mut self) {
        self.begins = true;
        self.task = None;
        self.resumed = false;
    }

    fn infer(&mut self, request: &ChunkRequest) -> Result<Chunk, ChunkError> {
        let answer = self.ask(request)?;
        self.begins = false;
        let answer = decode(&answer, &DecodeLimits::default()).map_err(|error| {
            ChunkError::Failed(format!("{}: the answer is no msgpack ({error})", self.options.url))
        })?;
        let chunk = reply::read(&answer)?;
        self.task = chunk.routing.as_ref().map(|routing| routing.task.clone());
        Ok(chunk)
    }
}
