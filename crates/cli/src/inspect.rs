//! `skillweld inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use skillweld_merge::{AdapterInfo, CheckpointKind, Inspection, MergedInfo, Totals, inspect_with_base};

use crate::console::{Console, Page, Tone, cell, count, number, print_json, table};
use crate::{Outcome, figures, keys};

const EXAMPLES: &str = "\
Examples:
  # a model, an adapter, an expert's folder, a single file
  skillweld inspect experts/spatial
  skillweld inspect action_head--latest_checkpoint.pt
  # a merged checkpoint, with every tensor
  skillweld inspect merged --keys
  skillweld inspect merged --json | jq .merged.tasks
  # one merged with `--base reference` whose base has moved
  skillweld inspect merged --base models/base";

/// Show what is in a checkpoint: dtypes, sizes, family, LoRA rank and targets, tasks and masks.
///
/// Reads the headers of safetensors and PyTorch files, of single files and of directories; runs nothing that is in them.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A checkpoint, an adapter, a merged checkpoint or a single file.
    path: PathBuf,
    /// The pretrained model, for merged checkpoints that do not hold it.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// List every tensor, those of equal layers on one line.
    #[arg(long)]
    keys: bool,
    /// Everything as JSON, every tensor included.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let inspection = inspect_with_base(&args.path, args.base.as_deref())?;
    if args.json {
        print_json(&inspection)?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    head(&inspection, &mut page);
    totals("Dtypes", &inspection.by_dtype, &mut page);
    totals("Modalities", &inspection.by_modality, &mut page);
    if let Some(adapter) = &inspection.adapter {
        about_adapter(adapter, &mut page);
    }
    if let Some(merged) = &inspection.merged {
        about_merged(merged, &mut page);
    }
    beside(&inspection, &mut page);
    if args.keys {
        all_keys(&inspection, &mut page);
    }
    page.print()?;
    Ok(Outcome::Done)
}

fn head(inspection: &Inspection, page: &mut Page) {
    let kind = match inspection.kind {
        CheckpointKind::File => "file",
        CheckpointKind::Checkpoint => "model",
        CheckpointKind::Adapter => "LoRA adapter",
        CheckpointKind::Expert => "expert",
        CheckpointKind::Merged => "merged checkpoint",
        CheckpointKind::MergedOfficial => "merged checkpoint of the published MergeVLA code",
        _ => "checkpoint",
    };
    let family = inspection.family.as_deref().unwrap_or("unknown family");
    page.heading(
        &inspection.path.display().to_string(),
        format!("{}, {family}", page.paint(Tone::Name, kind)),
    );
    let Totals { tensors, elements, bytes } = inspection.total;
    page.line(format!(
        "  {}, {} elements, {}",
        figures::counted(tensors, "tensor"),
        figures::elements(elements),
        figures::bytes(bytes as f64)
    ));
}

/// One row a dtype or modality, the largest first.
fn totals(heading: &str, groups: &BTreeMap<String, Totals>, page: &mut Page) {
    page.heading(heading, "");
    let all: u64 = groups.values().map(|total| total.bytes).sum();
    let mut rows: Vec<_> = groups.iter().collect();
    rows.sort_by_key(|(_, total)| std::cmp::Reverse(total.bytes));
    let mut table = table(["", "tensors", "elements", "size", ""]);
    for (name, total) in rows {
        table.add_row([
            cell(Tone::Name, name),
            count(total.tensors),
            number(figures::elements(total.elements)),
            number(figures::bytes(total.bytes as f64)),
            cell(Tone::Good, figures::bar(total.bytes as f64 / all.max(1) as f64, 20)),
        ]);
    }
    page.table(table);
}

