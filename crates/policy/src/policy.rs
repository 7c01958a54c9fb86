//! A checkpoint, single or merged, ready to answer observations.

mod preparation;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use skillweld_merged::MergedCheckpoint;
use skillweld_router::{Calibration, Rule};

use crate::active::{ActiveTasks, MakeBackend};
use crate::backend::{Backend, Result};
use crate::batch::{Answer, Queue, Request};
use crate::config::Config;
use crate::cpu::Cpu;
use crate::forward::{Model, ModelOptions};
use crate::observation::Observation;
use crate::session::{Routing, Session};
use crate::statistics::{DatasetStatistics, Statistics};
use crate::vision::CHANNELS;
use crate::{ActionSpace, PolicyError, batch, calibration, routing};
use preparation::Preparation;
pub(crate) use preparation::Prepared;

/// How to open a policy.
#[derive(Debug, Clone)]
pub struct PolicyOptions {
    /// How its model is opened. `model.base` also names the pretrained weights of merged checkpoints that lack them.
    pub model: ModelOptions,
    /// Whose statistics count, where a task has those of several datasets.
    pub dataset: Option<String>,
    /// How many camera images an observation holds, as the experts were trained. No file of a checkpoint says it, and the
    /// model would take any number and give actions that look plausible. The published LIBERO experts take two, the scene
    /// and the wrist; ALOHA's take three.
    pub images: NonZeroUsize,
    /// How many tasks keep their weights in memory at once. Each takes as much as the whole model; a task that is not
    /// among them is written over the one that was used longest ago, in place and without touching the disk's files
    /// beyond their mapped pages.
    pub active_tasks: NonZeroUsize,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            model: ModelOptions::default(),
            dataset: None,
            images: const { NonZeroUsize::new(2).unwrap() },
            active_tasks: NonZeroUsize::MIN,
        }
    }
}

/// A policy: one model whose weights become those of the task at hand.
///
/// ```no_run
/// # fn camera() -> ndarray::Array3<u8> { ndarray::Array3::zeros((256, 256, 3)) }
/// use skillweld_policy::{Observation, Policy};
///
/// let policy = Policy::open("merged")?;
/// let mut session = policy.session()?;
/// let (front, wrist) = (camera(), camera());
/// let state = [0.1, 0.0, 0.3, 3.1, 0.0, 0.0, 0.04, -0.04];
/// let step = session.step(&Observation::new(&[front.view(), wrist.view()], &state, "open the drawer"))?;
/// println!("{}: first action {}", policy.tasks()[step.task], step.actions.row(0));
/// # Ok::<(), skillweld_policy::PolicyError>(())
/// ```
pub struct Policy<B: Backend = Cpu> {
    dir: PathBuf,
    tasks: Vec<String>,
    statistics: Vec<Statistics>,
    /// Images and text into tensors; or why only prepared observations can be taken.
    preparation: std::result::Result<Preparation, String>,
    routes: bool,
    /// One a task, where the checkpoint has been calibrated.
    calibrations: Option<Vec<Calibration>>,
    shape: Shape,
    action_space: Option<ActionSpace>,
    channels_per_image: usize,
    active: Mutex<ActiveTasks<B>>,
    /// Sessions that wait for a forward.
    queue: Queue<B::Matrix>,
}

/// Sizes of what a policy takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Values of the robot's state.
    pub proprio_dim: usize,
    /// Actions of a chunk.
    pub chunk_len: usize,
    /// Values of an action.
    pub action_dim: usize,
    /// Camera images of an observation.
    pub images: usize,
    /// Side of the images that the model sees, in pixels; cameras may give any size.
    pub image_side: usize,
}

impl Policy {
    /// Opens a merged checkpoint, of Skillweld or of the published code, or a single expert as published.
    ///
    /// # Errors
    /// Any [`PolicyError`] of reading: what is missing, contradicts something else or is not supported, by name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &PolicyOptions::default())
    }

    /// As [`Policy::open`].
    ///
    /// # Errors
    /// As [`Policy::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &PolicyOptions) -> Result<Self> {
        let (threads, precision) = (options.model.threads, options.model.precision);
        Self::open_on(path, options, move || Ok(Cpu::new(threads, precision)))
    }
}

