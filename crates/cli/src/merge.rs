//! `skillweld merge`.

mod plan_page;
mod report_page;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::json;
use skillweld_merge::recipe::Draft;
use skillweld_merge::{ActionKind, BaseMode, Control, Models, Plan, RunOptions};
use skillweld_plugin_host::HostHooks;

use crate::Outcome;
use crate::arguments::{Processor, ThreadCount};
use crate::console::{Console, note_new_folder, print_json};
use crate::interrupt;
use crate::plugins::{PluginLog, Search};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  # what would happen to every tensor
  skillweld merge recipe.yaml merged --dry-run
  # replace an earlier output, once the new one is complete
  skillweld merge recipe.yaml merged --force
  # methods that bring device code along (task_arithmetic, linear, passthrough, tall) on a GPU: the same bytes
  skillweld merge recipe.yaml merged --device cuda
  # without a second copy of the pretrained weights
  skillweld merge recipe.yaml merged --base link
  # with a merge method of your own
  skillweld merge recipe.yaml merged --plugin ./libskillweld_plugin_mine.so
  # with another value than the recipe's
  skillweld merge recipe.yaml merged --set mask.lambda=0.8
  # one number for a script
  skillweld merge recipe.yaml merged --json | jq .report.masks.selfish_ratio

A recipe in the MergeVLA way (paths start at the recipe's folder):
  merge_method: ties
  base_model: base
  models:
    - {name: spatial, model: experts/spatial}
    - {name: goal, model: experts/goal}
  parameters: {density: 1.0, normalize: false, scope: global}
  mask: {method: tall, lambda: 0.6}
  action_expert: {head_blocks: 1}

Recipes of mergekit with local paths run as they are.";

/// Merge the models of a recipe.
///
/// The output appears complete or not at all: a merge that fails, is stopped or killed leaves the inputs and an earlier
/// output as they were.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The recipe, a YAML file.
    recipe: PathBuf,
    /// The directory to write. Folders above it that are missing are made.
    out: PathBuf,
    /// Give a field of the recipe, or a placeholder ${FIELD} in it, this value; see `skillweld sweep --help`.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Print what would happen to every tensor, and write nothing; exit code 1 if a tensor is refused.
    #[arg(long)]
    dry_run: bool,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
    /// How a merge with masks keeps the pretrained weights.
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    base: Base,
    /// Where tensors are merged. The result does not depend on it.
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t)]
    device: Processor,
    #[command(flatten)]
    threads: ThreadCount,
    #[command(flatten)]
    search: Search,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
    /// Say nothing unless something is wrong.
    #[arg(long, short)]
    quiet: bool,
}

/// `--base`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Base {
    /// Independent of the base model: shared blocks (reflinks) where the disk offers them, else a copy
    #[default]
    Copy,
    /// Hard links to the base model's files, symbolic ones where they lie on another disk
    Link,
    /// Not at all: OUT only says where the base model lies, and needs it there (or `--base` when read)
    Reference,
}

impl From<Base> for BaseMode {
    fn from(base: Base) -> Self {
        match base {
            Base::Copy => Self::Copy,
            Base::Link => Self::Link,
            Base::Reference => Self::Reference,
        }
    }
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    interrupt::install()?;
    let device = args.device.open();
    let progress = Progress::new(args.quiet);
    let log = PluginLog::new(console, args.quiet);
    let hooks = HostHooks {
        log: &|level, text| progress.suspend(|| log.line(level, text)),
        progress: &|_| {},
        cancelled: &interrupt::requested,
    };

    let settings = args.set.iter().map(|set| {
        set.split_once('=')
            .with_context(|| format!("--set {set}: write FIELD=VALUE, such as mask.lambda=0.6"))
    });
    let recipe = Draft::read(&args.recipe)?.recipe(&settings.collect::<anyhow::Result<Vec<_>>>()?)?;
    let registry = args.search.discover(console, args.quiet)?;
    let models = Models::open(&recipe)?;
    let threads = args.threads.get();
    let control = Control { threads, hooks, advance: &|elements| progress.advance(elements) };
    progress.wait("comparing tensors that may be the same");
    let plan = Plan::new(&recipe, &models, &registry, &control);
    progress.finish();
    let plan = plan?;
    let device = device.wait()?;
    let summary = plan.summary();
    let refused = summary.tensors.iter().any(|tensor| tensor.action == ActionKind::Refused);

    let options = RunOptions { force: args.force, base: args.base.into(), ..RunOptions::default() };
    if args.dry_run {
        if args.json {
            print_json(&summary)?;
        } else if !args.quiet {
            plan_page::whole(&summary, console).print()?;
        }
        plan.check_base(options.base)?;
        return Ok(if refused { Outcome::Bad } else { Outcome::Done });
    }
    if !refused {
        plan.check_output(&args.out, options)?;
    }
    if !args.quiet && !args.json {
        plan_page::compact(&summary, console).print()?;
    }
    if !args.quiet {
        note_new_folder(&args.out, console);
    }
    ensure!(!interrupt::requested(), "stopped");

    progress.start(plan.work(), plan_page::bytes_per_element(&summary));
    let result = match &device {
        Some(device) => plan.run_on(&args.out, options, &control, device),
        None => plan.run(&args.out, options, &control),
    };
    progress.finish();
    let report = result?;

    let elapsed = started.elapsed();
    if args.json {
        print_json(&json!({
            "output": args.out.canonicalize().unwrap_or_else(|_| args.out.clone()),
            "elapsed_s": elapsed.as_secs_f64(),
            "threads": threads.count(),
            "tasks": summary.tasks,
            "base": report.base,
            "device": report.device,
            "report": report,
        }))?;
    } else if !args.quiet {
        report_page::page(&report, &summary, (&args.out, elapsed), console).print()?;
    }
    Ok(Outcome::Done)
}
