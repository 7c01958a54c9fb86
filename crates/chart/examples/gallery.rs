//! One chart of each kind on a page: `cargo run -p skillweld-chart --example gallery > gallery.html`.

#![allow(clippy::print_stdout, reason = "its output is the page")]

use skillweld_chart::{Chart, ChartError, style};

fn main() -> Result<(), ChartError> {
    let wave =
        |phase: f64| (0..=24).map(move |x| (f64::from(x), (f64::from(x) / 4.0 + phase).sin() * 0.2 + 0.7));
    let lines = Chart::lines("Share kept by layer", "layer", "share kept")
        .description("Two waves around 0.7")
        .series("spatial", wave(0.0))
        .band(wave(0.0).map(|(x, y)| (x, y - 0.05, y + 0.05)))
        .series("goal", wave(2.0))
        .reference("the paper's 0.75", 0.75)
        .y_range(0.0, 1.0);
    let spectrum = Chart::lines("Spectrum", "index", "σ / σ₁")
        .series("layer 0", (1..=64).map(|i| (f64::from(i), (-f64::from(i) / 5.0).exp())))
        .series("layer 23", (1..=64).map(|i| (f64::from(i), (-f64::from(i) / 9.0).exp())))
        .y_logarithmic();
    let scatter = Chart::scatter("Norm and cosine", "norm", "cosine")
        .series("vision", (0..12).map(|i| (f64::from(i * i % 7), f64::from(i) / 13.0)));
    let blocks: Vec<String> = (0..24).map(|i| i.to_string()).collect();
    let bars = Chart::bars("Distance of blocks", "relative L2 distance")
        .groups(blocks.iter().map(String::as_str))
        .series("mean", (0..24).map(|i| f64::from(i) / 20.0))
        .series("largest", (0..24).map(|i| if i == 3 { f64::NAN } else { f64::from(i) / 15.0 }));
    let tasks = ["spatial", "object", "goal", "long"];
    let mut map = Chart::heat_map("Agreement of masks").columns(tasks).range(0.0, 1.0);
    for (i, task) in tasks.into_iter().enumerate() {
        map = map.row(task, (0..4).map(|j| if i == j { 1.0 } else { 0.1 + 0.2 * (i + j) as f64 / 2.0 }));
    }
    let charts = [
        lines.to_inline_svg()?,
        spectrum.to_inline_svg()?,
        scatter.to_inline_svg()?,
        bars.to_inline_svg()?,
        map.to_inline_svg()?,
    ];
    println!(
        "<!doctype html><meta charset=\"utf-8\"><title>Charts</title><style>{}:root{{color-scheme:light dark}}\
         body{{max-width:760px;margin:2rem auto}}</style>{}",
        style(),
        charts.join("\n")
    );
    Ok(())
}
