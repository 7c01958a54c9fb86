//! `skillweld export`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde_json::json;
use skillweld_interchange::{export_mergevla, export_work};
use skillweld_merge::Control;
use skillweld_merged::MergedCheckpoint;
use skillweld_plugin_host::HostHooks;

use crate::arguments::ThreadCount;
use crate::console::{Console, Page, note_new_folder, print_json};
use crate::progress::Progress;
use crate::{Outcome, figures, interrupt};

const EXAMPLES: &str = "\
Examples:
  skillweld export merged --format mergevla for_mergevla
  # its evaluation adds τ to the pretrained model, and so does Skillweld
  skillweld inspect for_mergevla --base base

Names of tasks are those of LIBERO's suites (`libero_spatial`, …) where the published evaluation is to find them.";

/// Write a merged checkpoint as another program wants it.
///
/// mergevla: what the published MergeVLA evaluation loads, PyTorch files of plain tensors (`tall_masks.pt` with one byte an
/// element, `task2idx.pt`, one action head of all tasks) beside τ in `model.safetensors`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The merged checkpoint: a directory that `skillweld merge` wrote.
    merged: PathBuf,
    /// The directory to write. Folders above it that are missing are made.
    out: PathBuf,
    /// Whose layout.
    #[arg(long, value_enum)]
    format: Format,
    /// Where the pretrained model lies now, for checkpoints merged with `--base reference`.
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

/// `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// The published MergeVLA code
    Mergevla,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let Format::Mergevla = args.format;
    let started = Instant::now();
    interrupt::install()?;
    let merged = MergedCheckpoint::open_with_base(&args.merged, args.base.as_deref())?;
    note_new_folder(&args.out, console);
    let progress = Progress::new(false);
    // Mostly masks: a byte an element.
    progress.start(export_work(&merged), 1.0);
    let hooks = HostHooks { cancelled: &interrupt::requested, ..HostHooks::SILENT };
    let control =
        Control { threads: args.threads.get(), hooks, advance: &|elements| progress.advance(elements) };
    ensure!(!interrupt::requested(), "stopped");
    let result = export_mergevla(&merged, &args.out, args.force, &control);
    progress.finish();
    let report = result?;
    let elapsed = started.elapsed();
    if args.json {
        print_json(&json!({"output": report.path, "elapsed_s": elapsed.as_secs_f64(), "report": report}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("MergeVLA's layout", report.path.display());
    page.facts([
        ("tasks", report.tasks.join(", ")),
        (
            "tensors",
            format!("{}, {} of them masked", figures::count(report.tensors as u64), report.masked_tensors),
        ),
        ("files", report.files.join(", ")),
        ("note", report.notes.join("; ")),
        ("time", figures::duration(elapsed)),
    ]);
    page.print()?;
    Ok(Outcome::Done)
}
