//! One websocket connection.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::error::RequestError;
use crate::lively::Lively;
use crate::observation::Parts;
use crate::options::{Client, Event};
use crate::policy::{Observation, Policy};
use crate::protocol::{self, Answer, Ask, Dialect, Request};
use crate::shared::{Outcome, Phase, Shared, reached};
use crate::worker::Episode;

/// Largest message that is looked into while inference runs, bytes: it may be one that does not wait, which are small.
const MAX_OVERTAKING_BYTES: usize = 4 << 10;

pub(crate) struct Connection<P: Policy> {
    shared: Arc<Shared<P>>,
    client: Client,
    socket: WebSocketStream<Lively>,
    episode: Arc<Mutex<Episode<P::Session>>>,
    greeted: bool,
    in_flight: Option<InFlight>,
    /// A request that came before the last one was answered. There may be one; it shows that the client pipelines.
    next: Option<Bytes>,
    /// What the client sent ahead of asking for actions. Gone when anything is asked of the policy, so that no more is held
    /// than of a client that sends it with the question.
    kept: Option<Kept>,
    /// When the last ping was sent. If anything has come since, it has done its work.
    pinged: Option<Instant>,
    answered: u64,
    previous: Option<Duration>,
}

pub(crate) struct InFlight {
    pub(crate) dialect: Dialect,
    pub(crate) outcome: Outcome,
    pub(crate) arrived: Instant,
}

struct Kept {
    reset: bool,
    observation: Box<Observation>,
    parts: Parts,
}

/// How a connection ends.
enum End {
    /// The client left, as it should or in the middle.
    Left(String),
    /// The client neither answers nor reads.
    TimedOut,
    /// The server stops.
    Stopping,
    /// The client is told why, and the connection closed.
    Refused(RequestError),
    /// The client asked for it.
    Asked,
}

impl<P: Policy> Connection<P> {
    /// Serves a connection on which the websocket handshake has been made, until it ends.
    pub(crate) async fn serve(
        shared: Arc<Shared<P>>,
        client: Client,
        stream: TcpStream,
        read_ahead: Vec<u8>,
    ) {
        let limit = shared.options.limits.frame_bytes;
        let config = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
        let socket =
            WebSocketStream::from_partially_read(Lively::new(stream), read_ahead, Role::Server, Some(config))
                .await;
        let episode = Arc::new(Mutex::new(Episode::new(client, shared.policy.session())));
        let mut connection = Self {
            shared,
            client,
            socket,
            episode,
            greeted: false,
            in_flight: None,
            next: None,
            kept: None,
            pinged: None,
            answered: 0,
            previous: None,
        };
        let end = connection.run().await;
        connection.end(end).await;
    }

