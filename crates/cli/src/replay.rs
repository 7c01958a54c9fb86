//! `skillweld replay`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use skillweld_recorder::Dataset;
use skillweld_robot::{BodyUnit, Replay, Robot, Unit};

use crate::Outcome;
use crate::arm::{RobotArguments, body_unit};
use crate::console::Console;
use crate::drive::{PaceArguments, Session, Signals};

/// Let a robot repeat a recorded episode: its actions, one a control step, within the robot's limits.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The dataset's folder.
    dataset: PathBuf,
    /// Which episode, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    episode: usize,
    /// What the recorded numbers are, `degrees` or `centred`, where the dataset does not say it (LeRobot's do not).
    #[arg(long, value_name = "UNIT", value_parser = body_unit)]
    recorded_units: Option<BodyUnit>,
    #[command(flatten)]
    robot: RobotArguments,
    #[command(flatten)]
    pace: PaceArguments,
    /// Send no goals: print what would be sent. The arm holds where it is, with torque.
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
    args.robot.check()?;
    let robot = args.robot.robot()?;
    let joints = robot.describe().joints.len();
    let units = units(dataset.info().units(), args.recorded_units, joints)?;
    let mut source = Replay::new(actions, names, Some(units));
    let options = args.pace.options(joints)?;
    let session = Session {
        console,
        title: format!("episode {} of {}", args.episode, args.dataset.display()),
        task: "replay",
        leader: false,
        record: None,
        rerun: None,
        dry_run: args.dry_run,
        view: false,
        json: args.json,
    };
    session.run(robot, &mut source, &options, &Signals::listen()?)
}

/// Units of the recorded numbers: the dataset's word, or the user's.
fn units(recorded: Option<Vec<String>>, told: Option<BodyUnit>, joints: usize) -> Result<Vec<Unit>> {
    match (recorded, told) {
        (Some(names), _) => {
            let unit = |name: &String| {
                Unit::named(name).with_context(|| {
                    format!("the dataset says that its numbers are `{name}`, which is no unit")
                })
            };
            names.iter().map(unit).collect()
        }
        (None, Some(told)) => Ok(told.of_joints(joints)),
        (None, None) => bail!(
            "the dataset does not say what its numbers are: say it with --recorded-units degrees or centred (wrong units would \
             move the arm far from where it should go)"
        ),
    }
}
