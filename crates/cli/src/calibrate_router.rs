//! `skillweld calibrate-router`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use ndarray::Array3;
use serde_json::json;
use skillweld_gpu::Device;
use skillweld_policy::backend::Backend;
use skillweld_policy::{Calibration, Observation, Policy, write_calibrations};
use skillweld_recorder::Dataset;

use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::policy::{Job, Opening};
use crate::progress::Progress;
use crate::{Outcome, interrupt};

const EXAMPLES: &str = "\
Examples:
  skillweld calibrate-router merged --task goal=data/goal --task spatial=data/spatial
  skillweld calibrate-router merged --task goal=data/goal --task spatial=data/drawer --task spatial=data/tray --episodes 20

Scores of different experts are norms in different subspaces, and not on one scale. This takes the first observations of
some episodes of each task, as its expert was trained on, and notes where they lie in the task's own subspaces (mean and deviation
in every direction) in router_calibration.json beside the checkpoint. From then on the router asks under which task an
observation is likely; --raw-scores of the commands that route compares scores as the paper does.";

/// Let the router compare tasks by what is usual for each: where its own observations lie in its subspaces.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A merged checkpoint with a router.
    policy: PathBuf,
    /// A LeRobot dataset of a task, pictures as images; a task may have several, and every task needs one.
    #[arg(long = "task", value_name = "NAME=DATASET", required = true)]
    datasets: Vec<TaskDataset>,
    /// Episodes of each task that are looked at, spread over all it has.
    #[arg(long, value_name = "N", default_value = "50")]
    episodes: NonZeroUsize,
    /// Images of an observation that the experts were trained with; the dataset's first so many cameras are taken.
    #[arg(long, value_name = "N", default_value = "2")]
    images: NonZeroUsize,
    #[command(flatten)]
    opening: Opening,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

/// `NAME=DATASET`.
#[derive(Debug, Clone)]
struct TaskDataset {
    task: String,
    folder: PathBuf,
}

impl FromStr for TaskDataset {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (task, folder) = text.split_once('=').ok_or("expected NAME=DATASET")?;
        Ok(Self { task: task.to_owned(), folder: folder.into() })
    }
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    args.opening.run(&args.policy, args.images, NonZeroUsize::MIN, Calibrate { args, console })
}

struct Calibrate<'a> {
    args: &'a Args,
    console: Console,
}

impl Job for Calibrate<'_> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, _device: Option<Device>) -> Result<Outcome> {
        let Self { args, console } = self;
        ensure!(
            policy.routes(),
            "{} has no router to calibrate; merge with `router:` in the recipe",
            args.policy.display()
        );
        let datasets = open(args, &policy)?;
        let episodes: Vec<_> =
            datasets.iter().map(|datasets| chosen(datasets, args.episodes.get())).collect();
        interrupt::install()?;
        let progress = Progress::new(args.json);
        progress.count(episodes.iter().map(Vec::len).sum(), 0);
        let mut calibrations = Vec::new();
        for (task, episodes) in episodes.iter().enumerate() {
            let name = &policy.tasks()[task];
            progress.message(name.clone());
            let mut projections = Vec::with_capacity(episodes.len());
            for &(dataset, episode) in episodes {
                if interrupt::requested() {
                    bail!("interrupted; nothing was written");
                }
                let observation = first_observation(dataset, episode, args.images.get())?;
                projections.push(policy.router_projections(&observation, task)?);
                progress.advance(1);
            }
            let calibration = Calibration::of(&projections).with_context(|| {
                format!(
                    "the {} observations of `{name}` have no spread; give more episodes",
                    projections.len()
                )
            })?;
            calibrations.push(calibration);
        }
        progress.finish();
        write_calibrations(policy.dir(), policy.tasks(), &calibrations)?;
        show(args, console, &policy, &calibrations, &episodes)
    }
}

/// The datasets of each of the policy's tasks.
fn open<B: Backend>(args: &Args, policy: &Policy<B>) -> Result<Vec<Vec<Dataset>>> {
    let mut datasets: Vec<Vec<Dataset>> = policy.tasks().iter().map(|_| Vec::new()).collect();
    for TaskDataset { task, folder } in &args.datasets {
        datasets[policy.task_index(task)?].push(Dataset::open(folder)?);
    }
    for (task, datasets) in policy.tasks().iter().zip(&datasets) {
        let episodes: usize = datasets.iter().map(|dataset| dataset.episodes().len()).sum();
        ensure!(episodes > 0, "no episodes of task `{task}`: add --task {task}=DATASET");
    }
    Ok(datasets)
}

