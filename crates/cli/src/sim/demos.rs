//! Scripted demonstrations as a LeRobot dataset.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use skillweld_drive::LocalPolicy;
use skillweld_eval::{Rollout, agree};
use skillweld_gpu::Device;
use skillweld_policy::backend::Backend;
use skillweld_policy::{Policy, Rule};
use skillweld_recorder::{Dataset, NewFrame, Recorder, RecorderError, Spec};
use skillweld_robot::{CameraStream, ChunkSource, Frame};
use skillweld_robot_sim::Random;
use skillweld_suites::{CONTROL_HZ, Env, EnvOptions, Expert, Observation, Split, Task};

use super::{EmbodimentName, SuiteName};
use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::policy::{Job, Opening, routing};
use crate::progress::Progress;
use crate::serve::served;
use crate::{Outcome, interrupt};

/// Front and wrist.
const PICTURES: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// Layouts of every round of corrections, behind those of demonstrations: what policies were trained on they know too well.
const LED_LAYOUTS: u32 = 1_000_000;
/// Of a chunk, where a policy leads.
const LED_ACTIONS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

const EXAMPLES: &str = "\
Examples:
  skillweld sim demos data/spatial --suite spatial --episodes 50      50 of each task
  skillweld sim demos data/drawer --task goal_open --episodes 20 --noise 0.1
  skillweld sim demos data/corrections --suite spatial --policy expert --base base      where that policy goes, and what to do there
  skillweld dataset inspect data/spatial

The state has eight numbers: the tool's x, y, z in metres, its turn as axis times angle in radians, both fingers in metres. An action has
seven, −1 … 1: a shift of the tool, a turn, the gripper (−1 open, 1 closed), 20 a second. Layouts are those of the training split; what
the expert fails at is left out and the next layout taken. The same command goes on with a dataset that was interrupted.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemosArgs {
    /// The dataset's folder; one that the same command began goes on.
    #[arg(value_name = "DATASET")]
    folder: PathBuf,
    /// All tasks of this suite.
    #[arg(long, required_unless_present = "task")]
    suite: Option<SuiteName>,
    /// Only this task (`skillweld sim tasks`).
    #[arg(long, value_name = "ID", conflicts_with = "suite")]
    task: Option<String>,
    /// Another arm.
    #[arg(long, value_enum, default_value = "so101")]
    embodiment: EmbodimentName,
    /// Demonstrations of each task.
    #[arg(long, value_name = "N", default_value = "10")]
    episodes: NonZeroU32,
    /// How unsteady the hand is, 0 … 1: what it does is off by so much of each move, what is recorded as the action is what it meant.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    noise: f64,
    /// A policy acts first, for a part of the episode that chance decides; from there the expert takes over and is recorded: what to do
    /// where that policy gets to (DAgger with interventions). A folder of a checkpoint.
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// How often that policy and those before it have been corrected, this time included: every round has layouts of its own.
    #[arg(long, value_name = "N", default_value = "1", requires = "policy", value_parser = clap::value_parser!(u32).range(1..=1000))]
    round: u32,
    #[command(flatten)]
    opening: Opening,
    /// Rows and columns of both pictures.
    #[arg(long, value_name = "PIXELS", default_value_t = 96)]
    image_size: usize,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

/// One try of the expert.
struct Attempt {
    task: &'static Task,
    index: u32,
}

/// What came of a task's demonstrations.
#[derive(Default, Clone, Copy)]
struct Tally {
    saved: u32,
    failed: u32,
    frames: u64,
}

pub(super) fn run(args: &DemosArgs, console: Console) -> Result<Outcome> {
    let Some(policy) = &args.policy else {
        let said = args.opening.describe();
        ensure!(
            said.is_empty() && args.opening.base().is_none(),
            "{} says how a policy runs, and none is named; name it by --policy, or leave that out",
            if said.is_empty() { "--base" } else { said.trim() }
        );
        return record(args, console, None);
    };
    console.note(&format!("opening {}", policy.display()));
    args.opening.run(policy, PICTURES, NonZeroUsize::MIN, Lead { args, console })
}

/// Records demonstrations that a policy begins.
struct Lead<'a> {
    args: &'a DemosArgs,
    console: Console,
}

