//! `skillweld materialize`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use skillweld_merge::{Control, materialize};
use skillweld_merged::MergedCheckpoint;
use skillweld_plugin_host::HostHooks;

use crate::arguments::ThreadCount;
use crate::console::{Console, Page, Tone, note_new_folder, print_json};
use crate::progress::Progress;
use crate::{Outcome, figures, interrupt};

const EXAMPLES: &str = "\
Examples:
  skillweld materialize merged --task goal goal
  skillweld materialize published_mergevla --task libero_goal goal --base openvla-7b-prismatic";

/// Write one task of a merged checkpoint as a plain checkpoint: Θ₀ + rescaler · mask ⊙ τ.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The merged checkpoint: a directory that `skillweld merge` or the published MergeVLA code wrote.
    merged: PathBuf,
    /// The task.
    #[arg(long, value_name = "T")]
    task: String,
    /// The directory to write. Folders above it that are missing are made.
    out: PathBuf,
    /// The pretrained model, for merged checkpoints that do not hold it.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadCount,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let started = Instant::now();
    interrupt::install()?;
    let merged = MergedCheckpoint::open_with_base(&args.merged, args.base.as_deref())?;
    note_new_folder(&args.out, console);
    let elements = merged.elements();
    let progress = Progress::new(false);
    progress.start(elements, bytes_per_element(&merged, elements)?);
    let hooks = HostHooks { cancelled: &interrupt::requested, ..HostHooks::SILENT };
    let control =
        Control { threads: args.threads.get(), hooks, advance: &|elements| progress.advance(elements) };
    ensure!(!interrupt::requested(), "stopped");
    let result = materialize(&merged, &args.task, &args.out, args.force, &control);
    progress.finish();
    let report = result?;
    let elapsed = started.elapsed();
    if report.non_finite > 0 {
        console.warn(&format!("{} elements are NaN or infinite", figures::count(report.non_finite)));
    }
    if args.json {
        print_json(&json!({"output": report.path, "elapsed_s": elapsed.as_secs_f64(), "report": report}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Task", page.paint(Tone::Name, &report.task));
    page.facts([
        (
            "tensors",
            format!(
                "{}, {}",
                figures::count(report.tensors as u64),
                figures::bytes(report.tensor_bytes as f64)
            ),
        ),
        (
            "merged",
            format!("{} of them, under the task's mask", figures::count(report.masked_tensors as u64)),
        ),
        ("beside", report.side_files.join(", ")),
        ("written", format!("in {} into {}", figures::duration(elapsed), report.path.display())),
    ]);
    page.print()?;
    Ok(Outcome::Done)
}

/// Mean size of an element of the model, for the rate.
fn bytes_per_element(merged: &MergedCheckpoint, elements: u64) -> Result<f64> {
    let mut bytes = 0;
    for key in merged.keys() {
        bytes += merged.weight(key)?.stored().bytes().len();
    }
    Ok(bytes as f64 / elements.max(1) as f64)
}
