//! The files that a sweep leaves for others to read. They depend on scores alone: not on time, order or interruptions.

use std::fs;
use std::path::Path;

use serde_json::json;
use skillweld_store::replace_file;

use crate::SweepError;
use crate::ledger::Definition;
use crate::plot;
use crate::summary::{PointSummary, Summary};

/// Writes all of them.
pub(crate) fn write(
    dir: &Path,
    definition: &Definition,
    seeds: u64,
    summary: &Summary,
) -> Result<(), SweepError> {
    replace_file(&dir.join("results.csv"), csv(definition, summary).as_bytes())?;
    let document = json!({
        "recipe_blake3": definition.recipe_blake3,
        "axes": definition.axes,
        "eval": definition.eval,
        "seeds": seeds,
        "minimize": summary.minimize,
        "best": summary.best().map(|best| &best.point),
        "points": summary.points,
    });
    replace_file(&dir.join("results.json"), format!("{document:#}\n").as_bytes())?;
    let plot_path = dir.join("sweep.svg");
    match plot::svg(&definition.axes, summary) {
        Some(svg) => Ok(replace_file(&plot_path, svg.as_bytes())?),
        None if plot_path.exists() => {
            fs::remove_file(&plot_path).map_err(SweepError::io("remove", &plot_path))
        }
        None => Ok(()),
    }
}

/// One row a point.
fn csv(definition: &Definition, summary: &Summary) -> String {
    let metrics = summary.metrics();
    let fields = definition.axes.iter().map(|axis| axis.field.as_str());
    let figures = ["runs", "failed", "mean", "std", "min", "max", "best"];
    let headings: Vec<String> = fields.chain(figures).chain(metrics.iter().copied()).map(cell).collect();
    let mut text = headings.join(",") + "\n";
    for point in &summary.points {
        let PointSummary { settings, scores, failed, mean, std, min, max, best, .. } = point;
        let number = |value: &Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let mut row: Vec<String> = settings.values().map(|value| cell(value)).collect();
        row.extend([scores.len().to_string(), failed.len().to_string()]);
        row.extend([mean, std, min, max].map(number));
        row.push(u8::from(*best).to_string());
        row.extend(metrics.iter().map(|name| number(&point.metrics.get(*name).copied())));
        text += &(row.join(",") + "\n");
    }
    text
}

/// RFC 4180.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(super::cell("mask.lambda"), "mask.lambda");
        assert_eq!(super::cell("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
