//! `skillweld robot setup-motors`.

use anyhow::Result;
use skillweld_robot_so101::JOINTS;
use skillweld_robot_so101::setup::{SETUP_ORDER, setup_motor};

use super::{PortArgument, wait_for_enter};
use crate::Outcome;
use crate::console::Console;

/// Give new servos their ids and 1,000,000 baud, one after the other, the gripper first.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    port: PortArgument,
    /// Only this joint.
    #[arg(long, value_name = "JOINT", value_parser = clap::builder::PossibleValuesParser::new(JOINTS.map(|joint| joint.name)))]
    joint: Option<String>,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let wanted = |joint: &usize| args.joint.as_ref().is_none_or(|name| name == JOINTS[*joint].name);
    for joint in SETUP_ORDER.into_iter().filter(wanted) {
        let name = JOINTS[joint].name;
        wait_for_enter(&format!(
            "plug in the servo of {name}, and no other, and switch the power supply on"
        ))?;
        let (baud, id) = setup_motor(&mut args.port.open()?, joint)?;
        console.note(&format!("{name}: id {id} at {baud} baud became id {} at 1000000", JOINTS[joint].id));
    }
    console.note("connect all servos again; next: `skillweld robot calibrate`");
    Ok(Outcome::Done)
}
