//! `skillweld robot teleop`.

use anyhow::{Context, Result};
use skillweld_robot::{Leader, Robot};

use crate::Outcome;
use crate::arm::{LeaderArguments, RobotArguments};
use crate::console::Console;
use crate::drive::{PaceArguments, Session, Signals};

/// Let one arm follow another that is moved by hand.
///
/// The same limits as in `drive`. q, Esc or Ctrl-C stop.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    robot: RobotArguments,
    #[command(flatten)]
    leader: LeaderArguments,
    #[command(flatten)]
    pace: PaceArguments,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    args.robot.check()?;
    let robot = args.robot.robot()?;
    let leader =
        args.leader.leader(args.robot.units())?.context("name the leader arm: --leader-port PORT")?;
    let options = args.pace.options(robot.describe().joints.len())?;
    let session = Session {
        console,
        title: "the arm follows the leader".to_owned(),
        task: "teleop",
        leader: false,
        record: None,
        rerun: None,
        dry_run: false,
        view: false,
        json: args.json,
    };
    session.run(robot, &mut Leader::new(leader), &options, &Signals::listen()?)
}