impl Job for Lead<'_> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, device: Option<Device>) -> Result<Outcome> {
        let routing = routing(&policy, (None, "--policy"), Rule::default())?;
        let served =
            served::Served { policy: Arc::new(policy), routing, active_tasks: NonZeroUsize::MIN, device };
        let mut source = LocalPolicy::new(served)?;
        agree(&source.expects())?;
        record(self.args, self.console, Some(&mut source))
    }
}

fn record(args: &DemosArgs, console: Console, mut leader: Option<&mut dyn ChunkSource>) -> Result<Outcome> {
    ensure!((0.0..=1.0).contains(&args.noise), "--noise {} is not in 0 … 1", args.noise);
    let tasks = tasks(args)?;
    let spec = spec(args, &tasks)?;
    let mut recorder = open(&args.folder, spec)?;
    let wanted = args.episodes.get() as usize * tasks.len();
    let before = there(&args.folder)?;
    let there = recorder.episodes();
    ensure!(
        there <= wanted,
        "{} has {there} episodes already, more than the {wanted} that were asked for; name another folder",
        args.folder.display()
    );
    interrupt::install()?;
    let progress = Progress::new(args.json);
    progress.count(wanted, 0);
    let begun = Instant::now();
    let mut tallies = vec![Tally::default(); tasks.len()];
    let mut done = 0;
    for round in 0..args.episodes.get() {
        for (task, tally) in tasks.iter().copied().zip(&mut tallies) {
            // Layouts that the expert failed at have shifted those after them.
            loop {
                let first = if leader.is_some() { args.round * LED_LAYOUTS } else { 0 };
                let attempt = Attempt { task, index: first + round + tally.failed };
                // What was saved before is found again by simulating, which is fast without pictures.
                let record = (done >= there).then_some(&mut recorder);
                match attempt.run(args, record, leader.as_deref_mut())? {
                    Some(frames) => {
                        if done < there {
                            ensure!(
                                before.get(done) == Some(&(task.instruction.to_owned(), frames)),
                                "{} was begun by another command; name another folder",
                                args.folder.display()
                            );
                        }
                        tally.saved += 1;
                        tally.frames += frames;
                        break;
                    }
                    None => tally.failed += 1,
                }
                ensure!(
                    tally.failed <= 10 + args.episodes.get(),
                    "the expert fails at {} too often; less --noise helps",
                    task.id
                );
            }
            done += 1;
            progress.advance(1);
            progress.message(task.id.to_owned());
            if interrupt::requested() && done < wanted {
                bail!(
                    "interrupted: {} of {wanted} demonstrations are in {}; the same command goes on",
                    recorder.episodes(),
                    args.folder.display()
                );
            }
        }
    }
    let finished = recorder.finish()?;
    progress.finish();
    let seconds = begun.elapsed().as_secs_f64();
    if args.json {
        let rows = tasks.iter().zip(&tallies).map(|(task, tally)| {
            json!({"task": task.id, "episodes": tally.saved, "failed": tally.failed, "frames": tally.frames})
        });
        print_json(&json!({
            "dataset": args.folder, "episodes": finished.episodes, "frames": finished.frames,
            "seconds": seconds, "tasks": rows.collect::<Vec<_>>(),
        }))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Demonstrations", args.folder.display());
    page.facts([
        ("episodes", format!("{}, {} frames in all", finished.episodes, finished.frames)),
        ("recorded now", format!("{} in {seconds:.1} s", finished.episodes - there)),
    ]);
    let mut rows = table(["task", "instruction", "episodes", "failed", "frames"]);
    for (task, tally) in tasks.iter().zip(&tallies) {
        rows.add_row([
            cell(Tone::Name, task.id),
            cell(Tone::Plain, task.instruction),
            number(tally.saved),
            number(tally.failed),
            number(tally.frames),
        ]);
    }
    page.table(rows);
    page.print()?;
    Ok(Outcome::Done)
}

fn tasks(args: &DemosArgs) -> Result<Vec<&'static Task>> {
    if let Some(name) = args.suite {
        return Ok(name.suite().tasks().iter().collect());
    }
    let id = args.task.as_deref().unwrap_or_default();
    let found = Task::named(id);
    Ok(vec![found.with_context(|| format!("there is no task {id}; `skillweld sim tasks` lists them"))?])
}

