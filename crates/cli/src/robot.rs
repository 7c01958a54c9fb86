//! `skillweld robot`: what prepares an arm, and moves it by hand.

mod calibrate;
mod find_port;
mod monitor;
pub(crate) mod remedy;
mod scan;
mod setup_motors;
mod teleop;

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use skillweld_robot_so101::guard::{Guarded, guard};
use skillweld_robot_so101::protocol::{BAUD, Bus};
use skillweld_robot_so101::{JOINTS, torque_off};

use crate::Outcome;
use crate::console::Console;

const EXAMPLES: &str = "\
An SO-100 or SO-101, once:
  skillweld robot find-port                                          which port it is at
  skillweld robot setup-motors --port /dev/ttyACM0                   give each new servo its id, one by one
  skillweld robot calibrate --follower --port /dev/ttyACM0 --id my_arm   (an arm that LeRobot has calibrated is calibrated)
Then:
  skillweld robot monitor --port /dev/ttyACM0                        positions, load, heat, voltage
  skillweld robot teleop --robot so101 --port /dev/ttyACM0 --id my_arm --leader-port /dev/ttyACM1 --leader-id my_leader
  skillweld drive --robot so101 --port /dev/ttyACM0 --id my_arm --policy merged --task '…'";

/// Set up an arm, look at it, move it by hand.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    FindPort(find_port::Args),
    Scan(scan::Args),
    SetupMotors(setup_motors::Args),
    Calibrate(calibrate::Args),
    Monitor(monitor::Args),
    Teleop(Box<teleop::Args>),
    /// Turn an arm's torque off: it sinks, so hold it.
    Release(PortArgument),
    /// Turn torque off when the program at the other end of standard input dies. Started by what drives an arm, not by
    /// people.
    #[command(hide = true)]
    Guard(PortArgument),
}

/// The serial port of an arm.
#[derive(clap::Args)]
pub(crate) struct PortArgument {
    /// The arm's serial port; `skillweld robot find-port` finds it.
    #[arg(long, value_name = "PORT")]
    port: String,
}

impl PortArgument {
    fn open(&self) -> Result<Bus> {
        Ok(Bus::open(&self.port, BAUD)?)
    }
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    match &args.command {
        Command::FindPort(args) => find_port::run(args, console),
        Command::Scan(args) => scan::run(args, console),
        Command::SetupMotors(args) => setup_motors::run(args, console),
        Command::Calibrate(args) => calibrate::run(args, console),
        Command::Monitor(args) => monitor::run(args, console),
        Command::Teleop(args) => teleop::run(args, console),
        Command::Release(args) => {
            torque_off(&mut args.open()?, &JOINTS.map(|joint| joint.id))?;
            console.note(&format!("torque is off at {}", args.port));
            Ok(Outcome::Done)
        }
        Command::Guard(args) => {
            let guarded =
                guard(&args.port).context("torque may still be on: switch the arm's power supply off")?;
            let happened = match guarded {
                Guarded::Released => return Ok(Outcome::Done),
                Guarded::Died => "has died",
                Guarded::Hung => "did nothing any more and was ended",
            };
            console
                .warn(&format!("the program that drove the arm {happened}: torque is off at {}", args.port));
            Ok(Outcome::Done)
        }
    }
}

/// Says something and waits for a line: Enter.
fn wait_for_enter(text: &str) -> Result<()> {
    eprintln!("{text}, then press Enter");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).context("cannot read the keyboard")?;
    if read == 0 {
        bail!("standard input has ended before it was done");
    }
    Ok(())
}

/// Whether text may be written over.
fn lively() -> bool {
    std::io::stdout().is_terminal()
}
