//! Trials on a Ray cluster, through the REST interface of its jobs.

mod api;
mod script;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::evaluation::with_tail;
use crate::ledger::Outcome;
use crate::score::Tail;
use crate::sweep::Engine;
use crate::{EvalCommand, Point, SweepError};
use api::{Api, Job};

/// The first pause between two questions about a job; it grows to [`RayOptions::longest_pause`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long a head that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A pause is slept in pieces, so that a stop is noticed.
const PIECE: Duration = Duration::from_millis(50);

/// Where trials run, and what each takes of the cluster.
#[derive(Debug, Clone)]
pub struct RayOptions {
    /// Of the head's dashboard, such as `http://127.0.0.1:8265`.
    pub address: String,
    /// What the head asks for where it is started with `RAY_AUTH_MODE=token`.
    pub token: Option<String>,
    /// CPU cores of a trial. With 0 of everything Ray runs it on the head.
    pub cpus: f64,
    /// GPUs of a trial.
    pub gpus: f64,
    /// Plugins for `skillweld merge`, where the workers find them.
    pub plugins: Vec<String>,
    /// Threads of a trial's merge; `None` for one a core that the worker has.
    pub threads: Option<usize>,
    /// Between two questions about a job.
    pub longest_pause: Duration,
}

/// Each point is a job that merges into a temporary folder of its worker, evaluates there once for each seed, and removes it.
///
/// Workers need `skillweld` on their `PATH`, and the recipe and its models under the same paths as here: a shared file
/// system.
pub struct Ray<'a> {
    api: Api,
    recipe: String,
    command: &'a EvalCommand,
    options: RayOptions,
    /// What this sweep's jobs are called.
    prefix: String,
    submitted: AtomicU64,
}

impl<'a> Ray<'a> {
    /// Looks for the cluster, and stops what jobs an earlier run of this sweep has left there.
    ///
    /// # Errors
    /// [`SweepError::Ray`], [`SweepError::Io`].
    pub fn connect(
        dir: &Path,
        recipe: &Path,
        command: &'a EvalCommand,
        options: RayOptions,
    ) -> Result<Self, SweepError> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(SweepError::io("find", path));
        let recipe = absolute(recipe)?.to_string_lossy().into_owned();
        let sweep = blake3::hash(absolute(dir)?.as_os_str().as_encoded_bytes());
        let prefix = format!("skillweld-{}-", &sweep.to_hex()[..12]);
        let api = Api::new(&options)?;
        api.check_version()?;
        for job in api.jobs()?.iter().filter(|job| job.id.starts_with(&prefix) && !job.has_ended()) {
            api.stop(&job.id)?;
        }
        Ok(Self { api, recipe, command, options, prefix, submitted: AtomicU64::new(0) })
    }

    /// Waits for the end of a job; stops it once `cancelled` says so, or if it cannot be watched any longer.
    fn wait(&self, id: &str, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<Job, SweepError> {
        let (mut pause, mut heard) = (FIRST_PAUSE, Instant::now());
        loop {
            match self.api.job(id) {
                Ok(job) if job.has_ended() => return Ok(job),
                Ok(_) => heard = Instant::now(),
                Err(error) if heard.elapsed() > PATIENCE => return Err(error),
                Err(_) => {}
            }
            let slept = Instant::now();
            while slept.elapsed() < pause {
                if cancelled() {
                    return Err(SweepError::Stopped);
                }
                std::thread::sleep(PIECE.min(pause));
            }
            pause = (pause * 3 / 2).min(self.options.longest_pause);
        }
    }
}

impl Engine for Ray<'_> {
    fn evaluate(
        &self,
        point: &Point,
        seeds: &[u64],
        cancelled: &(dyn Fn() -> bool + Sync),
        done: &mut dyn FnMut(u64, Outcome) -> Result<(), SweepError>,
    ) -> Result<(), SweepError> {
        let how = (self.options.plugins.as_slice(), self.options.threads);
        let entrypoint = script::entrypoint(&self.recipe, point, seeds, self.command, how);
        // Ray never takes a name twice, not even of a job that has ended.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let number = self.submitted.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{}-{now}-{number}", self.prefix, point.index);
        self.api.submit(&id, &entrypoint, &self.options, &point.label())?;
        let job = match self.wait(&id, cancelled) {
            Ok(job) => job,
            Err(error) => {
                // What cannot be stopped now is stopped by the next start.
                let _ = self.api.stop(&id);
                return Err(error);
            }
        };
        let logs = self.api.logs(&id)?;
        for &seed in seeds {
            let why = || with_tail(&format!("job {id}: {}", job.end()), &Tail::of_text(&logs));
            done(seed, script::outcome(&logs, seed).unwrap_or_else(|| Outcome::Failed(why())))?;
        }
        Ok(())
    }
}
