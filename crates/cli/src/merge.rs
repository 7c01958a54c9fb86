//! `skillweld merge`.

pub(crate) mod plan_page;
mod report_page;
mod staged;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use skillweld_gpu::Device;
use skillweld_merge::recipe::{Documents, Draft, Recipe, Stage};
use skillweld_merge::{ActionKind, BaseMode, Control, Models, Plan, PlanSummary, RunOptions};
use skillweld_plugin_host::{HostHooks, Registry};

use crate::Outcome;
use crate::arguments::{OpeningDevice, Processor, ThreadCount};
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

Recipes of mergekit with local paths run as they are. A file may hold several recipes, parted by `---`: one with a `name:`
is a model to the others. Their results lie in OUT.stages, and are made again only when what they depend on has changed.";

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
    /// Where the results of named recipes lie, if the file holds several [default: OUT.stages].
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    stages: Option<PathBuf>,
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
    interrupt::install()?;
    let device = args.device.open();
    let progress = Progress::new(args.quiet);
    let log = PluginLog::new(console, args.quiet);
    let hooks = HostHooks {
        log: &|level, text| progress.suspend(|| log.line(level, text)),
        progress: &|_| {},
        cancelled: &interrupt::requested,
    };
    let documents = documents(args)?;
    let registry = args.search.discover(console, args.quiet)?;
    let control =
        Control { threads: args.threads.get(), hooks, advance: &|elements| progress.advance(elements) };
    let merging = Merging { args, console, progress: &progress, registry: &registry, control };
    match &documents.stages[..] {
        [only] => {
            ensure!(args.stages.is_none(), "--stages is for files of several recipes; this one holds one");
            merging.single(&only.recipe, device)
        }
        _ => staged::run(&merging, documents, device),
    }
}

/// The recipes of the file; one, where `--set` gives it values.
fn documents(args: &Args) -> anyhow::Result<Documents> {
    if args.set.is_empty() {
        return Ok(Documents::read(&args.recipe)?);
    }
    let settings = args.set.iter().map(|set| {
        set.split_once('=')
            .with_context(|| format!("--set {set}: write FIELD=VALUE, such as mask.lambda=0.6"))
    });
    let recipe = Draft::read(&args.recipe)?.recipe(&settings.collect::<anyhow::Result<Vec<_>>>()?)?;
    Ok(Documents { stages: vec![Stage { name: None, recipe, needs: Vec::new() }] })
}

/// What every merge of one run shares.
struct Merging<'a> {
    args: &'a Args,
    console: Console,
    progress: &'a Progress,
    registry: &'a Registry,
    control: Control<'a>,
}

impl Merging<'_> {
    /// The one recipe of a file, into OUT.
    fn single(&self, recipe: &Recipe, device: OpeningDevice) -> anyhow::Result<Outcome> {
        let args = self.args;
        let started = Instant::now();
        let models = Models::open(recipe)?;
        let plan = self.plan(recipe, &models)?;
        let device = device.wait()?;
        let options = RunOptions { force: args.force, base: args.base.into(), ..RunOptions::default() };
        if args.dry_run {
            return self.show(&plan, options);
        }
        if !args.quiet {
            note_new_folder(&args.out, self.console);
        }
        let merged = self.run(&plan, (&args.out, options), device.as_ref(), started)?;
        if args.json {
            print_json(&merged)?;
        }
        Ok(Outcome::Done)
    }

    fn plan<'p>(&'p self, recipe: &'p Recipe, models: &'p Models) -> anyhow::Result<Plan<'p>> {
        self.progress.wait("comparing tensors that may be the same");
        let plan = Plan::new(recipe, models, self.registry, &self.control);
        self.progress.finish();
        Ok(plan?)
    }

    /// Prints a plan; that is all of a dry run.
    fn show(&self, plan: &Plan<'_>, options: RunOptions) -> anyhow::Result<Outcome> {
        let summary = plan.summary();
        if self.args.json {
            print_json(&summary)?;
        } else if !self.args.quiet {
            plan_page::whole(&summary, self.console).print()?;
        }
        plan.check_base(options.base)?;
        Ok(if is_refused(&summary) { Outcome::Bad } else { Outcome::Done })
    }

    /// Prints a plan, carries it out, and prints what came of it; gives the latter for machines too.
    fn run(
        &self,
        plan: &Plan<'_>,
        (out, options): (&Path, RunOptions),
        device: Option<&Device>,
        started: Instant,
    ) -> anyhow::Result<Value> {
        let Args { quiet, json, .. } = *self.args;
        let summary = plan.summary();
        if !is_refused(&summary) {
            plan.check_output(out, options)?;
        }
        if !quiet && !json {
            plan_page::compact(&summary, self.console).print()?;
        }
        ensure!(!interrupt::requested(), "stopped");
        self.progress.start(plan.work(), plan_page::bytes_per_element(&summary));
        let result = match device {
            Some(device) => plan.run_on(out, options, &self.control, device),
            None => plan.run(out, options, &self.control),
        };
        self.progress.finish();
        let report = result?;
        let elapsed = started.elapsed();
        if !quiet && !json {
            report_page::page(&report, &summary, (out, elapsed), self.console).print()?;
        }
        Ok(json!({
            "output": out.canonicalize().unwrap_or_else(|_| out.to_owned()),
            "elapsed_s": elapsed.as_secs_f64(),
            "threads": self.control.threads.count(),
            "tasks": summary.tasks,
            "base": report.base,
            "device": report.device,
            "report": report,
        }))
    }
}

fn is_refused(summary: &PlanSummary) -> bool {
    summary.tensors.iter().any(|tensor| tensor.action == ActionKind::Refused)
}
