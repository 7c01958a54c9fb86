//! `skillweld retain`: one interpolation, or a chain of them.

mod add;
mod init;
mod log;
mod options;
mod replay;
mod session;
mod undo;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde_json::json;
use skillweld_merge::{ActionKind, PlanSummary};
use skillweld_retain::{Done, Interpolation, Pair};

use crate::Outcome;
use crate::console::{Console, Page, Tone, note_new_folder, print_json};
use crate::merge::plan_page;
use crate::{figures, interrupt};
use options::Options;
use session::Run;

const EXAMPLES: &str = "\
Examples:
  # 80 % of the way from the pretrained policy to the finetuned one
  skillweld retain --base pi0 --finetuned pi0-stove --alpha 0.8 retained
  # only the language backbone; vision and action expert are the finetuned policy's
  skillweld retain --base pi0 --finetuned pi0-stove --preset language-only retained
  # by modality; what will happen to every tensor
  skillweld retain --base pi0 --finetuned pi0-stove --alpha 0.8 --alpha-vision 0.5 retained --dry-run
  # a LoRA adapter on the base; normalisation as the finetuned policy has it
  skillweld retain --base openvla --finetuned adapter --alpha 0.8 --statistics finetuned retained
  # skill after skill: finetune from STATE/checkpoint, then add
  skillweld retain init kitchen --base pi0
  skillweld retain add kitchen --finetuned pi0-stove --alpha 0.8
  skillweld retain add kitchen --finetuned pi0-drawer --alpha 0.7
  skillweld retain log kitchen
  skillweld retain undo kitchen
  skillweld retain replay kitchen again

α multiplies the finetuned weights: Θ = (1 − α) Θ_base + α Θ_finetuned (RETAIN, arXiv 2512.08333). Good values lie between
0.25 and 0.9; try some on one validation scene.";

/// Interpolate between a pretrained policy and its fine-tune, so that it keeps what it could before (RETAIN).
///
/// The output is a plain checkpoint, as training leaves one. It appears complete or not at all.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    once: Once,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Add(Box<add::Args>),
    Log(log::Args),
    Replay(replay::Args),
    Undo(undo::Args),
}

#[derive(clap::Args)]
struct Once {
    /// The pretrained policy: a folder as training leaves it, or a file of weights.
    #[arg(long, value_name = "B", required = true)]
    base: Option<PathBuf>,
    /// The finetuned policy, or a PEFT adapter on the base.
    #[arg(long, value_name = "F", required = true)]
    finetuned: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// The directory to write. Folders above it that are missing are made.
    #[arg(required = true)]
    out: Option<PathBuf>,
    /// Print what would happen to every tensor, and write nothing; exit code 1 if a tensor is refused.
    #[arg(long)]
    dry_run: bool,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: Run,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    match &args.command {
        None => once(&args.once, console),
        Some(Command::Init(args)) => init::run(args, console),
        Some(Command::Add(args)) => add::run(args, console),
        Some(Command::Log(args)) => log::run(args, console),
        Some(Command::Replay(args)) => replay::run(args, console),
        Some(Command::Undo(args)) => undo::run(args, console),
    }
}

fn once(args: &Once, console: Console) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let given = |path: &'_ Option<PathBuf>| path.clone().context("a path is missing");
    let (base, finetuned, out) = (given(&args.base)?, given(&args.finetuned)?, given(&args.out)?);
    let interpolation = args.options.interpolation()?;
    let quiet = args.run.quiet;
    args.run.with_control(console, |control, progress| {
        let registry = args.run.search.discover(console, quiet)?;
        let pair = Pair::open(&base, &finetuned, &interpolation)?;
        progress.wait("comparing tensors that may be the same");
        let step = pair.plan(&registry, control);
        progress.finish();
        let step = step?;
        let summary = step.summary();
        if args.dry_run {
            return dry_run(&summary, &args.run, console);
        }
        if !is_refused(&summary) {
            step.check_output(&out, args.force)?;
        }
        if args.run.talks() {
            plan_page::compact(&summary, console).print()?;
        }
        if !quiet {
            note_new_folder(&out, console);
        }
        ensure!(!interrupt::requested(), "stopped");
        progress.start(step.work(), plan_page::bytes_per_element(&summary));
        let done = step.run(&out, args.force, control);
        progress.finish();
        let done = done?;
        let elapsed = started.elapsed();
        if args.run.json {
            print_json(&json!({
                "output": out.canonicalize().unwrap_or_else(|_| out.clone()),
                "elapsed_s": elapsed.as_secs_f64(),
                "threads": control.threads.count(),
                "interpolation": interpolation,
                "statistics": done.statistics,
                "base_blake3": done.base,
                "finetuned_blake3": done.finetuned,
                "result_blake3": done.result,
                "report": done.report,
            }))?;
        } else if !quiet {
            let mut page = Page::new(console);
            let out = page.paint(Tone::Name, out.display());
            page.heading("Retained", format!("in {} into {out}", figures::duration(elapsed)));
            page.facts(facts(&interpolation, &done));
            page.print()?;
        }
        Ok(Outcome::Done)
    })
}

/// A plan printed in place of the work.
fn dry_run(summary: &PlanSummary, run: &Run, console: Console) -> anyhow::Result<Outcome> {
    if run.json {
        print_json(summary)?;
    } else if !run.quiet {
        plan_page::whole(summary, console).print()?;
    }
    Ok(if is_refused(summary) { Outcome::Bad } else { Outcome::Done })
}

fn is_refused(summary: &PlanSummary) -> bool {
    summary.tensors.iter().any(|tensor| tensor.action == ActionKind::Refused)
}

/// How it was done, in words.
fn curve(interpolation: &Interpolation) -> String {
    let density =
        interpolation.density.map(|density| format!(", density {density}, seed {}", interpolation.seed));
    format!("{}{}", interpolation.method.name(), density.unwrap_or_default())
}

fn facts(interpolation: &Interpolation, done: &Done) -> [(&'static str, String); 3] {
    let statistics = done.statistics.map(|keep| format!("of the {} policy", keep.name()));
    [
        ("α", interpolation.alpha.to_string()),
        ("method", curve(interpolation)),
        ("statistics", statistics.unwrap_or_default()),
    ]
}

/// The current checkpoint of a state, to be finetuned next.
fn checkpoint(state: &Path) -> PathBuf {
    state.join("checkpoint")
}
