//! `skillweld sweep`.

mod page;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use skillweld_merge::Control;
use skillweld_merge::recipe::Draft;
use skillweld_plugin_host::HostHooks;
use skillweld_sweep::{
    Axis, Definition, Engine, EvalCommand, Event, Local, LocalOptions, Outcome as Evaluated, Point, Points,
    Ray, RayOptions, Sweep, SweepError, Watch, grid,
};

use crate::Outcome;
use crate::arguments::ThreadCount;
use crate::console::{Console, print_json};
use crate::failure::Stopped;
use crate::interrupt;
use crate::plugins::{PluginLog, Search};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  # nine mixtures of a base and a fine-tune; recipe.yaml has weight: \"${1-alpha}\" at the one and weight: \"${alpha}\"
  # at the other, and evaluate.py prints {\"score\": 0.71} at its end
  skillweld sweep recipe.yaml --set alpha=0.1:0.9:0.1 --eval 'python evaluate.py {checkpoint} --seed {seed}' \\
      --seeds 3 --out alpha
  # a grid over two fields of the recipe: twelve points, and a heat map
  skillweld sweep recipe.yaml --set mask.lambda=0.4,0.6,0.8 --set models.pick.parameters.weight=0.5:2:0.5 \\
      --eval './libero.sh {checkpoint}' --out grid --keep-best
  # four evaluations at once
  skillweld sweep recipe.yaml --set merge_method=ties,dare_ties --set seed=1,2,3 --eval '…' --out methods --parallel 4
  # trials on a Ray cluster, two GPUs each
  skillweld sweep recipe.yaml --set alpha=0:1:0.05 --eval '…' --out alpha --engine ray \\
      --address http://head:8265 --gpus 2 --parallel 8
  # one point by hand
  skillweld merge recipe.yaml merged --set alpha=0.3

VALUES is a range FIRST:LAST:STEP with both ends, computed in decimals, or a list A,B,C of numbers or words. FIELD is a
placeholder ${FIELD} or ${1-FIELD} anywhere in the recipe, else a field of the recipe by its path.

In COMMAND, {checkpoint} is the merged checkpoint, {seed} counts from 0, {point} is `alpha=0.3`; they are also in
$SKILLWELD_CHECKPOINT, $SKILLWELD_SEED and $SKILLWELD_POINT. The score is the last line of its standard output that is a
JSON number, or an object with a number `score`; its other numbers become columns. A command that ends otherwise than
with 0, or without score, has failed: the sweep goes on, and ends with exit code 1.

Every evaluation is written down in DIR/sweep.json before the next begins. Stopped or killed, the same command goes on
where it was; what failed is tried again. DIR/results.csv, DIR/results.json and DIR/sweep.svg have the results.

Ray: workers need skillweld on their PATH, and the recipe and its models under the same paths as here. Where the cluster
wants a token, it is taken from $RAY_AUTH_TOKEN.";

/// Merge a recipe with many values and score each merge by a command of yours.
///
/// Points share what does not change: inputs are opened and compared once and stay in memory's cache. Each checkpoint is
/// written without waiting for the disk, evaluated, and removed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The recipe, a YAML file.
    recipe: PathBuf,
    /// What to sweep; several make a grid of all combinations.
    #[arg(long, value_name = "FIELD=VALUES", required = true)]
    set: Vec<String>,
    /// The evaluation, a command for `sh` that prints the score.
    #[arg(long, value_name = "COMMAND")]
    eval: String,
    /// The folder of the sweep. One that is there goes on where it stopped.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Evaluate each point so many times.
    #[arg(long, value_name = "N", default_value = "1")]
    seeds: NonZeroU64,
    /// The least score is the best.
    #[arg(long)]
    minimize: bool,
    /// Evaluate so many points at once. Merges take turns.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Leave all merged checkpoints in DIR/points.
    #[arg(long)]
    keep: bool,
    /// In the end, merge the best point into DIR/best.
    #[arg(long)]
    keep_best: bool,
    /// Forget what was evaluated before.
    #[arg(long)]
    restart: bool,
    /// Where points are merged and evaluated.
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    engine: Place,
    /// The address of Ray's dashboard.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8265")]
    address: String,
    /// CPU cores of a trial on Ray.
    #[arg(long, value_name = "N", default_value = "1")]
    cpus: f64,
    /// GPUs of a trial on Ray.
    #[arg(long, value_name = "N", default_value = "0")]
    gpus: f64,
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

/// `--engine`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Place {
    /// On this machine
    #[default]
    Local,
    /// As jobs of a Ray cluster
    Ray,
}

