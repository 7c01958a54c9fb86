//! `skillweld replay`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use skillweld_recorder::Dataset;
use skillweld_robot::{DryRun, Observer, Replay, Robot};

use crate::Outcome;
use crate::arm::RobotArguments;
use crate::console::Console;
use crate::drive::{EventLog, Keys, PaceArguments, Progress, finish, switch};

/// Let a robot repeat a recorded episode: its actions, one a control step, within the robot's limits.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The dataset's folder.
    dataset: PathBuf,
    /// Which episode, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    episode: usize,
    #[command(flatten)]
    robot: RobotArguments,
    #[command(flatten)]
    pace: PaceArguments,
    /// Send nothing: print what would be sent.
    #[arg(long)]
    dry_run: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let dataset = Dataset::open(&args.dataset)?;
    let fps = dataset.info().fps;
    ensure!(
        fps == args.pace.fps(),
        "the dataset was recorded at {fps} frames a second; replay it with --fps {fps}"
    );
    let frames = dataset.frames(args.episode)?;
    let actions = frames.map(|frame| Ok(frame?.action.iter().map(|&number| f64::from(number)).collect()));
    let actions = actions.collect::<Result<Vec<Vec<f64>>>>().context("the episode cannot be read")?;
    let (_, names) = dataset.names();
    let names = (!names.is_empty()).then_some(names);
    let mut source = Replay::new(actions, names, None);
    let mut robot = args.robot.robot()?;
    let options = args.pace.options(robot.describe().joints.len())?;
    let (switch, progress) = (switch()?, Progress::default());
    let keys = Keys::listen(switch.clone(), progress.clone());
    if !args.json {
        console.note(&format!("episode {} of {}; q or Ctrl-C stops", args.episode, args.dataset.display()));
    }
    let mut observer: Vec<Box<dyn Observer>> = vec![Box::new(EventLog::new(console))];
    let (summary, dry) = if args.dry_run {
        let mut dry = DryRun::new(robot);
        let summary = skillweld_robot::drive(&mut dry, &mut source, &options, &mut observer, &switch)?;
        (summary, Some(dry.report().clone()))
    } else {
        (skillweld_robot::drive(&mut robot, &mut source, &options, &mut observer, &switch)?, None)
    };
    drop(keys);
    finish(&summary, dry.as_ref(), &progress, args.json, console)
}