    async fn run(&mut self) -> End {
        let mut phase = self.shared.phase.subscribe();
        loop {
            let waited_for = if self.greeted { Phase::Stopping } else { Phase::Ready };
            let silence_ends = self.silence_ends();
            let step = tokio::select! {
                biased;
                outcome = outcome(&mut self.in_flight) => self.respond(outcome).await,
                // What runs is finished first.
                now = reached(&mut phase, waited_for), if self.in_flight.is_none() => match now {
                    Phase::Stopping => Err(End::Stopping),
                    _ => self.greet().await,
                },
                message = self.socket.next() => self.receive(message).await,
                () = sleep_until(silence_ends) => self.silent().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn greet(&mut self) -> Result<(), End> {
        self.greeted = true;
        self.send(Message::Binary(self.shared.greeting.clone())).await?;
        self.start_next().await
    }

    /// A ping that nothing has followed.
    fn unanswered_ping(&self) -> Option<Instant> {
        self.pinged.filter(|at| *at >= self.socket.get_ref().heard())
    }

    /// Until when the client may be silent, as far as is known now.
    fn silence_ends(&self) -> Instant {
        match self.unanswered_ping() {
            Some(at) => at + self.shared.options.ping_timeout,
            None => self.socket.get_ref().heard() + self.shared.options.ping_interval,
        }
    }

    /// Pings a client that was silent, and gives up one that still is.
    async fn silent(&mut self) -> Result<(), End> {
        if self.silence_ends() > Instant::now() {
            // Bytes of a message have come that is not whole yet.
            return Ok(());
        }
        if self.unanswered_ping().is_some() {
            return Err(End::TimedOut);
        }
        self.pinged = Some(Instant::now());
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn receive(&mut self, message: Option<Result<Message, Error>>) -> Result<(), End> {
        match message {
            Some(Ok(Message::Binary(frame))) if self.greeted && self.in_flight.is_none() => {
                self.start(&frame).await
            }
            Some(Ok(Message::Binary(frame))) => self.ahead(frame).await,
            Some(Ok(Message::Text(_))) => Err(self.refused(RequestError::Text)),
            // Reading on sends the answer to a ping.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(frame))) => {
                // The same for the answer to this.
                drop(timeout(self.shared.options.ping_timeout, self.socket.next()).await);
                let code = frame.map_or("no status".to_owned(), |frame| frame.code.to_string());
                Err(End::Left(format!("closed by the client ({code})")))
            }
            Some(Err(Error::Capacity(_))) => {
                let limit = self.shared.options.limits.frame_bytes;
                Err(self.refused(RequestError::Oversized { limit }))
            }
            Some(Err(error)) => Err(End::Left(error.to_string())),
            None => Err(End::Left("the connection broke".into())),
        }
    }

    /// Takes a request that came before the last one was answered.
    async fn ahead(&mut self, frame: Bytes) -> Result<(), End> {
        if self.greeted && frame.len() <= MAX_OVERTAKING_BYTES {
            let request = self.read(&frame);
            if request.overtakes() {
                return self.answer(request, Instant::now()).await;
            }
        }
        match self.next.replace(frame) {
            None => Ok(()),
            Some(_) => Err(self.refused(RequestError::Pipelined)),
        }
    }

    fn read(&self, frame: &Bytes) -> Request {
        protocol::read(frame, &self.shared.options.limits, &self.shared.metadata)
    }

    async fn start(&mut self, frame: &Bytes) -> Result<(), End> {
        let arrived = Instant::now();
        let request = self.read(frame);
        self.answer(request, arrived).await
    }

    /// Hands a request to the policy, or answers it at once.
    async fn answer(&mut self, request: Request, arrived: Instant) -> Result<(), End> {
        self.shared.metrics.count_request(request.protocol(), request.kind());
        let mut dialect = request.dialect;
        let (reset, observation) = match request.ask {
            Ok(Ask::Policy { reset, observation }) => {
                self.kept = None;
                (reset, observation)
            }
            Ok(Ask::Keep { reset, observation }) => {
                let parts = dialect.parts().map(std::mem::take).unwrap_or_default();
                self.kept = Some(Kept { reset, observation, parts });
                return self.send_binary(protocol::tell(&dialect, None)).await;
            }
            Ok(Ask::Kept) => {
                let Some(Kept { reset, observation, parts: kept }) = self.kept.take() else {
                    return self.fail(&dialect, RequestError::NothingKept).await;
                };
                if let Some(parts) = dialect.parts() {
                    *parts = kept;
                }
                (reset, Some(observation))
            }
            Ok(Ask::Server { data }) => return self.send_binary(protocol::tell(&dialect, data)).await,
            Ok(Ask::Close) => return Err(End::Asked),
            Err(error) => return self.fail(&dialect, error).await,
        };
        match self.shared.submit(&self.episode, reset, observation, arrived.into_std()) {
            Ok(outcome) => {
                self.in_flight = Some(InFlight { dialect, outcome, arrived });
                Ok(())
            }
            Err(RequestError::Stopping) => Err(End::Stopping),
            Err(error) => self.fail(&dialect, error).await,
        }
    }

    async fn start_next(&mut self) -> Result<(), End> {
        // A message that is answered at once leaves the way free for the next.
        match self.next.take() {
            Some(frame) => self.start(&frame).await,
            None => Ok(()),
        }
    }

    /// Answers the request in flight.
    async fn respond(&mut self, outcome: Option<Result<Answer, RequestError>>) -> Result<(), End> {
        let Some(InFlight { dialect, arrived, .. }) = self.in_flight.take() else { return Ok(()) };
        match outcome {
            Some(Ok(answer)) => {
                self.answered += u64::from(answer.reply.is_some());
                let message = protocol::answer(&dialect, answer, self.previous);
                self.send_binary(message).await?;
                self.previous = Some(arrived.elapsed());
                self.shared.metrics.request.observe(arrived.elapsed());
            }
            Some(Err(error)) => self.fail(&dialect, error).await?,
            // The queue was closed with the request in it.
            None => return Err(End::Stopping),
        }
        self.start_next().await
    }

    /// Answers with an error; where the dialect has no such answer, the connection ends.
    async fn fail(&mut self, dialect: &Dialect, error: RequestError) -> Result<(), End> {
        match protocol::refusal(dialect, &error) {
            Some(message) => {
                drop(self.refused(error));
                self.send_binary(message).await
            }
            None => Err(self.refused(error)),
        }
    }

    /// Counts an error, and tells of it.
    fn refused(&self, error: RequestError) -> End {
        self.shared.metrics.count_error(error.kind());
        self.shared.tell(&Event::Failed { client: self.client, message: error.to_string() });
        End::Refused(error)
    }

    async fn send_binary(&mut self, message: Vec<u8>) -> Result<(), End> {
        self.send(Message::Binary(message.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.shared.options.ping_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Left(error.to_string())),
            Err(_) => Err(End::TimedOut),
        }
    }

    async fn end(&mut self, end: End) {
        let reason = match end {
            End::Left(reason) => reason,
            End::TimedOut => {
                self.shared.metrics.timed_out.fetch_add(1, Ordering::Relaxed);
                "timed out: it neither answered pings nor read".into()
            }
            End::Stopping => {
                self.close(CloseCode::Away, &RequestError::Stopping.to_string()).await;
                "the server stops".into()
            }
            End::Asked => {
                self.close(CloseCode::Normal, "the client asked for it").await;
                "closed at the client's request".into()
            }
            End::Refused(error) => {
                let code = match error {
                    RequestError::Oversized { .. } => CloseCode::Size,
                    _ => CloseCode::Error,
                };
                if self.send(Message::text(error.to_string())).await.is_ok() {
                    self.close(code, "the text frame before this says why").await;
                }
                "closed after an error".into()
            }
        };
        let (client, answered) = (self.client, self.answered);
        self.shared.tell(&Event::Disconnected { client, reason, answered });
    }

    /// Says that the connection ends, then waits until the client has ended it, too.
    async fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code, reason: reason.into() };
        if self.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        // Past the websocket: an oversized message is still on its way, and nothing else matters any more.
        self.socket.get_mut().linger().await;
    }
}

/// The outcome of the request in flight, `None` if there will be none; waits for ever without a request.
pub(crate) async fn outcome(in_flight: &mut Option<InFlight>) -> Option<Result<Answer, RequestError>> {
    match in_flight {
        Some(in_flight) => (&mut in_flight.outcome).await.ok(),
        None => std::future::pending().await,
    }
}
