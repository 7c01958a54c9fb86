//! `skillweld retain add`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use serde_json::json;
use skillweld_retain::{NewSkill, State, Verdict};

use super::options::Options;
use super::session::Run;
use crate::Outcome;
use crate::console::{Console, Page, Tone, note_new_folder, print_json};
use crate::merge::plan_page;
use crate::{figures, interrupt};

const EXAMPLES: &str = "\
Examples:
  skillweld retain add kitchen --base pi0 --finetuned pi0-stove --alpha 0.8      a new state and its first skill
  skillweld retain add kitchen --finetuned pi0-drawer --alpha 0.7                the next one
  skillweld retain add kitchen --finetuned pi0-cups --preset language-only --name cups --keep-previous";

/// Add a skill to a state: Θ̃_n = (1 − α) Θ̃_{n−1} + α Θ_finetuned.
///
/// The state moves in one step: stopped, killed or out of disk, it is as it was.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The state's folder.
    state: PathBuf,
    /// The pretrained policy, for a state that is not there yet.
    #[arg(long, value_name = "B")]
    base: Option<PathBuf>,
    /// The policy finetuned from STATE/checkpoint, or a PEFT adapter on it. It stays where it is: replays read it.
    #[arg(long, value_name = "F")]
    finetuned: PathBuf,
    /// The skill's name [default: that of its folder].
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    options: Options,
    /// Keep the checkpoint before this skill, so that it can be undone without the finetuned policies.
    #[arg(long)]
    keep_previous: bool,
    /// Print what would happen to every tensor, and change nothing; exit code 1 if a tensor is refused.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    run: Run,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let interpolation = args.options.interpolation()?;
    args.run.with_control(console, |control, progress| {
        let registry = args.run.search.discover(console, args.run.quiet)?;
        let state = match &args.base {
            Some(base) => State::begin(&args.state, base)?,
            None => State::open(&args.state)?,
        };
        let addition = state.prepare(NewSkill {
            name: args.name.clone(),
            finetuned: args.finetuned.clone(),
            interpolation: interpolation.clone(),
            keep_previous: args.keep_previous,
        })?;
        progress.wait("comparing tensors that may be the same");
        let step = addition.plan(&registry, control);
        progress.finish();
        let step = step?;
        let summary = step.summary();
        if args.dry_run {
            return super::dry_run(&summary, &args.run, console);
        }
        if args.run.talks() {
            plan_page::compact(&summary, console).print()?;
        }
        let found = addition.started_from();
        if found.verdict == Verdict::Contradicted {
            console.warn(&format!(
                "{} was not finetuned from this state's checkpoint: {}. Joined all the same; `skillweld retain undo {}` takes it back",
                args.finetuned.display(),
                found.evidence,
                args.state.display()
            ));
        }
        if !args.run.quiet {
            note_new_folder(&args.state, console);
        }
        ensure!(!interrupt::requested(), "stopped");
        progress.start(step.work(), plan_page::bytes_per_element(&summary));
        let skill = addition.run(&step, control);
        progress.finish();
        let skill = skill?;
        let elapsed = started.elapsed();
        if args.run.json {
            print_json(&json!({"state": args.state, "elapsed_s": elapsed.as_secs_f64(), "skill": skill}))?;
        } else if !args.run.quiet {
            let mut page = Page::new(console);
            let name = page.paint(Tone::Name, &skill.name);
            page.heading("Added", format!("{name} in {}", figures::duration(elapsed)));
            page.facts([
                ("α", skill.interpolation.alpha.to_string()),
                ("method", super::curve(&skill.interpolation)),
                ("finetuned from it", format!("{}: {}", skill.started_from.verdict, skill.started_from.evidence)),
                ("finetune next from", super::checkpoint(&args.state).display().to_string()),
            ]);
            page.print()?;
        }
        Ok(Outcome::Done)
    })
}
