//! `skillweld report`.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use skillweld_report::{Control, Options, Report};

use crate::arguments::ThreadCount;
use crate::console::{Console, Page, Tone, note_new_folder, print_json};
use crate::progress::Progress;
use crate::{Outcome, figures, interrupt, output_file};

const EXAMPLES: &str = "\
Examples:
  # the page, to be opened in a browser; it loads nothing and runs no script
  skillweld report merged --html report.html
  # the headline figures
  skillweld report merged
  # every number
  skillweld report merged --json | jq .report.masks.selfish_ratio
  # the recipe's relative paths start elsewhere: compare with the experts there
  skillweld report merged --html report.html --inputs ~/experiments";

/// Show what a merge did: masks, task vectors, spectra, action experts, routing, provenance.
///
/// Measures the merged checkpoint, and the experts against it if they still lie where the recipe says with the hashes that
/// they had. Sections that do not apply to a merge say why.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The merged checkpoint: a directory that `skillweld merge` or the published MergeVLA code wrote.
    merged: PathBuf,
    /// Write a page about it: one file, light and dark.
    #[arg(long, value_name = "OUT.html")]
    html: Option<PathBuf>,
    /// Replace the page if it is there.
    #[arg(long, requires = "html")]
    force: bool,
    /// The pretrained model, for merged checkpoints that do not hold it.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// The folder in which the recipe's relative paths start [default: this one, then that of MERGED].
    #[arg(long, value_name = "FOLDER", conflicts_with = "no_inputs")]
    inputs: Option<PathBuf>,
    /// Do not look for the recipe's models.
    #[arg(long)]
    no_inputs: bool,
    #[command(flatten)]
    threads: ThreadCount,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    interrupt::install()?;
    if let Some(html) = &args.html {
        output_file::check(html, "html", args.force)?;
        note_new_folder(html, console);
    }
    let progress = Progress::new(args.json && args.html.is_none());
    progress.wait("looking for the recipe's models");
    let control = Control {
        threads: args.threads.get(),
        cancelled: &interrupt::requested,
        // τ and Θ₀ in bf16, as most are.
        start: &|elements| progress.start(elements, 4.0),
        advance: &|elements| progress.advance(elements),
    };
    let options =
        Options { base: args.base.clone(), inputs: !args.no_inputs, inputs_folder: args.inputs.clone() };
    let report = Report::measure(&args.merged, &options, &control);
    progress.finish();
    let report = report?;
    if let Some(html) = &args.html {
        output_file::write(html, &report.to_html()?)?;
    }
    if args.json {
        print_json(&json!({"html": args.html, "report": report}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    figures_of(&report, &mut page);
    if let Some(html) = &args.html {
        let html = page.paint(Tone::Name, html.display());
        page.heading("Report", format!("in {} into {html}", figures::duration(started.elapsed())));
    }
    page.print()?;
    Ok(Outcome::Done)
}

/// The figures to see first, and what there is nothing to say of.
fn figures_of(report: &Report, page: &mut Page) {
    let number = |value: f64| format!("{value:.3}");
    page.heading(
        &report.name,
        format!("{}, {} elements", report.tasks.join(", "), figures::elements(report.elements)),
    );
    let masks = report.masks.as_ref().map(|masks| {
        let kept = report.tasks.iter().zip(&masks.kept);
        let kept: Vec<String> =
            kept.map(|(task, kept)| format!("{task} {}", figures::percent(*kept))).collect();
        (figures::percent(masks.selfish_ratio), kept.join(", "))
    });
    let (selfish, kept) = masks.unwrap_or_default();
    let vectors = report.vectors.as_ref().map(|vectors| {
        format!("{} of the norm of what it is added to", figures::percent(vectors.relative_norm))
    });
    let experts = report.experts.as_ref().map(|experts| {
        let left = report.tasks.iter().zip(&experts.kept_cosines);
        let left: Vec<String> = left.map(|(task, cosine)| format!("{task} {}", number(*cosine))).collect();
        format!("cosine {}", left.join(", "))
    });
    let spectra = report.spectra.iter().map(|spectrum| spectrum.effective_rank);
    let (least, most) = figures::extremes(&spectra.collect::<Vec<_>>());
    let ranks = if report.spectra.is_empty() { String::new() } else { format!("{least:.1} to {most:.1}") };
    page.facts([
        ("selfish ratio", selfish),
        ("kept", kept),
        ("task vector", vectors.unwrap_or_default()),
        ("left of experts", experts.unwrap_or_default()),
        ("effective ranks", ranks),
    ]);
    page.facts(report.left_out.iter().map(|left_out| (left_out.section, left_out.why.clone())));
}