impl<B: Backend> Policy<B> {
    /// As [`Policy::open_with`], on backends that `backend` makes, one for each task in memory. `threads` and `precision`
    /// of the options are the processor's, and not looked at.
    ///
    /// # Errors
    /// As [`Policy::open`], and whatever the backend refuses.
    pub fn open_on(
        path: impl AsRef<Path>,
        options: &PolicyOptions,
        backend: impl Fn() -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let dir = path.as_ref();
        if MergedCheckpoint::is_at(dir) {
            Self::open_merged(dir, options, Box::new(backend))
        } else {
            Self::open_single(dir, options, backend()?)
        }
    }

    fn open_merged(dir: &Path, options: &PolicyOptions, backend: MakeBackend<B>) -> Result<Self> {
        let merged = MergedCheckpoint::open_with_base(dir, options.model.base.as_deref())?;
        let tasks = merged.tasks().to_vec();
        if tasks.is_empty() {
            return Err(PolicyError::Checkpoint {
                path: dir.to_owned(),
                problem: "its recipe names no task: give every model a `name:` and merge again".to_owned(),
            });
        }
        let statistics = (0..tasks.len()).map(|task| merged_statistics(&merged, task, options));
        let statistics = statistics.collect::<Result<_>>()?;
        let config = Config::open(&dir.join("config.json"))?;
        let routes = tasks.len() > 1 && !merged.router(0).is_empty();
        let active = ActiveTasks::of_merged(merged, config, options, backend)?;
        let directions: Vec<usize> = (0..tasks.len()).map(|task| active.directions(task)).collect();
        let calibrations = if routes { calibration::read(dir, &tasks, &directions)? } else { None };
        let policy = Self::new(dir, options, tasks, statistics, active)?;
        Ok(Self { routes, calibrations, ..policy })
    }

    fn open_single(dir: &Path, options: &PolicyOptions, backend: B) -> Result<Self> {
        let model = Model::open_on(dir, &options.model, backend)?;
        let statistics = single_statistics(dir, model.config(), options)?;
        let tasks = vec![statistics.name().to_owned()];
        Self::new(dir, options, tasks, vec![statistics], ActiveTasks::of_single(model))
    }

    /// One that does not route.
    fn new(
        dir: &Path,
        options: &PolicyOptions,
        tasks: Vec<String>,
        statistics: Vec<Statistics>,
        mut active: ActiveTasks<B>,
    ) -> Result<Self> {
        let model = active.current();
        let (chunk_len, action_dim) = model.expert().chunk();
        let proprio_dim = model.expert().proprio_dim();
        for (task, statistics) in tasks.iter().zip(&statistics) {
            let found = (statistics.proprio_dim().unwrap_or(proprio_dim), statistics.action_dim());
            if found != (proprio_dim, action_dim) {
                return Err(PolicyError::Checkpoint {
                    path: dir.to_owned(),
                    problem: format!(
                        "the statistics of `{task}` are of {} state and {} action dimensions, the model's are \
                         {proprio_dim} and {action_dim}",
                        found.0, found.1
                    ),
                });
            }
        }
        let action_space = model.config().action_space.clone();
        if let Some(space) = &action_space {
            space.check(model.config(), action_dim)?;
        }
        let image_side = model.config().towers[0].image_side;
        let shape = Shape { proprio_dim, chunk_len, action_dim, images: options.images.get(), image_side };
        let channels_per_image = CHANNELS * model.config().towers.len();
        let base = options.model.base.as_deref();
        let preparation = Preparation::open(dir, base, model.config()).map_err(|error| error.to_string());
        let (dir, active) = (dir.to_owned(), Mutex::new(active));
        Ok(Self {
            dir,
            tasks,
            statistics,
            preparation,
            routes: false,
            calibrations: None,
            shape,
            action_space,
            channels_per_image,
            active,
            queue: Queue::default(),
        })
    }

    /// The directory that was opened.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of the tasks: of a merged checkpoint its experts', of a single expert that of its dataset.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Index of a task by its name.
    ///
    /// # Errors
    /// [`PolicyError::UnknownTask`] with the names that there are.
    pub fn task_index(&self, name: &str) -> Result<usize> {
        self.tasks.iter().position(|task| task == name).ok_or_else(|| {
            let nearest = skillweld_spelling::nearest(name, self.tasks.iter().map(String::as_str));
            let hint = nearest.map_or_else(String::new, |task| format!("did you mean `{task}`? "));
            let tasks = format!("{hint}tasks are {}", self.tasks.join(", "));
            PolicyError::UnknownTask { name: name.to_owned(), tasks }
        })
    }

    /// True when the checkpoint has a router and something to choose from.
    pub fn routes(&self) -> bool {
        self.routes
    }

