//! A websocket to a policy server.

use std::fmt;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::{ConnectError, RemoteOptions};

/// A server that cannot be reached is not waited for much longer than a person would.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any chunk of actions takes.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Connection {
    socket: WebSocket<TcpStream>,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The other side had closed the connection.
    Closed,
    /// Everything else, in words.
    Failed(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Failed(problem) => f.write_str(problem),
        }
    }
}

impl Connection {
    /// Connects, and gives the server's first message.
    pub(super) fn open(options: &RemoteOptions) -> Result<(Self, Bytes), ConnectError> {
        let url = || options.url.clone();
        let bad_url = |hint| ConnectError::Url { url: url(), hint };
        let server = |problem: String| ConnectError::Server { url: url(), problem };
        if options.url.starts_with("wss://") {
            return Err(bad_url(
                "; encrypted ones are reached through a tunnel: `ssh -L 8000:localhost:8000 HOST`",
            ));
        }
        if !options.url.starts_with("ws://") {
            return Err(bad_url(""));
        }
        let mut request = options.url.as_str().into_client_request().map_err(|_| bad_url(""))?;
        if let Some(key) = &options.api_key {
            let value = HeaderValue::from_str(&format!("Api-Key {key}"));
            let value =
                value.map_err(|_| server("the API key has characters that no header can have".to_owned()))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let host = request.uri().host().ok_or_else(|| bad_url(""))?;
        // An IPv6 address stands in brackets there.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = request.uri().port_u16().unwrap_or(80);
        let unreachable =
            |error: &dyn fmt::Display| ConnectError::Unreachable { url: url(), reason: error.to_string() };
        let addresses = (host, port).to_socket_addrs().map_err(|error| unreachable(&error))?;
        let mut last = None;
        let stream = addresses.into_iter().find_map(|address| {
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(|error| last = Some(error)).ok()
        });
        let Some(stream) = stream else {
            return Err(match last {
                Some(error) => unreachable(&error),
                None => unreachable(&"the name has no address"),
            });
        };
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(options.timeout)))
            .and_then(|()| stream.set_write_timeout(Some(options.timeout)));
        set.map_err(|error| unreachable(&error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let socket = match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let status = response.status();
                let remedy = match status.as_u16() {
                    401 | 403 => "; give the server's API key",
                    503 => "; it has as many clients as it takes",
                    _ => "; is it a policy server?",
                };
                return Err(server(format!("refuses the connection with status {status}{remedy}")));
            }
            Err(error) => return Err(server(format!("does not answer as a websocket ({error})"))),
        };
        let mut connection = Self { socket, timeout: options.timeout };
        let metadata = connection.receive().map_err(|broken| server(broken.to_string()))?;
        Ok((connection, metadata))
    }

    pub(super) fn send(&mut self, message: Bytes) -> Result<(), Broken> {
        self.socket.send(Message::Binary(message)).map_err(|error| self.broken(error))
    }

    /// The next message. Pings are answered on the way.
    pub(super) fn receive(&mut self) -> Result<Bytes, Broken> {
        let asked = Instant::now();
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => return Ok(bytes),
                // openpi's way to say what went wrong; it closes the connection then.
                Ok(Message::Text(text)) => {
                    return Err(Broken::Failed(format!("the server refuses: {}", last_line(text.as_str()))));
                }
                // A server that stops may be back by now.
                Ok(Message::Close(Some(frame)))
                    if frame.code != CloseCode::Away && !frame.reason.is_empty() =>
                {
                    return Err(Broken::Failed(format!(
                        "the server closed the connection: {}",
                        frame.reason
                    )));
                }
                Ok(Message::Close(_)) => return Err(Broken::Closed),
                // A server that only pings is alive, and does not answer.
                Ok(_) if asked.elapsed() >= self.timeout => return Err(self.late()),
                Ok(_) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn late(&self) -> Broken {
        Broken::Failed(format!("no answer within {} s", self.timeout.as_secs_f64()))
    }

    fn broken(&self, error: Error) -> Broken {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Broken::Closed,
            Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Broken::Closed
            }
            Error::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.late()
            }
            Error::Io(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                Broken::Closed
            }
            error => Broken::Failed(error.to_string()),
        }
    }
}

/// openpi sends a whole traceback, whose last line says what it was.
fn last_line(text: &str) -> &str {
    text.trim().lines().last().unwrap_or_default().trim()
}
