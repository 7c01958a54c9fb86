//! `skillweld record`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use skillweld_robot::{Leader, Robot};

use crate::Outcome;
use crate::arm::{LeaderArguments, RobotArguments};
use crate::console::Console;
use crate::drive::{Book, EpisodesOptions, PaceArguments, Session, Signals, check_view};

const EXAMPLES: &str = "\
Examples:
  # fifty episodes of at most 30 s, 10 s between them to put things back
  skillweld record data/cube --task 'put the red cube on the tray' --robot so101 --port /dev/ttyACM0 --id my_arm \\
      --leader-port /dev/ttyACM1 --leader-id my_leader --camera front=v4l2:/dev/video0 \\
      --episodes 50 --episode-seconds 30 --reset-seconds 10
  # the same with mp4 instead of PNG: … --video
  # the same command goes on with a dataset that is there
  skillweld dataset inspect data/cube
  skillweld replay data/cube --episode 3 --robot so101 --port /dev/ttyACM0 --id my_arm

Keys: → (or n) ends the episode and saves it, and once more begins the next; ← (or r) forgets the open one and begins it again; q stops, and
saves the open episode as it is; Ctrl-C while that is done loses it. What is saved is safe: an unplugged cable or a killed process loses the open episode at most.";

/// Record demonstrations: one arm follows another that is moved by hand, as a LeRobot dataset.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The dataset's folder; one that is there goes on.
    dataset: PathBuf,
    /// What is shown, in words.
    #[arg(long, value_name = "TEXT")]
    task: String,
    /// So many episodes.
    #[arg(long, value_name = "N", default_value = "1")]
    episodes: NonZeroUsize,
    /// Longest episode; without it each lasts until the → key.
    #[arg(long, value_name = "S")]
    episode_seconds: Option<f64>,
    /// Time between episodes; without it until the → key.
    #[arg(long, value_name = "S")]
    reset_seconds: Option<f64>,
    /// Record images as mp4 instead of PNG: a small part of the room, and a little is lost. Needs ffmpeg; SKILLWELD_FFMPEG names the
    /// program where that is not its name.
    #[arg(long)]
    #[cfg_attr(not(feature = "mp4"), arg(hide = true))]
    video: bool,
    #[command(flatten)]
    robot: RobotArguments,
    #[command(flatten)]
    leader: LeaderArguments,
    #[command(flatten)]
    pace: PaceArguments,
    /// Show joints, episodes and safety in the terminal.
    #[arg(long)]
    view: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long, conflicts_with = "view")]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    args.robot.check()?;
    check_view(args.view)?;
    let robot = args.robot.robot()?;
    let leader =
        args.leader.leader(args.robot.units())?.context("name the leader arm: --leader-port PORT")?;
    let description = robot.describe().clone();
    let options = args.pace.options(description.joints.len())?;
    let episodes = EpisodesOptions {
        count: args.episodes.get(),
        episode: seconds("episode-seconds", args.episode_seconds)?,
        reset: seconds("reset-seconds", args.reset_seconds)?,
    };
    let book = Book::open(&args.dataset, &description, (args.pace.fps(), &args.task, args.video), console)?;
    let session = Session {
        console,
        title: format!("recording {}", args.dataset.display()),
        task: &args.task,
        leader: false,
        record: Some((book, episodes)),
        rerun: None,
        dry_run: false,
        view: args.view,
        json: args.json,
    };
    session.run(robot, &mut Leader::new(leader), &options, &Signals::listen()?)
}

fn seconds(name: &str, seconds: Option<f64>) -> Result<Option<Duration>> {
    let given = seconds.map(|seconds| {
        let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
        duration.with_context(|| format!("--{name} must be above 0, not {seconds}"))
    });
    given.transpose()
}
