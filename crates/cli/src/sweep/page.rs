//! What came of a sweep, on paper.

use std::path::Path;

use serde_json::{Value, json};
use skillweld_sweep::{Axis, PointSummary, Summary};

use crate::console::{Console, Page, Tone, cell, number, table};
use crate::figures;

/// Width of bars, in columns.
const BAR: usize = 16;

pub(crate) fn page(
    axes: &[Axis],
    summary: &Summary,
    (out, kept): (&Path, Option<&Path>),
    console: Console,
) -> Page {
    let mut page = Page::new(console);
    let metrics = summary.metrics();
    let repeated = summary.points.iter().any(|point| point.std.is_some());
    let mut headings: Vec<&str> = axes.iter().map(|axis| axis.field.as_str()).collect();
    headings.push("score");
    if repeated {
        headings.extend(["±", "least", "most"]);
    }
    headings.push("");
    headings.extend(&metrics);
    headings.push("");
    let means: Vec<f64> = summary.points.iter().filter_map(|point| point.mean).collect();
    let (low, high) = figures::extremes(&means);
    let mut rows = table(headings);
    for point in &summary.points {
        let tone = if point.best { Tone::Strong } else { Tone::Plain };
        let value = |value: Option<f64>| number(value.map_or_else(|| "–".to_owned(), figure));
        let mut row: Vec<_> = point.settings.values().map(number).collect();
        let mean = point.mean.map_or_else(|| "–".to_owned(), figure);
        row.push(cell(tone, mean).set_alignment(comfy_table::CellAlignment::Right));
        if repeated {
            row.extend([point.std, point.min, point.max].map(value));
        }
        // The least is still to be seen.
        let share =
            point.mean.map_or(0.0, |mean| 0.1 + 0.9 * (mean - low) / (high - low).max(f64::MIN_POSITIVE));
        row.push(cell(Tone::Good, figures::bar(share, BAR)));
        row.extend(metrics.iter().map(|name| value(point.metrics.get(*name).copied())));
        row.push(remark(point));
        rows.add_row(row);
    }
    page.heading(
        "Sweep",
        format!("{} in {}", figures::counted(summary.points.len() as u64, "point"), out.display()),
    );
    page.table(rows);
    let best = summary
        .best()
        .map_or_else(|| "none: no point has all its scores".to_owned(), |best| best.point.clone());
    let kept = kept.map(|kept| kept.display().to_string()).unwrap_or_default();
    let files = ["results.csv", "results.json", "sweep.svg"];
    let files = files.map(|name| out.join(name)).into_iter().filter(|path| path.exists());
    let files = files.map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    page.line("");
    page.facts([("best", best), ("merged into", kept), ("written", files)]);
    page
}

fn remark(point: &PointSummary) -> comfy_table::Cell {
    let all = point.scores.len() + point.failed.len() + point.missing;
    match point.failed.len() {
        0 if point.best => cell(Tone::Good, "best"),
        0 => cell(Tone::Plain, ""),
        failed => cell(Tone::Bad, format!("{failed} of {all} failed")),
    }
}

/// A score with as many digits as are worth reading.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value.fract() == 0.0 && size < 1e6 => format!("{value}"),
        s if (1e-3..1e6).contains(&s) => format!("{value:.digits$}", digits = if s < 10.0 { 4 } else { 2 }),
        _ => format!("{value:.3e}"),
    }
}

/// For a script.
pub(crate) fn document(summary: &Summary, out: &Path, kept: Option<&Path>) -> Value {
    json!({
        "output": out.canonicalize().unwrap_or_else(|_| out.to_owned()),
        "best": summary.best().map(|best| &best.point),
        "best_checkpoint": kept,
        "failed_points": summary.failed(),
        "minimize": summary.minimize,
        "points": summary.points,
    })
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn scores_have_the_digits_worth_reading() {
        let shown = [0.0, 3.0, 0.71234, 12.3456, -0.5, 1e-9, 1234567.5].map(figure);
        assert_eq!(shown, ["0", "3", "0.7123", "12.35", "-0.5000", "1.000e-9", "1.235e6"]);
    }
}
