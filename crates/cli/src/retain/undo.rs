//! `skillweld retain undo`.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use skillweld_retain::{State, Undo};

use super::session::Run;
use crate::console::{Console, Page, Tone, print_json};
use crate::progress::Progress;
use crate::{Outcome, figures};

/// Bytes of an element, for the rate: most policies are in bf16.
const BYTES_PER_ELEMENT: f64 = 2.0;

/// Take the last skill of a state back.
///
/// The checkpoint before it is the kept one (`add --keep-previous`), or made again from the base and the finetuned policies.
/// The state moves in one step: stopped, killed or out of disk, it is as it was.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The state's folder.
    state: PathBuf,
    #[command(flatten)]
    run: Run,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    args.run.with_control(console, |control, progress| {
        let registry = args.run.search.discover(console, args.run.quiet)?;
        let watch = watch(progress, console, args.run.talks());
        let Undo { skill, from_previous } = State::open(&args.state)?.undo(&registry, (control, &watch))?;
        progress.finish();
        let elapsed = started.elapsed();
        if args.run.json {
            print_json(&json!({
                "state": args.state,
                "elapsed_s": elapsed.as_secs_f64(),
                "undone": skill,
                "from_previous": from_previous,
            }))?;
        } else if !args.run.quiet {
            let mut page = Page::new(console);
            let name = page.paint(Tone::Name, &skill.name);
            page.heading("Undone", format!("{name} in {}", figures::duration(elapsed)));
            page.facts([("finetune next from", super::checkpoint(&args.state).display().to_string())]);
            page.print()?;
        }
        Ok(Outcome::Done)
    })
}

/// A bar for each step of a chain.
pub(super) fn watch(
    progress: &Progress,
    console: Console,
    talks: bool,
) -> impl Fn(&str, usize, usize, u64) + '_ {
    move |skill, number, count, work| {
        if talks {
            progress.suspend(|| console.note(&format!("skill {number} of {count}: {skill}")));
        }
        progress.start(work, BYTES_PER_ELEMENT);
    }
}
