//! Scores as a picture: a line with its spread over one field of numbers, bars over one of words, a heat map over two.

use skillweld_chart::Chart;

use crate::Axis;
use crate::summary::{PointSummary, Summary};

/// `None` for more than two fields, and where nothing has a score.
pub(crate) fn svg(axes: &[Axis], summary: &Summary) -> Option<String> {
    let mean = |point: &PointSummary| point.mean.unwrap_or(f64::NAN);
    let drawn = match axes {
        [axis] => match axis.numbers() {
            Some(numbers) => {
                let mut rows: Vec<(f64, &PointSummary)> = numbers.into_iter().zip(&summary.points).collect();
                rows.sort_by(|a, b| a.0.total_cmp(&b.0));
                let spread = rows.iter().filter_map(|(x, point)| {
                    let (mean, std) = (point.mean?, point.std?);
                    Some((*x, mean - std, mean + std))
                });
                Chart::lines(&format!("score by {}", axis.field), &axis.field, "score")
                    .series("mean", rows.iter().map(|(x, point)| (*x, mean(point))))
                    .band(spread)
                    .description(description(summary))
                    .to_svg()
            }
            None => Chart::bars(&format!("score by {}", axis.field), "score")
                .groups(axis.values.iter().map(String::as_str))
                .series("mean", summary.points.iter().map(mean))
                .description(description(summary))
                .to_svg(),
        },
        [rows, columns] => {
            let title = format!("score by {} (rows) and {} (columns)", rows.field, columns.field);
            let map = Chart::heat_map(&title).columns(columns.values.iter().map(String::as_str));
            let of_row = rows.values.iter().zip(summary.points.chunks(columns.values.len()));
            of_row
                .fold(map, |map, (name, points)| map.row(name, points.iter().map(mean)))
                .description(description(summary))
                .to_svg()
        }
        _ => return None,
    };
    drawn.ok()
}

fn description(summary: &Summary) -> String {
    let best = summary.best().map(|best| format!("; the best is {}", best.point)).unwrap_or_default();
    format!("{} points{best}", summary.points.len())
}