/// Between two questions about a job of Ray.
const RAY_PAUSE: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    interrupt::install()?;
    let ray = args.engine == Place::Ray;
    ensure!(
        !(ray && args.keep),
        "--keep needs --engine local: on Ray checkpoints lie on the workers; use --keep-best"
    );
    for (name, count) in [("--cpus", args.cpus), ("--gpus", args.gpus)] {
        ensure!(count.is_finite() && count >= 0.0, "{name} must be 0 or more, not {count}");
    }
    let axes = args.set.iter().map(|set| Axis::parse(set)).collect::<Result<Vec<_>, _>>()?;
    let points = grid(&axes)?;
    let command = EvalCommand::parse(&args.eval)?;
    let draft = Draft::read(&args.recipe)?;
    let recipes = Sweep::recipes(&draft, &points)?;

    let definition = Definition::new(&draft, axes.clone(), &command, &recipes);

    let progress = Progress::new(args.quiet);
    let log = PluginLog::new(console, args.quiet);
    let hooks = HostHooks {
        log: &|level, text| progress.suspend(|| log.line(level, text)),
        progress: &|_| {},
        cancelled: &interrupt::requested,
    };
    let control = Control { threads: args.threads.get(), hooks, advance: &|_| {} };
    // On Ray the workers' plugins count, but for the best point, which is merged here.
    let registry = (!ray || args.keep_best).then(|| args.search.discover(console, args.quiet)).transpose()?;
    let kept = if args.keep { Points::Kept } else { Points::Temporary };
    progress.wait("planning all points");
    let local = registry.as_ref().map(|registry| {
        let options = LocalOptions { control, points: kept };
        Local::new(&args.out, (&points, recipes), registry, &command, options)
    });
    progress.finish();
    let local = local.transpose()?;
    ensure!(!interrupt::requested(), "stopped");

    let sweep = Sweep::open(&args.out, definition, args.seeds.get(), args.restart)?;
    // Not before the folder is ours: it stops what an earlier sweep of this folder left running.
    let cluster = match args.engine {
        Place::Local => None,
        Place::Ray => Some(Ray::connect(&args.out, &args.recipe, &command, ray_options(args))?),
    };
    let (all, scored) = sweep.progress();
    if !args.quiet && scored > 0 {
        console.note(&format!("{scored} of {all} evaluations are there already"));
    }
    progress.count(all, scored);
    let told = |event: &Event<'_>| tell(event, &progress, (args.quiet, console));
    let watch = Watch { cancelled: &interrupt::requested, told: &told };
    let here = local.as_ref().map(|local| local as &dyn Engine);
    let there = cluster.as_ref().map(|cluster| cluster as &dyn Engine);
    let engine = there.or(here).context("there is no engine to run trials")?;
    let result = sweep.run(engine, args.parallel.into(), watch);
    progress.finish();
    let summary = sweep.summary(args.minimize);
    sweep.write_results(&summary)?;
    stopped(result, &sweep)?;

    let best = summary.best().map(|best| best.point.clone());
    let kept = match (&local, best.and_then(|best| points.iter().find(|point| point.label() == best))) {
        (Some(local), Some(point)) if args.keep_best => Some(keep(local, point, &args.out, &progress)?),
        _ => None,
    };
    if args.json {
        print_json(&page::document(&summary, &args.out, kept.as_deref()))?;
    } else if !args.quiet {
        page::page(&axes, &summary, (&args.out, kept.as_deref()), console).print()?;
    }
    Ok(if summary.failed() > 0 { Outcome::Bad } else { Outcome::Done })
}

fn ray_options(args: &Args) -> RayOptions {
    RayOptions {
        address: args.address.clone(),
        token: std::env::var("RAY_AUTH_TOKEN").ok().filter(|token| !token.is_empty()),
        cpus: args.cpus,
        gpus: args.gpus,
        plugins: args.search.absolute(),
        threads: args.threads.asked(),
        longest_pause: RAY_PAUSE,
    }
}

/// Merges the best point once more, as `skillweld merge` would.
fn keep(local: &Local<'_>, point: &Point, out: &Path, progress: &Progress) -> anyhow::Result<PathBuf> {
    progress.wait("merging the best point");
    let best = out.join("best");
    let result = local.keep(point, &best);
    progress.finish();
    result.with_context(|| format!("all scores are in {}", out.display()))?;
    Ok(best)
}

/// Says what happened to an evaluation.
fn tell(event: &Event<'_>, progress: &Progress, (quiet, console): (bool, Console)) {
    match event {
        Event::Begun(point) => progress.message(point.label()),
        Event::Evaluated(point, seed, outcome) => {
            progress.advance(1);
            let what = format!("{}, seed {seed}", point.label());
            match outcome {
                Evaluated::Failed(why) => progress.suspend(|| console.warn(&format!("{what} failed: {why}"))),
                Evaluated::Scored(score) if !quiet => {
                    progress.suspend(|| console.note(&format!("{what}: {}", page::figure(score.score))));
                }
                Evaluated::Scored(_) => {}
            }
        }
        _ => {}
    }
}

/// A sweep that was stopped says how far it has come.
fn stopped(result: Result<(), SweepError>, sweep: &Sweep) -> anyhow::Result<()> {
    match result {
        Err(SweepError::Stopped) => {
            let (all, scored) = sweep.progress();
            let said = format!("{scored} of {all} evaluations are done; the same command goes on from there");
            Err(Stopped(said).into())
        }
        other => Ok(other?),
    }
}
