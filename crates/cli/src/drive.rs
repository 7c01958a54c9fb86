//! `skillweld drive`.

mod aside;
mod events;
mod keys;
mod recording;
mod rerun;
mod session;
mod source;
mod summary;
mod view;

use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use skillweld_robot::{DriveOptions, Leader, Robot, WithLeader};

use crate::Outcome;
use crate::arm::{LeaderArguments, RobotArguments};
use crate::console::Console;
pub(crate) use recording::{Book, EpisodesOptions};
use rerun::Log;
pub(crate) use session::{Session, Signals};
pub(crate) use view::check as check_view;

const EXAMPLES: &str = "\
Examples:
  # a simulated arm, no robot: with the policy that `cargo xtask demo` makes
  skillweld drive --policy target/demo/so101/merged --task 'put the red cube on the tray' --view
  # an SO-101 on USB with two cameras; the router picks the expert from the first observation
  skillweld drive --robot so101 --port /dev/ttyACM0 --id my_arm --camera front=v4l2:/dev/video0 \\
      --camera wrist=v4l2:/dev/video2 --policy merged --task 'put the red cube on the tray' --view
  # the policy on another machine; record what happens
  skillweld drive --robot so101 --port /dev/ttyACM0 --policy ws://gpu-box:8000 --task '…' --record data/run1
  # every step for the Rerun viewer (a program built with --features rerun)
  skillweld drive --policy target/demo/so101/merged --task 'put the red cube on the tray' --rerun run.rrd
  # look first: observe, infer, print once a second what would be sent
  skillweld drive --robot so101 --port /dev/ttyACM0 --policy merged --task '…' --dry-run --seconds 10
  # correct it by hand: key i, and the leader arm takes over
  skillweld drive --robot so101 --port /dev/ttyACM0 --policy merged --task '…' --leader-port /dev/ttyACM1

Keys: space holds, i gives the arm to the leader, which it comes to slowly, g goes on with the policy, q, Esc or Ctrl-C stop: the
arm holds, then torque is off (Ctrl-Z does the same). A process that is killed, or hangs, cannot turn torque off; a second one that
watches over it does.

With --record: ← (or r) forgets the episode and begins it again; a stop saves it as it is. Torque is off by then: a further
Ctrl-C ends the program, and what is not saved yet is lost.

Limits are always on: joint ranges from the calibration, velocity, distance of a goal from where the joint is; NaN is refused; stale
images, joints or actions make the arm hold, then let go. Exit code 0 for a run that ended as it should, also by a stop; 1 if it
ended by a fault, or could not be recorded.";

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
    /// Observe and infer, but send no goals: print what would be sent. The arm holds where it is, with torque.
    #[arg(long)]
    dry_run: bool,
    /// Record the run as an episode of this LeRobot dataset, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Record images as mp4 instead of PNG: a small part of the room, and a little is lost. Needs ffmpeg; SKILLWELD_FFMPEG names the
    /// program where that is not its name.
    #[arg(long, requires = "record")]
    #[cfg_attr(not(feature = "mp4"), arg(hide = true))]
    video: bool,
    /// Log every step for the Rerun viewer: a new file, OUT.rrd, or the address of a viewer that runs,
    /// rerun+http://HOST:PORT/proxy.
    #[arg(long, value_name = "TO")]
    #[cfg_attr(not(feature = "rerun"), arg(hide = true))]
    rerun: Option<String>,
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
            max_step: self.max_step.map(|step| vec![step; joints]),
        })
    }

    pub(crate) fn fps(&self) -> u32 {
        self.fps
    }
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    args.robot.check()?;
    view::check(args.view)?;
    ensure!(!(args.dry_run && args.record.is_some()), "--dry-run sends nothing that could be recorded");
    let rerun = args.rerun.as_deref().map(Log::check).transpose()?;
    let robot = args.robot.robot()?;
    let description = robot.describe().clone();
    let options = args.pace.options(description.joints.len())?;
    let signals = Signals::listen()?;
    args.policy.with_source(args.task.as_deref(), &description, console, |source| {
        let task = args.task.as_deref().unwrap_or("drive");
        let book = args
            .record
            .as_deref()
            .map(|dir| Book::open(dir, &description, (args.pace.fps(), task, args.video), console))
            .transpose()?;
        let leader = args.leader.leader(args.robot.units())?;
        let session = Session {
            console,
            title: format!("{} drives {}", source.name, description.kind),
            task,
            leader: leader.is_some(),
            record: book.map(|book| (book, EpisodesOptions { count: 1, episode: None, reset: None })),
            rerun,
            dry_run: args.dry_run,
            view: args.view,
            json: args.json,
        };
        let mut executor = source.executor;
        match leader {
            Some(leader) => {
                let mut source = WithLeader::new(executor, Leader::new(leader), signals.switch.clone());
                session.run(robot, &mut source, &options, &signals)
            }
            None => session.run(robot, &mut executor, &options, &signals),
        }
    })
}
