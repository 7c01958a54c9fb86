//! GR00T's clients, over ZeroMQ: a REP socket that gives each client an episode of its own, and all of them turns.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection::{InFlight, outcome};
use crate::error::RequestError;
use crate::http::Door;
use crate::lively::Lively;
use crate::options::{Client, Event};
use crate::policy::Policy;
use crate::protocol::{self, Answer, Ask, gr00t};
use crate::shared::{Phase, Shared, reached};
use crate::worker::Episode;

mod zmtp;

use zmtp::{GREETING, GREETING_BYTES, Item, Message, Reader, ZmtpError};

/// How long a client may take to say which socket it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are made room for at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Accepts connections until the server stops.
pub(crate) async fn listen<P: Policy>(listener: TcpListener, door: Door<P>) {
    let mut phase = door.shared.phase.subscribe();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    drop(stream.set_nodelay(true));
                    // There is no answer that says "busy" to who has not asked yet: the connection ends.
                    let Ok(place) = door.places.clone().try_acquire_owned() else { continue };
                    let door = door.clone();
                    tokio::spawn(async move {
                        let shared = door.shared.clone();
                        let client = shared.last_client.fetch_add(1, Ordering::Relaxed) + 1;
                        shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
                        shared.metrics.clients.fetch_add(1, Ordering::Relaxed);
                        shared.tell(&Event::Connected { client, peer });
                        let mut connection = Connection::new(shared.clone(), client, stream);
                        let End(reason) = connection.run().await;
                        shared.tell(&Event::Disconnected { client, reason, answered: connection.answered });
                        shared.metrics.clients.fetch_sub(1, Ordering::Relaxed);
                        // Until now the server has waited for it.
                        drop((place, door));
                    });
                }
                // Out of file descriptors, or a client that left already.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = reached(&mut phase, Phase::Stopping) => {}
    }
}

/// Why a connection ended.
struct End(String);

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

struct Connection<P: Policy> {
    shared: Arc<Shared<P>>,
    client: Client,
    stream: Lively,
    reader: Reader,
    received: BytesMut,
    episode: Arc<Mutex<Episode<P::Session>>>,
    /// Whether the client answers pings: those of protocol 3.0 do not.
    answers_pings: bool,
    pinged: Option<Instant>,
    /// What runs, and what its answer begins with.
    in_flight: Option<InFlight>,
    envelope: Vec<Bytes>,
    /// A request that came before the last one was answered, which only DEALER sockets send.
    next: Option<Message>,
    answered: u64,
    previous: Option<Duration>,
}

impl<P: Policy> Connection<P> {
    fn new(shared: Arc<Shared<P>>, client: Client, stream: TcpStream) -> Self {
        let episode = Arc::new(Mutex::new(Episode::new(client, shared.policy.session())));
        let reader = Reader::new(shared.options.limits.frame_bytes);
        Self {
            shared,
            client,
            stream: Lively::new(stream),
            reader,
            received: BytesMut::new(),
            episode,
            answers_pings: false,
            pinged: None,
            in_flight: None,
            envelope: Vec::new(),
            next: None,
            answered: 0,
            previous: None,
        }
    }

