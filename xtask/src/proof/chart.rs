//! Success rates as pictures.

use anyhow::Result;
use skillweld_chart::{Bars, Chart, Plane};
use skillweld_rate::Rate;

/// Of every axis of rates.
const SUCCESS: &str = "success in percent";

/// A bar a series for everything that is named.
pub(super) fn bars<'a>(
    title: &str,
    names: impl IntoIterator<Item = &'a str>,
    series: &[(&str, Vec<Rate>)],
) -> Result<String> {
    let chart = Chart::bars(title, SUCCESS).groups(names).y_range(0.0, 100.0);
    let add = |chart: Bars, (name, rates): &(&str, Vec<Rate>)| {
        let bounds = rates.iter().map(|rate| rate.interval().map(|end| 100.0 * end).into());
        chart.series(name, rates.iter().map(|rate| 100.0 * rate.share())).spread(bounds)
    };
    Ok(series.iter().fold(chart, add).to_svg()?)
}

/// A line a series over a number, with the intervals around it.
pub(super) fn lines(title: &str, x_label: &str, series: &[(&str, Vec<(f64, Rate)>)]) -> Result<String> {
    let chart = Chart::lines(title, x_label, SUCCESS).y_range(0.0, 100.0);
    let add = |chart: Plane, (name, points): &(&str, Vec<(f64, Rate)>)| {
        let bounds = points.iter().map(|(x, rate)| {
            let [low, high] = rate.interval();
            (*x, 100.0 * low, 100.0 * high)
        });
        chart.series(name, points.iter().map(|(x, rate)| (*x, 100.0 * rate.share()))).band(bounds)
    };
    Ok(series.iter().fold(chart, add).to_svg()?)
}
