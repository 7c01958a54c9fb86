//! `skillweld robot find-port`.

use anyhow::Result;
use serde_json::json;
use skillweld_robot_so101::setup::{PortInfo, find_ports, unplugged};

use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, print_json, table};

/// List serial ports, or find an arm's by pulling its cable.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Find the arm: pull its USB cable when asked to.
    #[arg(long, conflicts_with = "json")]
    unplug: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let ports = find_ports()?;
    if args.json {
        let port =
            |port: &PortInfo| json!({"path": port.path, "description": port.description, "usb": port.usb});
        print_json(&json!({"ports": ports.iter().map(port).collect::<Vec<_>>()}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Serial ports", "");
    let mut rows = table(["port", "what is there"]);
    for port in &ports {
        rows.add_row([cell(Tone::Name, &port.path), cell(Tone::Plain, &port.description)]);
    }
    if ports.is_empty() {
        page.line("  none; plug the arm in, and on Linux see that you may use it: `sudo usermod -aG dialout $USER`, then log in again");
    } else {
        page.table(rows);
    }
    page.print()?;
    if !args.unplug {
        return Ok(Outcome::Done);
    }
    super::wait_for_enter("pull the arm's USB cable")?;
    let arm = unplugged(&ports, &find_ports()?)?;
    let mut page = Page::new(console);
    page.heading("The arm", arm.path);
    page.line("  plug it in again");
    page.print()?;
    Ok(Outcome::Done)
}
