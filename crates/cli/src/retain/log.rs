//! `skillweld retain log`.

use std::path::PathBuf;

use serde_json::json;
use skillweld_retain::{Ledger, State, Verdict};

use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, print_json, table};

/// Hexadecimal digits of a hash that people compare.
const DIGITS: usize = 12;

/// Show the chain of skills in a state, and warn of those that were not finetuned from the skill before.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The state's folder.
    state: PathBuf,
    /// Read all policies and compare them with the ledger; exit code 1 if one has changed.
    #[arg(long)]
    verify: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let ledger = Ledger::read(&args.state)?;
    let warnings = warnings(&ledger);
    let problems = if args.verify { State::verify(&args.state, &ledger) } else { Vec::new() };
    if args.json {
        let mut document = json!({"state": args.state, "ledger": ledger, "warnings": warnings});
        if args.verify {
            document["problems"] = json!(problems);
        }
        print_json(&document)?;
    } else {
        page(args, &ledger, console).print()?;
    }
    warnings.iter().chain(&problems).for_each(|text| console.warn(text));
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::Bad })
}

fn page(args: &Args, ledger: &Ledger, console: Console) -> Page {
    let mut page = Page::new(console);
    let hash = |contents: &skillweld_retain::Contents| {
        contents.get("weights").map_or("", |hash| hash.get(..DIGITS).unwrap_or(hash)).to_owned()
    };
    page.heading("State", args.state.display());
    page.facts([
        ("base", ledger.base.path.display().to_string()),
        ("its weights", hash(&ledger.base.blake3)),
    ]);
    if ledger.skills.is_empty() {
        page.line("");
        page.line("  no skill yet");
        return page;
    }
    page.heading("Skills", "");
    let mut rows = table(["", "skill", "α", "method", "weights", "finetuned from the one before", "policy"]);
    for (index, skill) in ledger.skills.iter().enumerate() {
        let tone = match skill.started_from.verdict {
            Verdict::Confirmed => Tone::Good,
            Verdict::Contradicted => Tone::Bad,
            Verdict::Unknown => Tone::Faint,
        };
        rows.add_row([
            number(index + 1),
            cell(Tone::Name, &skill.name),
            cell(Tone::Plain, skill.interpolation.alpha),
            cell(Tone::Plain, super::curve(&skill.interpolation)),
            cell(Tone::Faint, hash(&skill.result_blake3)),
            cell(tone, skill.started_from.verdict),
            cell(Tone::Plain, skill.finetuned.path.display()),
        ]);
    }
    page.table(rows);
    page
}

/// What people should know without asking.
fn warnings(ledger: &Ledger) -> Vec<String> {
    let policies = ledger.skills.iter().map(|skill| (format!("skill {}", skill.name), &skill.finetuned));
    let gone = std::iter::once(("the base".to_owned(), &ledger.base)).chain(policies);
    let gone = gone.filter(|(_, policy)| !policy.path.exists());
    let gone = gone.map(|(whose, policy)| {
        format!("{whose} is not at {} any more; replays need it", policy.path.display())
    });
    let elsewhere = ledger.skills.iter().filter(|skill| skill.started_from.verdict == Verdict::Contradicted);
    let elsewhere = elsewhere.map(|skill| {
        format!(
            "skill {} was not finetuned from the policy before it: {}",
            skill.name, skill.started_from.evidence
        )
    });
    elsewhere.chain(gone).collect()
}
