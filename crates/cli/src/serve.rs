//! `skillweld serve`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use skillweld_policy::{Decision, Observation, Policy, PolicyError, Routing, Session};
use skillweld_serve::{Array, Event, InferError, Metadata, Options, Reply, Server};

use crate::Outcome;
use crate::console::Console;
use crate::policy::{Opening, RuleArguments, decision_json, routing, stages};

const EXAMPLES: &str = "\
Examples:
  skillweld serve merged                                   route on each client's first observation
  skillweld serve merged --task goal --port 8001           one task
  skillweld serve merged --every 4 --fallback object       route again every four chunks
  skillweld serve merged --host 0.0.0.0 --api-key-file key reachable from other machines

Clients of openpi (LIBERO, DROID, ALOHA) and of StarVLA connect to ws://HOST:PORT as they are. GET /healthz says
200 when the policy is warm, GET /metrics has Prometheus' text. Ctrl-C or SIGTERM ends what runs and stops.";

/// Serve a policy to robots: openpi's websocket protocol.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A merged checkpoint, or a single expert as training leaves it.
    policy: PathBuf,
    /// Run this task; clients may still ask for another.
    #[arg(long, value_name = "T", conflicts_with_all = ["route", "candidates", "min_probability", "fallback", "every"])]
    task: Option<String>,
    /// Let the router choose; an error if the checkpoint has none [default where it has one].
    #[arg(long)]
    route: bool,
    /// Route again every so many chunks, not only on the first observation.
    #[arg(long, value_name = "CHUNKS")]
    every: Option<NonZeroUsize>,
    #[command(flatten)]
    rule: RuleArguments,
    /// Append each routing decision to this file, one JSON document a line.
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
    /// A file whose first line clients must send as their API key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let policy = args.opening.open(&args.policy, args.images, args.active_tasks)?;
    ensure!(
        !args.route || policy.routes(),
        "{} has no router; name a task with --task",
        args.policy.display()
    );
    let mut routing = routing(&policy, args.task.as_deref(), args.rule.rule(&policy)?)?;
    if let Routing::Router { every_chunks, .. } = &mut routing {
        *every_chunks = args.every;
    }
    let open_log = |path: &PathBuf| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("cannot write {}", path.display())).map(Mutex::new)
    };
    let decision_log = args.decision_log.as_ref().map(open_log).transpose()?;
    let api_key = args.api_key_file.as_deref().map(api_key).transpose()?;
    let tasks = policy.tasks().join(", ");
    let served = Served { policy: Arc::new(policy), routing, images: args.images.get(), decision_log };
    let options = Options {
        address: SocketAddr::new(args.host, args.port),
        api_key,
        on_event: Arc::new(move |event: &Event| console.note(&event.to_string())),
        ..Options::default()
    };
    let server = Server::bind(served, options)?;
    console.note(&format!("{}: tasks {tasks}", args.policy.display()));
    console.note(&format!("listening on ws://{}", server.address()));
    server.run_until_signal()?;
    Ok(Outcome::Done)
}

fn api_key(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let key = text.lines().next().unwrap_or_default().trim();
    ensure!(!key.is_empty(), "{} holds no API key: put it on the first line", path.display());
    Ok(key.to_owned())
}

/// The policy as the server sees it.
struct Served {
    policy: Arc<Policy>,
    /// What a session does unless its client names a task.
    routing: Routing,
    images: usize,
    decision_log: Option<Mutex<File>>,
}

/// One connection's episode.
struct Episode {
    session: Session<Arc<Policy>>,
    /// The task that the last request named.
    asked: Option<usize>,
    /// How the task in use was chosen.
    decision: Option<Decision>,
}

impl skillweld_serve::Policy for Served {
    type Session = Episode;

    fn metadata(&self) -> Metadata {
        let shape = self.policy.shape();
        let name = self
            .policy
            .dir()
            .file_name()
            .map_or_else(|| "policy".into(), |name| name.to_string_lossy().into());
        Metadata {
            name,
            images: self.images,
            state_dim: Some(shape.proprio_dim),
            action_horizon: shape.chunk_len,
            action_dim: shape.action_dim,
            tasks: self.policy.tasks().to_vec(),
            prompt: true,
            extra: Vec::new(),
        }
    }

    fn session(&self) -> Episode {
        let session = Session::new(Arc::clone(&self.policy), self.routing.clone());
        Episode { session, asked: None, decision: None }
    }

    fn infer(
        &self,
        episode: &mut Episode,
        request: skillweld_serve::Observation,
    ) -> Result<Reply, InferError> {
        let asked =
            request.task.as_deref().map(|task| self.policy.task_index(task)).transpose().map_err(refused)?;
        if asked != episode.asked {
            episode.session.set_routing(asked.map_or_else(|| self.routing.clone(), Routing::Fixed));
            (episode.asked, episode.decision) = (asked, None);
        }
        let observation = observation(request)?;
        let step = episode.session.step(&observation).map_err(refused)?;
        if let Some(decision) = step.decision {
            self.log(&decision);
            episode.decision = Some(decision);
        }
        let (chunk, dimensions) = step.actions.dim();
        let values: Vec<f32> = step.actions.iter().copied().collect();
        let actions = Array::from_f32(&[chunk, dimensions], &values)
            .map_err(|error| InferError::Failed(error.to_string()))?;
        let routing = episode.decision.as_ref().map(|decision| self.routing_reply(step.task, decision));
        let timing_ms = stages(&step.latency).map(|(name, ms)| (name.to_owned(), ms)).to_vec();
        Ok(Reply { actions, extra: Vec::new(), routing, timing_ms })
    }

    fn warm_up(&self) -> Result<(), InferError> {
        let shape = self.policy.shape();
        let black = ndarray::Array3::zeros((shape.image_side, shape.image_side, 3));
        let images = vec![black.view(); self.images];
        let observation = Observation::new(&images, &vec![0.0; shape.proprio_dim], "warm up");
        // The first task's weights are in memory already.
        let mut session = self.policy.session_with(Routing::Fixed(0));
        session.step(&observation).map(drop).map_err(refused)
    }
}

impl Served {
    fn routing_reply(&self, task: usize, decision: &Decision) -> skillweld_serve::Routing {
        let name = |task: usize| self.policy.tasks()[task].clone();
        let scores = decision.candidates.iter().map(|c| (name(c.task), f64::from(c.score))).collect();
        skillweld_serve::Routing { task: name(task), scores, margin: f64::from(decision.margin) }
    }

    fn log(&self, decision: &Decision) {
        let Some(log) = &self.decision_log else { return };
        let time_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |time| time.as_secs_f64());
        let line = json!({"unix_time_s": time_s, "decision": decision_json(&self.policy, decision)});
        let mut file = log.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop a robot; the decision is in the reply and in the server's own log as well.
        let _ = writeln!(file, "{line}");
    }
}

fn observation(request: skillweld_serve::Observation) -> Result<Observation, InferError> {
    let image = |image: skillweld_serve::Image| {
        let shape = (image.height, image.width, 3);
        let array = ndarray::Array3::from_shape_vec(shape, image.rgb.to_vec());
        array.map_err(|error| InferError::Refused(format!("{}: {error}", image.name)))
    };
    let images = request.images.into_iter().map(image).collect::<Result<_, _>>()?;
    let state = request.state.into_iter().map(f64::from).collect();
    Ok(Observation::Raw { images, state, instruction: request.prompt })
}

fn refused(error: PolicyError) -> InferError {
    match error {
        PolicyError::Observation(_) | PolicyError::Abstained { .. } => InferError::Refused(error.to_string()),
        other => InferError::Failed(other.to_string()),
    }
}