fn spec(args: &DemosArgs, tasks: &[&'static Task]) -> Result<Spec> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let first = tasks.first().context("a suite without tasks")?;
    // Also tells of pictures that cannot be.
    let env = Env::new(first, &options(args, 0))?;
    let stream = |camera: &skillweld_robot_sim::Camera| CameraStream {
        name: camera.name.clone(),
        height: camera.height,
        width: camera.width,
    };
    Ok(Spec {
        robot: format!("{}_sim", env.world().arm().name),
        fps: CONTROL_HZ,
        state: names(&[
            "x",
            "y",
            "z",
            "axis_angle_x",
            "axis_angle_y",
            "axis_angle_z",
            "finger_1",
            "finger_2",
        ]),
        action: names(&["x", "y", "z", "axis_angle_x", "axis_angle_y", "axis_angle_z", "gripper"]),
        units: Vec::new(),
        cameras: env.world().scene.cameras.iter().map(stream).collect(),
        video: false,
        extras: Vec::new(),
        tasks: tasks.iter().map(|task| task.instruction.to_owned()).collect(),
    })
}

/// Task and frames of each episode that is there.
fn there(dataset: &Path) -> Result<Vec<(String, u64)>> {
    let dataset = Dataset::open(dataset)?;
    let episode = |episode: &skillweld_recorder::Episode| (episode.tasks.join("; "), episode.frames as u64);
    Ok(dataset.episodes().iter().map(episode).collect())
}

fn open(dataset: &Path, spec: Spec) -> Result<Recorder> {
    Ok(match dataset.join("meta").join("info.json").exists() {
        true => Recorder::resume(dataset, spec)?,
        false => Recorder::create(dataset, spec)?,
    })
}

fn options(args: &DemosArgs, index: u32) -> EnvOptions {
    EnvOptions {
        split: Split::Training,
        index,
        image_size: args.image_size,
        embodiment: args.embodiment.embodiment(),
        ..EnvOptions::default()
    }
}

impl Attempt {
    /// The frames of an episode in which the expert succeeded; recorded, where there is a recorder.
    fn run(
        &self,
        args: &DemosArgs,
        mut recorder: Option<&mut Recorder>,
        leader: Option<&mut (dyn ChunkSource + '_)>,
    ) -> Result<Option<u64>> {
        let mut env = match leader {
            Some(leader) => self.led(args, leader)?,
            None => Env::new(self.task, &options(args, self.index))?,
        };
        let begun = env.status().steps;
        let mut expert = Expert::noisy(&env, args.noise, self.index.into());
        if let Some(recorder) = &mut recorder {
            recorder.start_episode(self.task.instruction)?;
        }
        let mut status = env.status();
        while !status.success && status.steps < begun + self.task.step_limit {
            let seen = recorder.is_some().then(|| env.observe()).transpose()?;
            let action = expert.act(&env);
            if let (Some(recorder), Some(seen)) = (&mut recorder, seen) {
                add(recorder, seen, &expert.intended())?;
            }
            status = env.step(&action)?;
        }
        if let Some(recorder) = recorder {
            match status.success {
                true => drop(recorder.save_episode()?),
                false => recorder.discard_episode()?,
            }
        }
        Ok(status.success.then_some((status.steps - begun).into()))
    }

    /// The episode where a policy has brought it to, before the task is done and within half of the steps that a trial has.
    fn led(&self, args: &DemosArgs, leader: &mut dyn ChunkSource) -> Result<Env> {
        let rollout = Rollout { image_size: args.image_size, actions_per_chunk: LED_ACTIONS };
        let share = Random::new(u64::from(self.index)).uniform(0.0, 1.0);
        let mut most = self.task.step_limit / 2;
        loop {
            let mut env = Env::new(self.task, &options(args, self.index))?;
            let status = rollout.lead(&mut env, leader, (share * f64::from(most)) as u32)?;
            if !status.success {
                return Ok(env);
            }
            most = status.steps - 1;
        }
    }
}

fn add(recorder: &mut Recorder, seen: Observation, action: &[f64]) -> Result<()> {
    let captured = Instant::now();
    let images: Vec<Frame> = seen.images.into_iter().map(|image| image.into_frame(captured)).collect();
    let state = seen.state.map(f64::from);
    let frame = NewFrame { state: &state, action, images: &images, extras: &[] };
    loop {
        match recorder.add_frame(&frame) {
            // A simulator is faster than an encoder, and can wait for it.
            Err(RecorderError::Behind { .. }) => std::thread::sleep(Duration::from_millis(2)),
            added => return Ok(added?),
        }
    }
}