fn about_adapter(adapter: &AdapterInfo, page: &mut Page) {
    let ranks = adapter.ranks.iter().map(|(rank, &count)| {
        let scales: Vec<String> =
            adapter.scales.get(rank).into_iter().flatten().map(|scale| format!("{scale:.3}")).collect();
        let scale = match scales.len() {
            0 => String::new(),
            1 => format!(" (scale {})", scales[0]),
            _ => format!(" (scales {})", scales.join(", ")),
        };
        format!("{rank} on {}{scale}", figures::counted(count, "weight"))
    });
    let targets = adapter.targets.iter().map(|(name, count)| format!("{name} ×{count}"));
    let alpha = adapter.alpha.map(|alpha| alpha.to_string()).unwrap_or_default();
    let rows = [
        ("base", adapter.base_model.clone().unwrap_or_default()),
        ("rank", ranks.collect::<Vec<_>>().join(", ")),
        ("alpha", if adapter.rslora { format!("{alpha}, over √rank (rsLoRA)") } else { alpha }),
        ("targets", targets.collect::<Vec<_>>().join(", ")),
        ("saved whole", adapter.modules_to_save.join(", ")),
    ];
    page.heading("LoRA adapter", "");
    page.facts(rows);
    if let Some(problem) = &adapter.problem {
        page.line(format!("  {} {problem}", page.paint(Tone::Bad, "cannot be merged:")));
    }
}

fn about_merged(merged: &MergedInfo, page: &mut Page) {
    page.heading("Tasks", merged.methods.join(", "));
    let mut table = table(["task", "kept", "", "rescaler", "own head"]);
    for task in &merged.tasks {
        let kept = task.density.map(figures::percent).unwrap_or_default();
        table.add_row([
            cell(Tone::Name, &task.name),
            number(kept),
            cell(Tone::Good, task.density.map(|share| figures::bar(share, 10)).unwrap_or_default()),
            number(task.rescaler),
            number(figures::bytes(task.head_bytes as f64)),
        ]);
    }
    page.table(table);
    let selfish = match (merged.selfish_ratio, merged.kept_by_none) {
        (Some(selfish), Some(none)) => {
            let elements = figures::elements(merged.masked_elements);
            format!(
                "{} of {elements} kept by exactly one task, {} by none",
                figures::percent(selfish),
                figures::percent(none)
            )
        }
        _ => String::new(),
    };
    let head = match merged.head_blocks {
        0 => String::new(),
        1 => "the last block of the action expert".to_owned(),
        blocks => format!("the last {blocks} blocks of the action expert"),
    };
    let base = if merged.needs_base { "not part of it: name it with --base" } else { "" };
    let router = merged.router_rank.map(|rank| format!("subspaces of rank {rank}")).unwrap_or_default();
    page.facts([
        ("masks", selfish),
        ("per task", head),
        ("router", router),
        ("pretrained model", base.to_owned()),
    ]);
}

/// Files beside the weights, data sets, tied weights.
fn beside(inspection: &Inspection, page: &mut Page) {
    let files = inspection.side_files.iter().map(|side| {
        let size = figures::bytes(side.total.bytes as f64);
        (
            side.part.as_str(),
            format!("{} ({}, {size})", side.file, figures::counted(side.total.tensors, "tensor")),
        )
    });
    let tied = inspection.aliases.iter().map(|alias| format!("{} is {}", alias.name, alias.key));
    let mut rows: Vec<(&str, String)> = files.collect();
    rows.push(("statistics of", inspection.statistics.join(", ")));
    rows.push(("tied weights", tied.collect::<Vec<_>>().join(", ")));
    if rows.iter().any(|(_, fact)| !fact.is_empty()) {
        page.heading("Beside the weights", "");
        page.facts(rows);
    }
}

fn all_keys(inspection: &Inspection, page: &mut Page) {
    page.heading("Tensors", "");
    let tensors = inspection.tensors.iter();
    let groups = keys::group(tensors.map(|tensor| {
        let rest = (tensor.dtype.as_str(), tensor.shape.as_slice(), tensor.modality.as_str(), tensor.bytes);
        (tensor.key.as_str(), (tensor.file.as_str(), rest))
    }));
    let headings = ["key", "tensors", "dtype", "shape", "modality", "size", "file"];
    let rows = groups.iter().map(|group| {
        let (file, (dtype, shape, modality, bytes)) = group.common;
        let cells = vec![
            count(group.members),
            cell(Tone::Plain, dtype),
            cell(Tone::Plain, figures::shape(shape)),
            cell(Tone::Plain, modality),
            number(figures::bytes((bytes * group.members) as f64)),
            cell(Tone::Faint, file),
        ];
        (group.to_string(), cells)
    });
    page.table_of_names(&headings, rows.collect());
}
