//! `skillweld retain replay`.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use skillweld_retain::{Ledger, State};

use super::session::Run;
use crate::Outcome;
use crate::console::{Console, Page, Tone, note_new_folder, print_json};
use crate::figures;

/// Make a state's checkpoint again, from its base and the finetuned policies, and hold everything against the ledger.
///
/// The first policy that is not what it was is named, and nothing is written.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The state's folder.
    state: PathBuf,
    /// The directory to write. Folders above it that are missing are made.
    out: PathBuf,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: Run,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    args.run.with_control(console, |control, progress| {
        let registry = args.run.search.discover(console, args.run.quiet)?;
        let ledger = Ledger::read(&args.state)?;
        if !args.run.quiet {
            note_new_folder(&args.out, console);
        }
        let watch = super::undo::watch(progress, console, args.run.talks());
        State::replay(&ledger, &args.out, args.force, &registry, (control, &watch))?;
        progress.finish();
        let elapsed = started.elapsed();
        let result = ledger.skills.last().map(|skill| &skill.result_blake3);
        if args.run.json {
            print_json(
                &json!({"output": args.out, "elapsed_s": elapsed.as_secs_f64(), "result_blake3": result}),
            )?;
        } else if !args.run.quiet {
            let mut page = Page::new(console);
            let out = page.paint(Tone::Name, args.out.display());
            let count = figures::counted(ledger.skills.len() as u64, "skill");
            page.heading("Replayed", format!("{count} in {} into {out}", figures::duration(elapsed)));
            page.line("  every input and every result is what the ledger says");
            page.print()?;
        }
        Ok(Outcome::Done)
    })
}
