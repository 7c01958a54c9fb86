//! Singular values of the merged task vector.

use std::collections::BTreeMap;

use skillweld_chart::{Chart, number};

use super::Section;
use super::html::{code, figure, table};
use crate::{Report, ReportError, Spectrum};

pub(super) fn section(report: &Report) -> Result<Section, ReportError> {
    report.section("spectra", "Spectrum of τ", || {
        let mut html = "<p>Singular values of τ in a few layers of every stack, two matrices each. One LoRA expert has as many directions as \
                        its rank; a merged τ has more, because electing signs and taking entries is no sum of factors.</p>\n"
            .to_owned();
        let mut groups: BTreeMap<(&str, &str), Vec<&Spectrum>> = BTreeMap::new();
        for spectrum in &report.spectra {
            groups.entry((&spectrum.stack, &spectrum.matrix)).or_default().push(spectrum);
        }
        for (group, ((stack, matrix), spectra)) in groups.into_iter().enumerate() {
            let title = format!("{stack}.*.{matrix}");
            let mut chart = Chart::lines(&title, "singular value", "σ / σ₁").y_logarithmic().size(760, 300);
            for spectrum in spectra {
                // Below this a Gram matrix in f64 has only rounding to tell.
                let seen = spectrum.places.iter().zip(&spectrum.relative).filter(|(_, value)| **value > 1e-7);
                let points = seen.map(|(&place, &value)| (place as f64, value));
                chart = chart.series(&format!("layer {}", spectrum.index), points);
            }
            let chart = chart.description("Singular values relative to the largest, on a logarithmic scale");
            let caption = match group {
                0 => "A line that falls steeply, or ends, is a τ of few directions, which factored methods handle cheaply; a flat one uses \
                      the whole space.",
                _ => "",
            };
            html.push_str(&figure(&chart.to_inline_svg()?, caption));
        }
        let rows: Vec<Vec<String>> = report
            .spectra
            .iter()
            .map(|spectrum| {
                let [rows, columns] = spectrum.shape;
                vec![
                    code(&spectrum.key),
                    format!("{rows} × {columns}"),
                    number(spectrum.largest),
                    number(spectrum.effective_rank),
                    number(spectrum.stable_rank),
                    spectrum.rank_of_90_percent.to_string(),
                ]
            })
            .collect();
        let headings = ["matrix", "#shape", "#σ₁", "#effective rank", "#stable rank", "#σ for 90 %"];
        html.push_str(&table(&headings, &rows));
        html.push_str(
            "<p>Effective rank: e to the entropy of σ / Σσ. Stable rank: ‖τ‖² / σ₁². Last: how many singular values hold 90 % of ‖τ‖².</p>\n",
        );
        Ok(html)
    })
}