/// So many of all episodes; all, if there are fewer.
fn chosen(datasets: &[Dataset], count: usize) -> Vec<(&Dataset, usize)> {
    let of = |dataset| (0..Dataset::episodes(dataset).len()).map(move |episode| (dataset, episode));
    let all: Vec<_> = datasets.iter().flat_map(of).collect();
    let instructions: Vec<_> =
        all.iter().map(|(dataset, episode)| &dataset.episodes()[*episode].tasks).collect();
    spread(&instructions, count).into_iter().map(|index| all[index]).collect()
}

/// Indices of so many, each kind in proportion: at equal distances in the order in which they came, kinds that take turns would leave
/// one.
fn spread<T: Ord>(kinds: &[T], count: usize) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..kinds.len()).collect();
    sorted.sort_by_key(|&index| &kinds[index]);
    let count = count.min(sorted.len());
    (0..count).map(|i| sorted[i * sorted.len() / count]).collect()
}

/// What the robot saw when an episode began.
fn first_observation(dataset: &Dataset, episode: usize, images: usize) -> Result<Observation> {
    let folder = dataset.folder().display();
    let frame = dataset
        .frames(episode)?
        .next()
        .with_context(|| format!("{folder}: episode {episode} is empty"))??;
    ensure!(
        frame.images.len() >= images,
        "{folder} has {} cameras kept as images, the policy takes {images}; name another number with --images, or record without --video",
        frame.images.len()
    );
    let pixels = frame.images[..images].iter().map(|image| {
        let rgb = image.decode().map_err(|problem| {
            anyhow::anyhow!("{folder}: episode {episode}, camera {}: {problem}", image.camera)
        })?;
        Ok(Array3::from_shape_vec((rgb.height, rgb.width, 3), rgb.rgb)?)
    });
    let pixels = pixels.collect::<Result<Vec<_>>>()?;
    let instruction = usize::try_from(frame.task_index).ok().and_then(|index| dataset.tasks().get(index));
    Ok(Observation::Raw {
        images: pixels,
        state: frame.state.iter().map(|&value| f64::from(value)).collect(),
        instruction: instruction.with_context(|| format!("{folder}: episode {episode} has no task"))?.clone(),
    })
}

fn show<B: Backend>(
    args: &Args,
    console: Console,
    policy: &Policy<B>,
    calibrations: &[Calibration],
    episodes: &[Vec<(&Dataset, usize)>],
) -> Result<Outcome> {
    let rows = policy.tasks().iter().zip(calibrations).zip(episodes.iter().map(Vec::len));
    if args.json {
        let tasks = rows.map(|((task, of), observations)| {
            json!({"task": task, "observations": observations, "mean": of.mean, "deviation": of.deviation})
        });
        print_json(&json!({"policy": args.policy, "tasks": tasks.collect::<Vec<_>>()}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Router", page.paint(Tone::Name, args.policy.display().to_string()));
    let mut rows_shown = table(["task", "observations", "directions"]);
    for ((task, of), observations) in rows {
        rows_shown.add_row([cell(Tone::Plain, task), number(observations), number(of.mean.len())]);
    }
    page.table(rows_shown);
    page.line("  the router compares by these from now on");
    page.print()?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_kind_is_there_in_proportion(kinds in proptest::collection::vec(0u8..4, 1..60), count in 1usize..80) {
            let found = spread(&kinds, count);
            prop_assert_eq!(found.len(), count.min(kinds.len()));
            prop_assert!(found.iter().collect::<std::collections::BTreeSet<_>>().len() == found.len(), "each once");
            for kind in 0..4 {
                let of = |count: usize| count as f64 * found.len() as f64 / kinds.len() as f64;
                let share = of(kinds.iter().filter(|&&k| k == kind).count());
                let there = found.iter().filter(|&&index| kinds[index] == kind).count() as f64;
                prop_assert!((there - share).abs() < 1.0, "{} of {}", there, share);
            }
        }
    }
}
