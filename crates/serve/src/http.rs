//! What a TCP connection begins with: HTTP, which asks for health, for metrics, or to become a websocket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection::Connection;
use crate::options::Event;
use crate::policy::Policy;
use crate::shared::{Phase, Shared};

/// How long a client may take for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

type Answer = Response<Full<Bytes>>;

/// What every connection is given.
pub(crate) struct Door<P: Policy> {
    pub(crate) shared: Arc<Shared<P>>,
    /// One permit a websocket client.
    pub(crate) places: Arc<Semaphore>,
    /// Held by whatever the server waits for when it stops.
    pub(crate) alive: mpsc::Sender<Infallible>,
}

impl<P: Policy> Clone for Door<P> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), places: self.places.clone(), alive: self.alive.clone() }
    }
}

/// Answers HTTP requests on one TCP connection until it ends or has become a websocket.
pub(crate) async fn serve<P: Policy>(door: Door<P>, stream: TcpStream, peer: SocketAddr) {
    let mut phase = door.shared.phase.subscribe();
    let service = service_fn(|request| {
        let answer = respond(&door, request, peer);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        // A client that breaks off is no concern of anybody's.
        result = connection => drop(result),
        _ = phase.wait_for(|now| *now == Phase::Stopping) => {}
    }
}

fn respond<P: Policy>(door: &Door<P>, mut request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let shared = &door.shared;
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here\n".into());
    }
    if request.uri().path() == "/healthz" {
        return match shared.phase() {
            Phase::Warming => text(StatusCode::SERVICE_UNAVAILABLE, "warming up\n".into()),
            Phase::Ready => text(StatusCode::OK, "OK\n".into()),
            Phase::Stopping => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into()),
        };
    }
    if let Some(key) = &shared.options.api_key
        && !authorised(request.headers().get(AUTHORIZATION), key)
    {
        let message = "a valid API key is needed: `Authorization: Api-Key KEY`\n";
        return with(text(StatusCode::UNAUTHORIZED, message.into()), WWW_AUTHENTICATE, "Api-Key");
    }
    if request.uri().path() == "/metrics" {
        let page = shared.metrics.text(
            shared.phase() == Phase::Ready,
            shared.queue.len(),
            shared.policy.device_memory_bytes(),
        );
        return with(text(StatusCode::OK, page), CONTENT_TYPE, "text/plain; version=0.0.4");
    }
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(answer) => return *answer,
    };
    let Ok(place) = door.places.clone().try_acquire_owned() else {
        let message =
            format!("busy: {} clients are connected, which is the limit\n", shared.options.limits.clients);
        return text(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    tokio::spawn(websocket(door.clone(), hyper::upgrade::on(&mut request), place, peer));
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept);
    answer
        .body(Full::default())
        .unwrap_or_else(|_| text(StatusCode::BAD_REQUEST, "malformed handshake\n".into()))
}

/// The key that accepts a websocket handshake, or what to say instead.
fn handshake(request: &Request<Incoming>) -> Result<String, Box<Answer>> {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // Several lines of one header are one list.
    let lists = |name, word: &str| {
        let lines =
            request.headers().get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !lists(UPGRADE, "websocket") || !lists(CONNECTION, "upgrade") {
        let message = "this is a policy server: connect with a websocket, or ask for /healthz or /metrics\n";
        return Err(with(text(StatusCode::UPGRADE_REQUIRED, message.into()), UPGRADE, "websocket").into());
    }
    if header(SEC_WEBSOCKET_VERSION) != Some("13") {
        let answer = text(
            StatusCode::UPGRADE_REQUIRED,
            "version 13 of the websocket protocol is spoken here\n".into(),
        );
        return Err(with(answer, SEC_WEBSOCKET_VERSION, "13").into());
    }
    if request.headers().contains_key(ORIGIN) {
        // Only browsers send it. Any page may open a websocket to a server on the machine that shows it; none may drive a robot.
        return Err(
            text(StatusCode::FORBIDDEN, "web pages are no clients of a policy server\n".into()).into()
        );
    }
    match request.headers().get(SEC_WEBSOCKET_KEY) {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => {
            Err(text(StatusCode::BAD_REQUEST, "malformed handshake: no Sec-WebSocket-Key\n".into()).into())
        }
    }
}

/// Whether the header carries the key; takes as long for a wrong key as for the right one.
fn authorised(header: Option<&HeaderValue>, key: &str) -> bool {
    let Some((scheme, given)) = header.and_then(|value| value.to_str().ok()?.split_once(' ')) else {
        return false;
    };
    let scheme = scheme.eq_ignore_ascii_case("Api-Key") || scheme.eq_ignore_ascii_case("Bearer");
    scheme & bool::from(given.trim().as_bytes().ct_eq(key.as_bytes()))
}

async fn websocket<P: Policy>(
    door: Door<P>,
    upgrade: OnUpgrade,
    place: OwnedSemaphorePermit,
    peer: SocketAddr,
) {
    let Ok(upgraded) = upgrade.await else { return };
    // It is what `serve` wrapped.
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
    let shared = door.shared.clone();
    let client = shared.last_client.fetch_add(1, Ordering::Relaxed) + 1;
    shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
    shared.metrics.clients.fetch_add(1, Ordering::Relaxed);
    shared.tell(&Event::Connected { client, peer });
    Connection::serve(shared.clone(), client, parts.io.into_inner(), parts.read_buf.to_vec()).await;
    shared.metrics.clients.fetch_sub(1, Ordering::Relaxed);
    drop((place, door));
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    with(answer, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}
