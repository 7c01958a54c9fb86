//! `skillweld drive`.

mod events;
mod keys;
mod recording;
mod source;
pub(crate) mod summary;
mod view;

use std::io::IsTerminal;
use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use skillweld_robot::{
    ActionSource, DriveOptions, DryRun, LimitOptions, Observer, Robot, StopSwitch, Summary, WithLeader,
};

use crate::Outcome;
use crate::arm::{LeaderArguments, RobotArguments};
use crate::console::Console;
pub(crate) use events::EventLog;
pub(crate) use keys::Keys;
pub(crate) use recording::{Episodes, EpisodesOptions, Progress, open_recorder};
pub(crate) use view::View;

const EXAMPLES: &str = "\
Examples:
  # a simulated arm, this very command and no robot
  skillweld drive --policy merged --task 'put the red cube on the tray' --view
  # an SO-101 on USB with two cameras; the router picks the expert from the first observation
  skillweld drive --robot so101 --port /dev/ttyACM0 --id my_arm --camera front=v4l2:/dev/video0 \\
      --camera wrist=v4l2:/dev/video2 --policy merged --task 'put the red cube on the tray' --view
  # the policy on another machine; record what happens
  skillweld drive --robot so101 --port /dev/ttyACM0 --policy ws://gpu-box:8000 --task '…' --record data/run1
  # look first: observe, infer, print what would be sent
  skillweld drive --robot so101 --port /dev/ttyACM0 --policy merged --task '…' --dry-run --seconds 10
  # correct it by hand: key i, and the leader arm takes over
  skillweld drive --robot so101 --port /dev/ttyACM0 --policy merged --task '…' --leader-port /dev/ttyACM1

Keys: space holds and goes on, i gives the arm to the leader and back, q, Esc or Ctrl-C stop: the arm holds, then torque is
off. A killed process cannot turn torque off; a second one that watches over it does.

Limits are always on: joint ranges from the calibration, velocity, distance of a goal from where the joint is; NaN is refused; stale
images, joints or actions make the arm hold, then let go. Exit code 1 if the run ended by a fault.";

/// Drive a robot by a policy.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    policy: source::PolicyArguments,
    /// What the robot is to do, in words.
    #[arg(long, value_name = "TEXT")]
    task: Option<String>,
    #[command(flatten)]
    robot: RobotArguments,
    #[command(flatten)]
    pace: PaceArguments,
    #[command(flatten)]
    leader: LeaderArguments,
    /// Observe and infer, but send nothing: print what would be sent.
    #[arg(long)]
    dry_run: bool,
    /// Record the run as an episode of this LeRobot dataset, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Show joints, latency, queue, routing and safety in the terminal.
    #[arg(long)]
    view: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long, conflicts_with = "view")]
    json: bool,
}

/// How often, for how long, how far.
#[derive(clap::Args)]
#[command(next_help_heading = "Loop and limits")]
pub(crate) struct PaceArguments {
    /// Control steps a second: the rate that the policy was trained at.
    #[arg(long, value_name = "HZ", default_value_t = 30)]
    fps: u32,
    /// Commands a second, a multiple of --fps: goals in between are interpolated.
    #[arg(long, value_name = "HZ")]
    send_hz: Option<u32>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<NonZeroU64>,
    /// The most that a goal may lie from where its joint is, for every joint in its unit (LeRobot's max_relative_target)
    /// [default: what it covers in a tenth of a second].
    #[arg(long, value_name = "STEP")]
    max_step: Option<f64>,
}

impl PaceArguments {
    pub(crate) fn options(&self, joints: usize) -> Result<DriveOptions> {
        if let Some(step) = self.max_step {
            ensure!(step > 0.0 && step.is_finite(), "--max-step must be above 0, not {step}");
        }
        let hz = f64::from(self.fps);
        Ok(DriveOptions {
            hz,
            send_hz: self.send_hz.map(f64::from),
            steps: self.seconds.map(|seconds| seconds.get().saturating_mul(u64::from(self.fps))),
            limits: LimitOptions {
                max_step: self.max_step.map(|step| vec![step; joints]),
                ..LimitOptions::default()
            },
            ..DriveOptions::default()
        })
    }

