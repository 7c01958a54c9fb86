//! What came of a merge, on paper.

use std::path::Path;
use std::time::Duration;

use comfy_table::Cell;
use skillweld_merge::{BlockDistances, DeviceReport, KeptBase, LayerReport, MaskReport, PlanSummary, Report};

use crate::console::{Console, Page, Tone, cell, number, table};
use crate::figures;

/// Width of bars, in columns.
const BAR: usize = 20;

pub(crate) fn page(
    report: &Report,
    summary: &PlanSummary,
    (out, elapsed): (&Path, Duration),
    console: Console,
) -> Page {
    let mut page = Page::new(console);
    if let Some(report) = &report.masks {
        masks(report, &summary.tasks, &mut page);
        layers(&report.layers, &mut page);
    }
    action_expert(&report.action_expert, &mut page);
    let out = page.paint(Tone::Name, out.display());
    let base = report.base.map(kept).unwrap_or_default();
    page.heading("Merged", format!("in {} into {out}", figures::duration(elapsed)));
    let device = report.device.as_ref().map(merged_where).unwrap_or_default();
    let paths = report.paths.iter().map(|(path, count)| format!("{} {path}", figures::count(*count)));
    let paths = paths.collect::<Vec<_>>().join(", ");
    page.facts([("pretrained weights", base.to_owned()), ("merged tensors", device), ("computed", paths)]);
    page
}

/// How many tensors were merged where.
fn merged_where(report: &DeviceReport) -> String {
    let DeviceReport { on_device, on_cpu, again } = report;
    let mut text = format!("{on_device} on the GPU, {on_cpu} on the CPU");
    if *on_cpu > 0 {
        text += " (small ones, and what the GPU has no code for)";
    }
    if *again > 0 {
        text += &format!("; {again} parts again on the CPU, for values that are not finite");
    }
    text
}

/// What became of the pretrained weights, and what follows from that; nothing to say of plain copies.
fn kept(base: KeptBase) -> &'static str {
    match base {
        KeptBase::Reflinked => "the base model's files, on shared blocks of the disk",
        KeptBase::HardLinked => {
            "hard links to the base model's files: they stay if the base is removed; whoever writes into one changes both"
        }
        KeptBase::SymbolicLinked => {
            "symbolic links to the base model's files (on another disk): they lead nowhere once those are moved or removed"
        }
        KeptBase::Referenced => "stay with the base model; once it has moved, name it with --base",
        _ => "",
    }
}

/// One row a task: share kept, rescaler, agreement with every other task.
pub(crate) fn masks(report: &MaskReport, tasks: &[String], page: &mut Page) {
    let selfish = page.paint(Tone::Strong, figures::percent(report.selfish_ratio));
    let about = format!(
        "{selfish} selfish (kept by exactly one task), {} kept by none, of {}",
        figures::percent(report.kept_by_none),
        figures::elements(report.elements)
    );
    page.heading("Masks", about);
    let mut headings = vec!["task", "kept", ""];
    if report.rescalers.is_some() {
        headings.push("rescaler");
    }
    let agreement_with: Vec<String> = tasks.iter().map(|task| format!("∩∪ {task}")).collect();
    headings.extend(agreement_with.iter().map(String::as_str));
    let mut table = table(headings);
    for task in tasks {
        let kept = report.kept.get(task).copied().unwrap_or(0.0);
        let mut row = vec![
            cell(Tone::Name, task),
            number(figures::percent(kept)),
            cell(Tone::Good, figures::bar(kept, BAR / 2)),
        ];
        if let Some(rescalers) = &report.rescalers {
            row.push(number(rescalers.get(task).map_or_else(String::new, |factor| format!("{factor:.3}"))));
        }
        row.extend(tasks.iter().map(|other| agreement(report, task, other)));
        table.add_row(row);
    }
    page.table(table);
}

/// Jaccard index of two tasks' masks.
fn agreement(report: &MaskReport, task: &str, other: &str) -> Cell {
    let pair =
        report.agreement.iter().find(|(a, b, _)| (a == task && b == other) || (a == other && b == task));
    match pair {
        Some((.., agreement)) => number(format!("{agreement:.2}")),
        None => cell(Tone::Faint, "–").set_alignment(comfy_table::CellAlignment::Right),
    }
}

/// Layers of one stack, such as all of `language_model.model.layers`.
struct Stack<'a> {
    name: String,
    layers: Vec<&'a LayerReport>,
}

/// One row a stack of layers, in the order of the report; what lies outside layers shares one row.
fn stacks(layers: &[LayerReport]) -> Vec<Stack<'_>> {
    const OUTSIDE: &str = "outside layers";
    let mut stacks: Vec<Stack<'_>> = Vec::new();
    for layer in layers {
        let stack = match layer.layer.rsplit_once('.') {
            Some((stack, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => stack,
            _ => OUTSIDE,
        };
        match stacks.iter_mut().find(|other| other.name == stack) {
            Some(stack) => stack.layers.push(layer),
            None => stacks.push(Stack { name: stack.to_owned(), layers: vec![layer] }),
        }
    }
    stacks.sort_by_key(|stack| stack.name == OUTSIDE);
    stacks
}

fn layers(layers: &[LayerReport], page: &mut Page) {
    page.heading("Selfish ratio by layer", "");
    let mut table = table(["layers", "count", "least", "first to last", "most", "mean"]);
    for Stack { name, layers } in stacks(layers) {
        let ratios: Vec<f64> = layers.iter().map(|layer| layer.selfish_ratio).collect();
        let elements: u64 = layers.iter().map(|layer| layer.elements).sum();
        let selfish: f64 = layers.iter().map(|layer| layer.selfish_ratio * layer.elements as f64).sum();
        let (min, max) = figures::extremes(&ratios);
        table.add_row([
            cell(Tone::Name, name),
            number(layers.len()),
            number(figures::percent(min)),
            cell(Tone::Good, figures::sparkline(&ratios, (min, max))),
            number(figures::percent(max)),
            number(figures::percent(if elements == 0 { 0.0 } else { selfish / elements as f64 })),
        ]);
    }
    page.table(table);
}

/// One row a block: how far the experts are apart.
fn action_expert(blocks: &[BlockDistances], page: &mut Page) {
    if blocks.is_empty() {
        return;
    }
    page.heading("Action expert", "relative L2 distance between experts, mean over pairs");
    let most = blocks.iter().filter_map(|block| block.mean).fold(f64::MIN_POSITIVE, f64::max);
    let mut table = table(["block", "distance", "", ""]);
    for block in blocks {
        let (tone, kept) =
            if block.per_task { (Tone::Warning, "per task") } else { (Tone::Good, "averaged") };
        let name = if block.block.bytes().all(|byte| byte.is_ascii_digit()) {
            number(&block.block)
        } else {
            cell(Tone::Plain, &block.block)
        };
        // One expert has nobody to be compared with.
        let (mean, bar) = match block.mean {
            Some(mean) => (format!("{mean:.3}"), figures::bar(mean / most, BAR)),
            None => ("–".to_owned(), String::new()),
        };
        table.add_row([name, number(mean), cell(tone, bar), cell(tone, kept)]);
    }
    page.table(table);
    let not_compared: Vec<&str> = blocks.iter().flat_map(|b| &b.not_compared).map(String::as_str).collect();
    if !not_compared.is_empty() {
        page.facts([("not compared, shapes differ", not_compared.join(", "))]);
    }
}
