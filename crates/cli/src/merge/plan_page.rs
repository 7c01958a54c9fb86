//! A plan on paper.

use skillweld_merge::{ActionKind, Part, PlanLine, PlanSummary};
use skillweld_tensor::Dtype;

use crate::console::{Console, Page, Tone, cell, count, number, table};
use crate::{figures, keys};

/// Totals, notes and what is refused, and a blank line before what comes of it.
pub(crate) fn compact(summary: &PlanSummary, console: Console) -> Page {
    let mut page = Page::new(console);
    head(summary, &mut page);
    totals(summary, &mut page);
    refused(summary, &mut page);
    page.line("");
    page
}

/// The same, and every key.
pub(crate) fn whole(summary: &PlanSummary, console: Console) -> Page {
    let mut page = Page::new(console);
    head(summary, &mut page);
    totals(summary, &mut page);
    all_keys(summary, &mut page);
    left_out(summary, &mut page);
    refused(summary, &mut page);
    page
}

/// Mean size of a planned element in the output.
pub(crate) fn bytes_per_element(summary: &PlanSummary) -> f64 {
    let written = || summary.tensors.iter().filter(|line| line.action != ActionKind::LeftOut);
    let elements: u64 = written().map(elements).sum();
    let bytes: u64 = written().map(bytes).sum();
    if elements == 0 { 0.0 } else { bytes as f64 / elements as f64 }
}

fn elements(line: &PlanLine) -> u64 {
    line.shape.iter().map(|&n| n as u64).product()
}

fn bytes(line: &PlanLine) -> u64 {
    let bits = Dtype::parse_lenient(&line.dtype).map_or(0, Dtype::bits) as u64;
    (elements(line) * bits).div_ceil(8)
}

fn head(summary: &PlanSummary, page: &mut Page) {
    page.heading("Plan", "");
    let masks = summary.mask.as_ref().map(|mask| format!(" with {mask} masks")).unwrap_or_default();
    page.facts([
        ("method", format!("{}{masks}", summary.method)),
        ("family", summary.family.clone()),
        ("base", summary.base.clone().unwrap_or_default()),
        ("models", summary.tasks.join(", ")),
    ]);
    page.line("");
}

fn tone(action: ActionKind) -> Tone {
    match action {
        ActionKind::Merged => Tone::Good,
        ActionKind::Refused => Tone::Bad,
        ActionKind::Copied | ActionKind::LeftOut => Tone::Faint,
        _ => Tone::Plain,
    }
}

fn totals(summary: &PlanSummary, page: &mut Page) {
    let mut rows: Vec<((Part, ActionKind), [u64; 3])> = Vec::new();
    for line in &summary.tensors {
        let group = (line.part, line.action);
        let added = [1, elements(line), bytes(line)];
        match rows.iter_mut().find(|(other, _)| *other == group) {
            Some((_, sums)) => sums.iter_mut().zip(added).for_each(|(sum, added)| *sum += added),
            None => rows.push((group, added)),
        }
    }
    rows.sort_by_key(|((part, _), [_, _, bytes])| (*part != Part::Model, std::cmp::Reverse(*bytes)));
    let mut table = table(["part", "action", "tensors", "elements", "size"]);
    for ((part, action), [tensors, elements, bytes]) in rows {
        let size = number(figures::bytes(bytes as f64));
        let elements = number(figures::elements(elements));
        table.add_row([cell(Tone::Plain, part), cell(tone(action), action), count(tensors), elements, size]);
    }
    page.table(table);
    for note in &summary.notes {
        let label = page.paint(Tone::Name, "note:");
        page.line(format!("  {label} {note}"));
    }
}

fn all_keys(summary: &PlanSummary, page: &mut Page) {
    page.heading("Tensors", format!("{} of them", figures::count(summary.tensors.len() as u64)));
    let lines = summary.tensors.iter();
    let groups = keys::group(lines.map(|line| {
        (
            line.key.as_str(),
            (line.part, line.action, line.dtype.as_str(), line.shape.as_slice(), line.modality.as_str()),
        )
    }));
    let row = |group: &keys::Group<(Part, ActionKind, &str, &[usize], &str)>| {
        let (_, action, dtype, shape, modality) = group.common;
        let cells = vec![
            count(group.members),
            cell(Tone::Plain, dtype),
            cell(Tone::Plain, figures::shape(shape)),
            cell(Tone::Plain, modality),
            cell(tone(action), action),
        ];
        (group.to_string(), cells)
    };
    let headings = ["key", "tensors", "dtype", "shape", "modality", "action"];
    page.table_of_names(&headings, groups.iter().map(row).collect());
}

fn left_out(summary: &PlanSummary, page: &mut Page) {
    let about = "no part of the output";
    reasons(summary, ActionKind::LeftOut, ("Left out", about), page);
}

fn refused(summary: &PlanSummary, page: &mut Page) {
    let about = "nothing can be merged until these are mended";
    reasons(summary, ActionKind::Refused, ("Refused", about), page);
}

/// The tensors with this action, and why, if there are any.
fn reasons(summary: &PlanSummary, action: ActionKind, (heading, about): (&str, &str), page: &mut Page) {
    let lines = summary.tensors.iter().filter(|line| line.action == action);
    let groups = keys::group(lines.filter_map(|line| Some((line.key.as_str(), line.reason.as_deref()?))));
    if groups.is_empty() {
        return;
    }
    page.heading(heading, about);
    let mut table = table(["key", "tensors", "reason"]);
    for group in groups {
        table.add_row([cell(tone(action), &group), count(group.members), cell(Tone::Plain, group.common)]);
    }
    page.table(table);
}
