//! `skillweld record`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use skillweld_robot::{Leader, Observer, Robot};

use crate::Outcome;
use crate::arm::{LeaderArguments, RobotArguments};
use crate::console::Console;
use crate::drive::{
    Episodes, EpisodesOptions, EventLog, Keys, PaceArguments, Progress, View, finish, open_recorder, switch,
};

const EXAMPLES: &str = "\
Examples:
  # fifty episodes of at most 30 s, 10 s between them to put things back
  skillweld record data/cube --task 'put the red cube on the tray' --robot so101 --port /dev/ttyACM0 --id my_arm \\
      --leader-port /dev/ttyACM1 --leader-id my_leader --camera front=v4l2:/dev/video0 \\
      --episodes 50 --episode-seconds 30 --reset-seconds 10
  # the same command goes on with a dataset that is there
  skillweld dataset inspect data/cube
  skillweld replay data/cube --episode 3 --robot so101 --port /dev/ttyACM0 --id my_arm

Keys: → (or n) ends the episode and begins the next, ← (or r) records it again, q stops. What is saved is safe: an unplugged
cable or a killed process loses the open episode at most.";

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
    let mut robot = args.robot.robot()?;
    let leader =
        args.leader.leader(args.robot.units())?.context("name the leader arm: --leader-port PORT")?;
    let description = robot.describe().clone();
    let options = args.pace.options(description.joints.len())?;
    let seconds = |name: &str, seconds: Option<f64>| {
        let given = seconds.map(|seconds| {
            let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
            duration.with_context(|| format!("--{name} must be above 0, not {seconds}"))
        });
        given.transpose()
    };
    let episodes = EpisodesOptions {
        count: Some(args.episodes.get()),
        episode: seconds("episode-seconds", args.episode_seconds)?,
        reset: seconds("reset-seconds", args.reset_seconds)?,
    };
    let recorder = open_recorder(&args.dataset, &description, args.pace.fps(), &args.task)?;
    let (switch, progress) = (switch()?, Progress::default());
    let shared = (switch.clone(), progress.clone());
    let mut observers: Vec<Box<dyn Observer>> =
        vec![Box::new(Episodes::new(recorder, &args.task, episodes, shared.clone()))];
    let keys = Keys::listen(switch.clone(), progress.clone());
    if args.view {
        observers.push(Box::new(View::open("recording", &args.task, &description, shared)?));
    } else {
        observers.push(Box::new(EventLog::new(console)));
        console.note("recording; → ends an episode and begins the next, ← records it again, q stops");
    }
    let summary =
        skillweld_robot::drive(&mut robot, &mut Leader::new(leader), &options, &mut observers, &switch)?;
    drop(observers);
    drop(keys);
    finish(&summary, None, &progress, args.json, console)
}
