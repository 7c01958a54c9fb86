//! `skillweld robot monitor`.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use skillweld_robot_so101::protocol::BusError;
use skillweld_robot_so101::setup::{JointReadout, monitor};

use super::{PortArgument, lively};
use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::interrupt;

/// Show what every servo says of itself: position, load, current, voltage, heat, complaints.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    port: PortArgument,
    /// Show it once.
    #[arg(long)]
    once: bool,
    /// One JSON document on standard output, and nothing else there; once.
    #[arg(long)]
    json: bool,
}

type Readouts = Vec<std::result::Result<JointReadout, BusError>>;

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    interrupt::install()?;
    let mut bus = args.port.open()?;
    loop {
        let readouts = monitor(&mut bus)?;
        let silent = readouts.iter().any(Result::is_err);
        let outcome = if silent { Outcome::Bad } else { Outcome::Done };
        if args.json {
            print_json(&document(&args.port.port, &readouts))?;
            return Ok(outcome);
        }
        let again = lively() && !args.once;
        if again {
            print!("\x1b[2J\x1b[H");
        }
        page(&args.port.port, &readouts, console).print()?;
        if !again || interrupt::requested() {
            return Ok(outcome);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn page(port: &str, readouts: &Readouts, console: Console) -> Page {
    let mut page = Page::new(console);
    page.heading("Servos", port);
    let mut rows = table(["joint", "torque", "position", "goal", "ticks/s", "load", "mA", "V", "°C", ""]);
    for readout in readouts {
        match readout {
            Ok(joint) => {
                let health = &joint.health;
                let (tone, feels) = if health.status.is_ok() {
                    (Tone::Good, "well".to_owned())
                } else {
                    (Tone::Bad, health.status.to_string())
                };
                rows.add_row([
                    cell(Tone::Name, joint.joint),
                    cell(Tone::Plain, if health.torque { "on" } else { "off" }),
                    number(joint.position_ticks),
                    number(joint.goal_ticks),
                    number(joint.velocity_ticks_s),
                    number(format!("{:.1} %", health.load_percent)),
                    number(format!("{:.0}", joint.current_ma)),
                    number(format!("{:.1}", health.voltage_v)),
                    number(health.temperature_c),
                    cell(tone, feels),
                ]);
            }
            Err(error) => {
                rows.add_row([cell(Tone::Bad, error)]);
            }
        }
    }
    page.table(rows);
    page
}

fn document(port: &str, readouts: &Readouts) -> Value {
    let joint = |readout: &std::result::Result<JointReadout, BusError>| match readout {
        Ok(joint) => json!({
            "joint": joint.joint, "torque": joint.health.torque, "position_ticks": joint.position_ticks,
            "goal_ticks": joint.goal_ticks, "velocity_ticks_s": joint.velocity_ticks_s,
            "load_percent": joint.health.load_percent, "current_ma": joint.current_ma, "voltage_v": joint.health.voltage_v,
            "temperature_c": joint.health.temperature_c, "status": joint.health.status.0, "moving": joint.moving,
        }),
        Err(error) => json!({"error": error.to_string()}),
    };
    json!({"port": port, "joints": readouts.iter().map(joint).collect::<Vec<_>>()})
}