    async fn run(&mut self) -> End {
        let mut phase = self.shared.phase.subscribe();
        let handshake = tokio::select! {
            handshake = timeout(HANDSHAKE_TIMEOUT, self.handshake()) => handshake,
            _ = reached(&mut phase, Phase::Stopping) => return End("the server stops".into()),
        };
        match handshake {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return end,
            Err(_) => return End("no ZeroMQ handshake came".into()),
        }
        let mut waited_for = Phase::Ready;
        loop {
            let silence_ends = self.silence_ends();
            let step = tokio::select! {
                biased;
                outcome = outcome(&mut self.in_flight) => self.respond(outcome).await,
                // What runs is finished first.
                now = reached(&mut phase, waited_for), if self.in_flight.is_none() => match now {
                    Phase::Stopping => Err(End("the server stops".into())),
                    _ => {
                        waited_for = Phase::Stopping;
                        self.start_next().await
                    }
                },
                item = receive(&mut self.reader, &mut self.received, &mut self.stream) => match item {
                    Ok(item) => self.take(item, waited_for == Phase::Stopping).await,
                    Err(end) => Err(end),
                },
                () = sleep_until(silence_ends) => self.silent().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn handshake(&mut self) -> Result<(), End> {
        self.send(&GREETING).await?;
        while self.received.len() < GREETING_BYTES {
            read(&mut self.received, &mut self.stream).await?;
        }
        let greeting = self.received.split_to(GREETING_BYTES);
        let greeting = greeting.first_chunk().ok_or_else(|| End("the connection broke".into()))?;
        let minor = zmtp::greeting(greeting).map_err(|error| End(error.to_string()))?;
        self.answers_pings = minor > 0;
        self.send(&zmtp::ready()).await?;
        match receive(&mut self.reader, &mut self.received, &mut self.stream).await? {
            Ok(Item::Command { name, data }) if *name == *b"READY" => {
                zmtp::check_ready(&data).map_err(|error| End(error.to_string()))
            }
            _ => Err(End("it did not say which socket it is".into())),
        }
    }

    /// A ping that nothing has followed.
    fn unanswered_ping(&self) -> Option<Instant> {
        self.pinged.filter(|at| *at >= self.stream.heard())
    }

    /// Until when the client may be silent; for ever if it does not answer pings.
    fn silence_ends(&self) -> Instant {
        let options = &self.shared.options;
        match self.unanswered_ping() {
            Some(at) => at + options.ping_timeout,
            None if self.answers_pings => self.stream.heard() + options.ping_interval,
            None => Instant::now() + Duration::from_secs(3600),
        }
    }

    async fn silent(&mut self) -> Result<(), End> {
        if self.silence_ends() > Instant::now() {
            return Ok(());
        }
        if self.unanswered_ping().is_some() {
            self.shared.metrics.timed_out.fetch_add(1, Ordering::Relaxed);
            return Err(End("timed out: it did not answer pings".into()));
        }
        self.pinged = Some(Instant::now());
        // Two bytes: how long, in tenths of a second, this side may be silent; 0 is for ever.
        self.send(&zmtp::command(b"PING", &[0, 0])).await
    }

    /// Takes what the client sent. What was sent before the policy is warm waits.
    async fn take(&mut self, item: Result<Item, ZmtpError>, ready: bool) -> Result<(), End> {
        match item {
            Ok(Item::Message(message)) if ready && self.in_flight.is_none() => self.start(message).await,
            Ok(Item::Message(message)) => match self.next.replace(message) {
                None => Ok(()),
                Some(_) => Err(self.refused_for_good(RequestError::Pipelined, &[Bytes::new()]).await),
            },
            // A PONG repeats what follows the two bytes of a PING, which is 16 bytes at most.
            Ok(Item::Command { name, data }) if *name == *b"PING" => {
                let context = data.get(2..).unwrap_or_default();
                self.send(&zmtp::command(b"PONG", &context[..context.len().min(16)])).await
            }
            Ok(Item::Command { .. }) => Ok(()),
            Err(ZmtpError::Oversized { limit }) => {
                Err(self.refused_for_good(RequestError::Oversized { limit }, &[Bytes::new()]).await)
            }
            Err(error) => {
                let error = RequestError::Envelope(error.to_string());
                self.note(&error);
                Err(End(error.to_string()))
            }
        }
    }

    async fn start_next(&mut self) -> Result<(), End> {
        match self.next.take() {
            Some(message) => self.start(message).await,
            None => Ok(()),
        }
    }

    /// Hands a request to the policy, or answers it at once.
    async fn start(&mut self, message: Message) -> Result<(), End> {
        let arrived = Instant::now();
        let Message { envelope, body } = message;
        self.envelope = envelope;
        let options = &self.shared.options;
        let request = gr00t::read(&body, &options.limits, &self.shared.metadata, options.api_key.as_deref());
        self.shared.metrics.count_request(request.protocol(), request.kind());
        let dialect = request.dialect;
        let submitted = match request.ask {
            Ok(Ask::Policy { reset, observation }) => {
                self.shared.submit(&self.episode, reset, observation, arrived.into_std())
            }
            Ok(Ask::Server { data }) => return self.answer(protocol::tell(&dialect, data)).await,
            // No other question is in this language.
            Ok(Ask::Keep { .. } | Ask::Kept | Ask::Close) => Err(RequestError::NothingKept),
            Err(error) => Err(error),
        };
        match submitted {
            Ok(outcome) => {
                self.in_flight = Some(InFlight { dialect, outcome, arrived });
                Ok(())
            }
            Err(error) => self.fail(&dialect, &error).await,
        }
    }

    async fn respond(&mut self, outcome: Option<Result<Answer, RequestError>>) -> Result<(), End> {
        let Some(InFlight { dialect, arrived, .. }) = self.in_flight.take() else { return Ok(()) };
        match outcome {
            Some(Ok(answer)) => {
                self.answered += u64::from(answer.reply.is_some());
                let message = protocol::answer(&dialect, answer, self.previous);
                self.answer(message).await?;
                self.previous = Some(arrived.elapsed());
                self.shared.metrics.request.observe(arrived.elapsed());
            }
            Some(Err(error)) => self.fail(&dialect, &error).await?,
            // The queue was closed with the request in it.
            None => self.fail(&dialect, &RequestError::Stopping).await?,
        }
        self.start_next().await
    }

    async fn fail(&mut self, dialect: &protocol::Dialect, error: &RequestError) -> Result<(), End> {
        self.note(error);
        let message = protocol::refusal(dialect, error).unwrap_or_default();
        self.answer(message).await
    }

    /// Counts an error, and tells of it.
    fn note(&self, error: &RequestError) {
        self.shared.metrics.count_error(error.kind());
        self.shared.tell(&Event::Failed { client: self.client, message: error.to_string() });
    }

    /// Answers what cannot be read on from.
    async fn refused_for_good(&mut self, error: RequestError, envelope: &[Bytes]) -> End {
        self.note(&error);
        let message = protocol::refusal(&gr00t::plain(), &error).unwrap_or_default();
        if self.send(&zmtp::message(envelope, &message)).await.is_ok() {
            self.stream.linger().await;
        }
        End("closed after an error".into())
    }

    async fn answer(&mut self, body: Vec<u8>) -> Result<(), End> {
        let message = zmtp::message(&std::mem::take(&mut self.envelope), &body);
        self.send(&message).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        match timeout(self.shared.options.ping_timeout, self.stream.write_all(bytes)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => {
                self.shared.metrics.timed_out.fetch_add(1, Ordering::Relaxed);
                Err(End("timed out: it did not read".into()))
            }
        }
    }
}

/// The next item, or what is wrong with it; an end if the connection ended. Nothing is lost where this is dropped.
async fn receive(
    reader: &mut Reader,
    received: &mut BytesMut,
    stream: &mut Lively,
) -> Result<Result<Item, ZmtpError>, End> {
    loop {
        match reader.next(received) {
            Ok(None) => read(received, stream).await?,
            Ok(Some(item)) => return Ok(Ok(item)),
            Err(error) => return Ok(Err(error)),
        }
    }
}

async fn read(received: &mut BytesMut, stream: &mut Lively) -> Result<(), End> {
    received.reserve(PIECE_BYTES);
    match stream.read_buf(received).await? {
        0 => Err(End("closed by the client".into())),
        _ => Ok(()),
    }
}
