//! `skillweld robot teleop`.

use anyhow::{Context, Result};
use skillweld_robot::{Leader, Observer, Robot};

use crate::Outcome;
use crate::arm::{LeaderArguments, RobotArguments};
use crate::console::Console;
use crate::drive::{EventLog, Keys, PaceArguments, Progress, finish, switch};

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
    let mut robot = args.robot.robot()?;
    let leader =
        args.leader.leader(args.robot.units())?.context("name the leader arm: --leader-port PORT")?;
    let options = args.pace.options(robot.describe().joints.len())?;
    let (switch, progress) = (switch()?, Progress::default());
    let _keys = Keys::listen(switch.clone(), progress.clone());
    if !args.json {
        console.note("the arm follows the leader; q or Ctrl-C stops");
    }
    let mut observer: Vec<Box<dyn Observer>> = vec![Box::new(EventLog::new(console))];
    let summary =
        skillweld_robot::drive(&mut robot, &mut Leader::new(leader), &options, &mut observer, &switch)?;
    finish(&summary, None, &progress, args.json, console)
}