    pub(crate) fn fps(&self) -> u32 {
        self.fps
    }
}

/// A switch that Ctrl-C, SIGTERM and SIGHUP throw. However often: nothing ends the process before torque is off.
pub(crate) fn switch() -> Result<StopSwitch> {
    let switch = StopSwitch::new();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, switch.stop_flag())?;
    }
    Ok(switch)
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    ensure!(!args.view || std::io::stdout().is_terminal(), "--view needs a terminal");
    ensure!(!(args.dry_run && args.record.is_some()), "--dry-run sends nothing that could be recorded");
    let robot = args.robot.robot()?;
    let description = robot.describe().clone();
    let options = args.pace.options(description.joints.len())?;
    let switch = switch()?;
    args.policy.with_source(args.task.as_deref(), &description, console, |source| {
        let policy = source.name.clone();
        let executor = source.executor;
        let run = Run { args, console, options, switch: &switch };
        match args.leader.leader(args.robot.units())? {
            Some(leader) => {
                let leader = skillweld_robot::Leader::new(leader);
                run.go(robot, &mut WithLeader::new(executor, leader, switch.clone()), &policy)
            }
            None => {
                let mut executor = executor;
                run.go(robot, &mut executor, &policy)
            }
        }
    })
}

struct Run<'a> {
    args: &'a Args,
    console: Console,
    options: DriveOptions,
    switch: &'a StopSwitch,
}

impl Run<'_> {
    fn go(self, robot: Box<dyn Robot>, source: &mut dyn ActionSource, policy: &str) -> Result<Outcome> {
        let Self { args, console, ref options, switch } = self;
        let description = robot.describe().clone();
        let task = args.task.as_deref().unwrap_or("drive");
        let progress = Progress::default();
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        if let Some(dir) = &args.record {
            let recorder = open_recorder(dir, &description, args.pace.fps(), task)?;
            let whole = EpisodesOptions { count: Some(1), episode: None, reset: None };
            observers.push(Box::new(Episodes::new(
                recorder,
                task,
                whole,
                (switch.clone(), progress.clone()),
            )));
        }
        let keys = Keys::listen(switch.clone(), progress.clone());
        if args.view {
            let title = format!("{policy} drives {}", description.kind);
            observers.push(Box::new(View::open(
                &title,
                task,
                &description,
                (switch.clone(), progress.clone()),
            )?));
        } else {
            observers.push(Box::new(EventLog::new(console)));
        }
        if !args.json && !args.view {
            console.note(&format!(
                "{policy} drives {} at {} Hz; q or Ctrl-C stops",
                description.kind, options.hz
            ));
        }
        let (summary, report) = if args.dry_run {
            let mut dry = DryRun::new(robot);
            let summary = skillweld_robot::drive(&mut dry, source, options, &mut observers, switch)?;
            (summary, Some(dry.report().clone()))
        } else {
            let mut robot = robot;
            (skillweld_robot::drive(&mut robot, source, options, &mut observers, switch)?, None)
        };
        drop(observers);
        drop(keys);
        finish(&summary, report.as_ref(), &progress, args.json, console)
    }
}

/// Says how the run went.
pub(crate) fn finish(
    summary: &Summary,
    dry: Option<&skillweld_robot::DryRunReport>,
    progress: &Progress,
    json: bool,
    console: Console,
) -> Result<Outcome> {
    let recorded = progress.saved();
    if json {
        crate::console::print_json(&summary::document(summary, dry, &recorded))?;
    } else {
        summary::page(summary, dry, &recorded, console).print()?;
    }
    progress.problems().iter().for_each(|problem| console.warn(problem));
    Ok(if summary.is_success() && progress.problems().is_empty() { Outcome::Done } else { Outcome::Bad })
}
