//! `skillweld dataset`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use skillweld_recorder::{Dataset, Images, Report, TOLERANCE_S};

use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::{Outcome, figures};

const EXAMPLES: &str = "\
Examples:
  skillweld dataset inspect data/pick              what is in it, and whether it is whole
  skillweld dataset inspect data/pick --pixels     decode every image, too
  skillweld dataset inspect data/pick --json | jq .episodes[0].frames

Exit code 1 if something is wrong with an episode.";

/// Recorded episodes: LeRobotDataset v3.0.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a dataset holds, and check every frame: numbering, timestamps, sizes, NaN; of videos their sizes and lengths.
    #[command(after_help = EXAMPLES)]
    Inspect(InspectArgs),
}

#[derive(clap::Args)]
struct InspectArgs {
    /// The dataset's folder.
    dataset: PathBuf,
    /// Decode every pixel, not only the heads of images; not of videos.
    #[arg(long)]
    pixels: bool,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let Command::Inspect(args) = &args.command;
    let dataset = Dataset::open(&args.dataset)?;
    let images = if args.pixels { Images::Pixels } else { Images::Heads };
    let report = dataset.check(TOLERANCE_S, images)?;
    if args.json {
        print_json(&document(&dataset, &report))?;
    } else {
        page(&args.dataset, &dataset, &report, console).print()?;
    }
    let features = dataset.info().features.iter();
    let videos: Vec<_> =
        features.filter(|(_, feature)| feature.dtype == "video").map(|(name, _)| &**name).collect();
    if !videos.is_empty() {
        console.note(&format!(
            "frames of {} are in mp4 files, whose sizes and lengths are checked and whose pictures are not looked at",
            videos.join(", ")
        ));
    }
    report.problems.iter().for_each(|problem| console.warn(&problem.to_string()));
    for path in &report.leftovers {
        console.note(&format!("{} is of an episode that was never saved", path.display()));
    }
    Ok(if report.problems.is_empty() { Outcome::Done } else { Outcome::Bad })
}

fn page(path: &Path, dataset: &Dataset, report: &Report, console: Console) -> Page {
    let info = dataset.info();
    let mut page = Page::new(console);
    page.heading("Dataset", path.display());
    let duration_s = info.total_frames as f64 / f64::from(info.fps.max(1));
    let features: Vec<String> =
        info.features.iter().map(|(name, feature)| format!("{name} {:?}", feature.shape)).collect();
    page.facts([
        ("robot", info.robot_type.clone().unwrap_or_default()),
        ("episodes", info.total_episodes.to_string()),
        ("frames", format!("{}, {duration_s:.1} s at {} Hz", info.total_frames, info.fps)),
        ("led by a person", figures::counted(report.interventions as u64, "frame")),
        ("columns", features.join(", ")),
        ("format", info.codebase_version.clone()),
    ]);
    if dataset.episodes().is_empty() {
        return page;
    }
    page.heading("Episodes", "");
    let mut rows = table(["", "task", "frames", "seconds", ""]);
    for episode in dataset.episodes() {
        let wrong = report.problems.iter().filter(|problem| problem.episode == episode.index).count();
        let state = if wrong == 0 { cell(Tone::Good, "whole") } else { cell(Tone::Bad, "damaged") };
        let seconds = episode.frames as f64 / f64::from(info.fps.max(1));
        rows.add_row([
            number(episode.index),
            cell(Tone::Plain, episode.tasks.join("; ")),
            number(episode.frames),
            number(format!("{seconds:.1}")),
            state,
        ]);
    }
    page.table(rows);
    page
}

fn document(dataset: &Dataset, report: &Report) -> serde_json::Value {
    let episodes: Vec<_> = dataset
        .episodes()
        .iter()
        .map(|episode| json!({"index": episode.index, "tasks": episode.tasks, "frames": episode.frames}))
        .collect();
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|problem| json!({"episode": problem.episode, "frame": problem.frame, "problem": problem.what}))
        .collect();
    json!({
        "dataset": dataset.folder(),
        "info": dataset.info(),
        "tasks": dataset.tasks(),
        "episodes": episodes,
        "interventions": report.interventions,
        "problems": problems,
        "leftovers": report.leftovers,
    })
}
