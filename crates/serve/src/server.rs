use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::error::ServeError;
use crate::http::{self, Door};
use crate::options::{Event, Options};
use crate::policy::Policy;
use crate::shared::{Phase, Shared, advance};
use crate::worker;
#[cfg(feature = "zmq")]
use crate::zmq;

/// Threads for sockets. They decode, convert images and encode, but never infer.
const IO_THREADS: usize = 2;

/// TCP connections that are not (yet) websockets: health checks, metrics, handshakes.
const MAX_OTHER_CONNECTIONS: usize = 64;

/// How long telling the clients that the server stops may take, beyond what they may take to hang up.
const FAREWELL: Duration = Duration::from_secs(6);

/// A port that is taken.
struct Listening {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Listening {
    fn on(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Bind { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }
}

/// A policy on a port. The port is taken when this exists; requests are answered by [`run`](Self::run).
pub struct Server<P: Policy> {
    shared: Arc<Shared<P>>,
    web: Listening,
    #[cfg(feature = "zmq")]
    zmq: Option<Listening>,
}

/// Stops a running server from elsewhere.
#[derive(Debug, Clone)]
pub struct Handle(Arc<watch::Sender<Phase>>);

impl Handle {
    /// Lets the running inference end, closes every connection with 1001 and makes [`Server::run`] return.
    pub fn stop(&self) {
        advance(&self.0, Phase::Stopping);
    }
}

impl<P: Policy> Server<P> {
    /// Takes the port.
    ///
    /// # Errors
    /// [`ServeError::Bind`] if it is not to be had, [`ServeError::ApiKey`] for a key that no header can carry.
    pub fn bind(policy: P, options: Options) -> Result<Self, ServeError> {
        let visible = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !options.api_key.iter().all(visible) {
            return Err(ServeError::ApiKey);
        }
        Ok(Self {
            web: Listening::on(options.address)?,
            #[cfg(feature = "zmq")]
            zmq: options.zmq_address.map(Listening::on).transpose()?,
            shared: Arc::new(Shared::new(policy, options)),
        })
    }

    /// Where it listens: the port that was taken if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.web.address
    }

    /// Where it listens to GR00T's clients, if it does.
    #[cfg(feature = "zmq")]
    pub fn zmq_address(&self) -> Option<SocketAddr> {
        self.zmq.as_ref().map(|zmq| zmq.address)
    }

    /// A handle that stops it.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.phase.clone())
    }

    /// Warms up and answers requests until [`Handle::stop`] is called.
    ///
    /// # Errors
    /// [`ServeError::WarmUp`] if the policy does not run, [`ServeError::Start`] without threads or sockets.
    pub fn run(self) -> Result<(), ServeError> {
        self.run_until(std::future::pending())
    }

    /// As [`run`](Self::run); Ctrl-C or SIGTERM stops it as well, and a second one does so without waiting for what runs.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_until_signal(self) -> Result<(), ServeError> {
        let phase = self.shared.phase.clone();
        self.run_until(async move {
            signal().await;
            advance(&phase, Phase::Stopping);
            signal().await;
        })
    }

    fn run_until(self, at_once: impl Future<Output = ()>) -> Result<(), ServeError> {
        let shared = self.shared;
        let io = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("serve-io")
            .enable_all()
            .build()?;
        let worker = std::thread::Builder::new().name("serve-policy".into()).spawn({
            let shared = shared.clone();
            move || worker::run(&shared)
        });
        let served = match &worker {
            Ok(_) => io.block_on(async {
                let listener = TcpListener::from_std(self.web.listener)?;
                let door = door(&shared);
                #[cfg(feature = "zmq")]
                if let Some(zmq) = self.zmq {
                    let listener = TcpListener::from_std(zmq.listener)?;
                    tokio::spawn(zmq::listen(listener, door.0.clone()));
                }
                tokio::select! {
                    () = serve(shared.clone(), listener, door) => {}
                    () = at_once => {}
                }
                Ok(())
            }),
            Err(_) => Ok(()),
        };
        shared.queue.close();
        io.shutdown_background();
        let worker = worker?;
        served.map_err(ServeError::Start)?;
        if worker.is_finished() {
            // It catches the policy's panics and has none of its own.
            drop(worker.join());
        }
        let failed = shared.warm_up_failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), |error| Err(ServeError::WarmUp(error)))
    }
}

/// What connections are given, and what ends when the last of them has.
fn door<P: Policy>(shared: &Arc<Shared<P>>) -> (Door<P>, mpsc::Receiver<Infallible>) {
    let (alive, all_ended) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(shared.options.limits.clients));
    (Door { shared: shared.clone(), places, alive }, all_ended)
}

/// Accepts connections until the server stops, then waits for those that there are.
async fn serve<P: Policy>(
    shared: Arc<Shared<P>>,
    listener: TcpListener,
    (door, mut all_ended): (Door<P>, mpsc::Receiver<Infallible>),
) {
    let limits = shared.options.limits;
    let sockets = Arc::new(Semaphore::new(
        limits.clients.saturating_add(MAX_OTHER_CONNECTIONS).min(Semaphore::MAX_PERMITS),
    ));
    let mut phase = shared.phase.subscribe();
    tokio::select! {
        () = accept(&listener, &door, &sockets) => {}
        _ = phase.wait_for(|now| *now == Phase::Stopping) => {}
    }
    drop(listener);
    shared.tell(&Event::Stopping);
    shared.queue.close();
    drop(door);
    // Nothing is ever sent: this ends when the last connection has.
    drop(timeout(shared.options.shutdown_grace + FAREWELL, all_ended.recv()).await);
}

async fn accept<P: Policy>(listener: &TcpListener, door: &Door<P>, sockets: &Arc<Semaphore>) {
    loop {
        // Never closed, hence never an error.
        let Ok(socket) = sockets.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Replies are single small writes.
                drop(stream.set_nodelay(true));
                let door = door.clone();
                tokio::spawn(async move {
                    http::serve(door, stream, peer).await;
                    drop(socket);
                });
            }
            // Out of file descriptors, or a client that left already.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
