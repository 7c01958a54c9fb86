//! `skillweld retain init`.

use std::path::PathBuf;

use serde_json::json;
use skillweld_retain::State;

use crate::Outcome;
use crate::console::{Console, Page, note_new_folder, print_json};

/// Begin a state: a folder with a ledger of skills and the current checkpoint.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder to make.
    state: PathBuf,
    /// The pretrained policy, a folder. It stays where it is, and is needed there.
    #[arg(long, value_name = "B")]
    base: PathBuf,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let state = State::begin(&args.state, &args.base)?;
    note_new_folder(&args.state, console);
    let ledger = state.save()?;
    if args.json {
        print_json(&json!({"state": args.state, "ledger": ledger}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("State", args.state.display());
    page.facts([
        ("base", ledger.base.path.display().to_string()),
        ("finetune from", super::checkpoint(&args.state).display().to_string()),
        ("then", format!("skillweld retain add {} --finetuned F --alpha 0.8", args.state.display())),
    ]);
    page.print()?;
    Ok(Outcome::Done)
}
