//! `skillweld serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use skillweld_gpu::Device;
use skillweld_policy::backend::Backend;
use skillweld_policy::{Policy, Routing};
use skillweld_serve::{Event, Limits, Options, Server};

use crate::Outcome;
use crate::console::Console;
use crate::policy::{Job, Opening, RuleArguments, routing};

mod decision_log;
pub(crate) mod served;

use decision_log::DecisionLog;
use served::Served;

const EXAMPLES: &str = "\
Examples:
  skillweld serve merged                                   route on each client's first observation
  skillweld serve merged --task goal --port 8001           one task
  skillweld serve merged --every 4 --fallback object       route again every four chunks
  skillweld serve merged --host 0.0.0.0 --api-key-file key reachable from other machines

Clients of openpi (LIBERO, DROID, ALOHA) connect to ws://HOST:PORT as they are; the messages of StarVLA's and
XPolicyLab's (RoboTwin 2.0, RoboDojo) are answered there, too; GR00T's connect to --zmq-port, which builds with the feature `zmq` have. GET /healthz
says 200 when the policy is warm, GET /metrics has Prometheus' text. Ctrl-C or SIGTERM ends what runs and stops.";

/// Serve a policy to robots: openpi's websocket protocol, StarVLA's and XPolicyLab's.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A merged checkpoint, or a single expert as training leaves it.
    policy: PathBuf,
    /// Run this task; clients may still ask for another.
    #[arg(long, value_name = "T", conflicts_with_all = ["route", "candidates", "min_probability", "fallback", "raw_scores", "every"])]
    task: Option<String>,
    /// Let the router choose; an error if the checkpoint has none [default where it has one].
    #[arg(long)]
    route: bool,
    /// Route again every so many chunks, not only on the first observation.
    #[arg(long, value_name = "CHUNKS")]
    every: Option<NonZeroUsize>,
    #[command(flatten)]
    rule: RuleArguments,
    /// Append every decision to this file, one JSON document a line: routed, kept, requested, fell back, abstained.
    #[arg(long, value_name = "FILE")]
    decision_log: Option<PathBuf>,
    /// Images of an observation that the experts were trained with; the first so many of a client's cameras are taken.
    #[arg(long, value_name = "N", default_value = "2")]
    images: NonZeroUsize,
    /// Tasks whose weights stay in memory at once; each takes as much as the whole model.
    #[arg(long, value_name = "N", default_value = "1")]
    active_tasks: NonZeroUsize,
    /// The address to listen on; other than loopback only on request.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// The port; 0 takes a free one and says which.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Also serve GR00T's clients over ZeroMQ on this port, 5555 in most of them; 0 takes a free one and says which.
    #[cfg(feature = "zmq")]
    #[arg(long, value_name = "PORT")]
    zmq_port: Option<u16>,
    /// A file whose first line clients must send as their API key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    opening: Opening,
}

/// What the server refuses for its size or number.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArguments {
    /// Bytes of one message; memory for messages is at most 5 × this × --max-clients.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().frame_bytes, value_parser = at_least_1)]
    max_frame_bytes: usize,
    /// Requests that wait for the policy; one more is answered with "busy".
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue, value_parser = at_least_1)]
    max_queue: usize,
    /// Clients at once; one more is sent away with HTTP status 503.
    #[arg(long, value_name = "N", default_value_t = Limits::default().clients, value_parser = at_least_1)]
    max_clients: usize,
}

fn at_least_1(text: &str) -> Result<usize, String> {
    text.parse::<NonZeroUsize>().map(NonZeroUsize::get).map_err(|error| error.to_string())
}

impl LimitArguments {
    fn limits(&self) -> Limits {
        let Self { max_frame_bytes: frame_bytes, max_queue: queue, max_clients: clients } = *self;
        Limits { frame_bytes, queue, clients, ..Limits::default() }
    }
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    args.opening.run(&args.policy, args.images, args.active_tasks, Serve { args, console })
}

struct Serve<'a> {
    args: &'a Args,
    console: Console,
}

impl Job for Serve<'_> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, device: Option<Device>) -> Result<Outcome> {
        let Self { args, console } = self;
        ensure!(
            !args.route || policy.routes(),
            "{} has no router; name a task with --task",
            args.policy.display()
        );
        let mut routing = routing(&policy, (args.task.as_deref(), "--task"), args.rule.rule(&policy)?)?;
        if let Routing::Router { every_chunks, .. } = &mut routing {
            *every_chunks = args.every;
        }
        let log = args.decision_log.as_deref().map(|path| DecisionLog::open(path, console)).transpose()?;
        let api_key = args.api_key_file.as_deref().map(api_key).transpose()?;
        let tasks = policy.tasks().join(", ");
        let served = Served { policy: Arc::new(policy), routing, active_tasks: args.active_tasks, device };
        let options = Options {
            address: SocketAddr::new(args.host, args.port),
            #[cfg(feature = "zmq")]
            zmq_address: args.zmq_port.map(|port| SocketAddr::new(args.host, port)),
            api_key,
            limits: args.limits.limits(),
            on_event: Arc::new(move |event: &Event| {
                if let Event::Decided(decision) = event {
                    log.iter().for_each(|log| log.write(decision));
                }
                // One line a chunk would hide all others.
                if !matches!(event, Event::Decided(decision) if !decision.changed) {
                    console.note(&event.to_string());
                }
            }),
            ..Options::default()
        };
        let server = Server::bind(served, options)?;
        console.note(&format!("{}: tasks {tasks}", args.policy.display()));
        console.note(&format!("listening on ws://{}", server.address()));
        #[cfg(feature = "zmq")]
        if let Some(address) = server.zmq_address() {
            console.note(&format!("listening on tcp://{address} for GR00T's clients"));
        }
        server.run_until_signal()?;
        Ok(Outcome::Done)
    }
}

pub(crate) fn api_key(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let key = text.lines().next().unwrap_or_default().trim();
    ensure!(!key.is_empty(), "{} holds no API key: put it on the first line", path.display());
    Ok(key.to_owned())
}
