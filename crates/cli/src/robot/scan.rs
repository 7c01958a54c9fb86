//! `skillweld robot scan`.

use anyhow::Result;
use serde_json::json;
use skillweld_robot_so101::label;
use skillweld_robot_so101::protocol::BAUD;
use skillweld_robot_so101::registers::BAUD_RATES;
use skillweld_robot_so101::setup::{Found, scan};

use super::PortArgument;
use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::progress::Progress;

/// Ask every id at every baud rate which servos are there.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    port: PortArgument,
    /// Only at 1,000,000 baud, which servos of an arm have.
    #[arg(long)]
    quick: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let mut bus = args.port.open()?;
    let bauds = if args.quick { &[BAUD][..] } else { &BAUD_RATES[..] };
    let ids: Vec<u8> = (0..=253).collect();
    let progress = Progress::new(args.json);
    progress.count(bauds.len() * ids.len(), 0);
    let found = scan(&mut bus, bauds, &ids, |baud, _| {
        progress.message(format!("{baud} baud"));
        progress.advance(1);
    });
    progress.finish();
    let found = found?;
    if args.json {
        let servo = |found: &Found| {
            let firmware = format!("{}.{}", found.firmware.0, found.firmware.1);
            json!({"baud": found.baud, "id": found.id, "model": found.model, "firmware": firmware})
        };
        print_json(&json!({"port": args.port.port, "servos": found.iter().map(servo).collect::<Vec<_>>()}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Servos", &args.port.port);
    let mut rows = table(["id", "joint", "model", "firmware", "baud"]);
    for servo in &found {
        rows.add_row([
            number(servo.id),
            cell(Tone::Name, label(servo.id)),
            number(servo.model),
            number(format!("{}.{}", servo.firmware.0, servo.firmware.1)),
            number(servo.baud),
        ]);
    }
    if found.is_empty() {
        page.line("  none answers: is the power supply on, and is this the arm's port?");
    } else {
        page.table(rows);
    }
    page.print()?;
    Ok(if found.is_empty() { Outcome::Bad } else { Outcome::Done })
}
