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
    let csv_path = dir.join("results.csv");
    replace_file(&csv_path, &csv(definition, summary).map_err(SweepError::io("write", &csv_path))?)?;
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
fn csv(definition: &Definition, summary: &Summary) -> std::io::Result<Vec<u8>> {
    let metrics = summary.metrics();
    let fields = definition.axes.iter().map(|axis| axis.field.as_str());
    let figures = ["runs", "failed", "mean", "std", "min", "max", "best"];
    let headings = fields.chain(figures).chain(metrics.iter().copied()).map(str::to_owned).collect();
    let points = summary.points.iter().map(|point| {
        let PointSummary { settings, scores, failed, mean, std, min, max, best, .. } = point;
        let number = |value: &Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let mut row: Vec<String> = settings.values().map(ToString::to_string).collect();
        row.extend([scores.len().to_string(), failed.len().to_string()]);
        row.extend([mean, std, min, max].map(number));
        row.push(u8::from(*best).to_string());
        row.extend(metrics.iter().map(|name| number(&point.metrics.get(*name).copied())));
        row
    });
    table(std::iter::once(headings).chain(points))
}

fn table(rows: impl IntoIterator<Item = Vec<String>>) -> std::io::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    rows.into_iter().try_for_each(|row| table.write_record(row))?;
    table.into_inner().map_err(csv::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let row = ["mask.lambda", "a,\"b\"", ""].map(str::to_owned).to_vec();
        assert_eq!(super::table([row]).unwrap(), b"mask.lambda,\"a,\"\"b\"\"\",\n");
    }
}