    /// True when the router compares by what is usual for each task, unless a rule says otherwise.
    pub fn is_calibrated(&self) -> bool {
        self.calibrations.is_some()
    }

    /// Sizes of what it takes and gives.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What the numbers of its actions mean, if its `config.json` says so.
    pub fn action_space(&self) -> Option<&ActionSpace> {
        self.action_space.as_ref()
    }

    /// A session that routes on its first observation where the checkpoint can, and runs the only task where there is one.
    ///
    /// # Errors
    /// As [`Policy::default_routing`].
    pub fn session(&self) -> Result<Session<&Self, B>> {
        Ok(self.session_with(self.default_routing()?))
    }

    /// What [`Policy::session`] does about tasks.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] naming the tasks when there are several and no router: one must be named, with
    /// [`Routing::Fixed`].
    pub fn default_routing(&self) -> Result<Routing> {
        match self.tasks.len() {
            _ if self.routes => Ok(Routing::Router { rule: Rule::default(), every_chunks: None }),
            1 => Ok(Routing::Fixed(0)),
            _ => Err(PolicyError::Checkpoint {
                path: self.dir.clone(),
                problem: format!(
                    "has no router to choose a task with; name one of {}, or merge again with `router:`",
                    self.tasks.join(", ")
                ),
            }),
        }
    }

    /// A session with a task fixed, or another rule for choosing one.
    pub fn session_with(&self, routing: Routing) -> Session<&Self, B> {
        Session::new(self, routing)
    }

    /// Tasks whose weights are in memory, the one used longest ago first. Waits for whoever computes now.
    pub fn tasks_in_memory(&self) -> Vec<usize> {
        self.active().tasks().collect()
    }

    /// Waits for whoever computes now.
    pub(crate) fn active(&self) -> MutexGuard<'_, ActiveTasks<B>> {
        // A panic in the middle of a forward leaves weights as they were; switching marks its slot before it writes.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A forward, perhaps together with other sessions'.
    pub(crate) fn answer(&self, request: Request) -> Result<Answer<B::Matrix>> {
        self.queue.answer(request, |requests| batch::answer_all(&mut self.active(), requests))
    }

    pub(crate) fn statistics(&self, task: usize) -> &Statistics {
        &self.statistics[task]
    }

    /// Where an observation lies in a task's router subspaces, from a forward under that task's weights: what a [`Calibration`] is made of.
    ///
    /// # Errors
    /// As [`Session::route`](crate::Session::route).
    pub fn router_projections(&self, observation: &Observation, task: usize) -> Result<Vec<f64>> {
        observation.check_finite()?;
        let prepared = self.prepare(observation)?;
        routing::project(&mut self.active(), &prepared, (task, &self.tasks))
    }

    /// Scores every task that `rule` allows; see [`routing::route`]. `running` is the task that goes on if nobody else is
    /// named.
    pub(crate) fn route(
        &self,
        active: &mut ActiveTasks<B>,
        prepared: &Prepared<'_>,
        rule: &Rule,
        running: Option<usize>,
    ) -> Result<routing::Routed<B::Matrix>> {
        let calibrations = self.calibrations.as_deref().filter(|_| !rule.raw_scores);
        routing::route(active, prepared, rule, rule.fallback.or(running), &self.tasks, calibrations)
    }
}

fn merged_statistics(merged: &MergedCheckpoint, task: usize, options: &PolicyOptions) -> Result<Statistics> {
    let path = merged.dir().join("dataset_statistics.json");
    let name = &merged.tasks()[task];
    let statistics = merged.statistics(task).cloned().ok_or_else(|| PolicyError::Checkpoint {
        path: path.clone(),
        problem: format!("no statistics of task `{name}`: actions cannot be brought into the robot's units"),
    })?;
    DatasetStatistics::from_json(&path, &Value::Object(statistics))?.select(options.dataset.as_deref(), None)
}

/// Of the expert's own file; else of `norm_stats` in the config, its own or, for an adapter alone, its base's.
fn single_statistics(dir: &Path, config: &Config, options: &PolicyOptions) -> Result<Statistics> {
    let path = dir.join("dataset_statistics.json");
    let statistics = match &config.norm_stats {
        Some(statistics) if !path.is_file() => DatasetStatistics::from_json(config.path(), statistics)?,
        _ => DatasetStatistics::open(&path)?,
    };
    statistics.select(options.dataset.as_deref(), None)
}
