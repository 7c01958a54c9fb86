//! Charts as SVG, for pages that run no script and ask no network.
//!
//! ```
//! use skillweld_chart::Chart;
//!
//! let svg = Chart::lines("Success by α", "α", "success rate")
//!     .series("goal", [(0.1, 0.42), (0.5, 0.71), (0.9, 0.66)])
//!     .band([(0.1, 0.36, 0.48), (0.5, 0.66, 0.76), (0.9, 0.58, 0.74)])
//!     .to_svg()?;
//! assert!(svg.starts_with("<svg"));
//! # Ok::<(), skillweld_chart::ChartError>(())
//! ```
//!
//! - [`Chart::lines`] and [`Chart::scatter`] give a [`Plane`], [`Chart::bars`] gives [`Bars`], [`Chart::heat_map`] a
//!   [`HeatMap`].
//! - `to_svg` is a whole file with its colours; `to_inline_svg` leaves them to the page, whose style sheet has [`style`] in it.
//! - Colours are classes ([`style`] is the one place that says what they are, for light and for dark pages). Series and the
//!   sequential map of heat maps can be told apart without seeing red or green.
//! - Every chart has a title and a description for those who do not see it, and its marks say their values when pointed at.
//!
//! plotters lays out and draws; this crate knows nothing of what is drawn.

mod bars;
mod error;
mod frame;
mod heat_map;
mod number;
mod plane;
mod svg;
mod theme;

pub use bars::Bars;
pub use error::ChartError;
pub use heat_map::HeatMap;
pub use number::number;
pub use plane::Plane;
pub use theme::style;

/// Where charts begin.
#[derive(Debug)]
pub enum Chart {}

impl Chart {
    /// Points of each series joined by lines.
    pub fn lines(title: &str, x_label: &str, y_label: &str) -> Plane {
        Plane::new(title, x_label, y_label, true)
    }

    /// Points of each series.
    pub fn scatter(title: &str, x_label: &str, y_label: &str) -> Plane {
        Plane::new(title, x_label, y_label, false)
    }

    /// One group of bars a name, one bar a series in it.
    pub fn bars(title: &str, y_label: &str) -> Bars {
        Bars::new(title, y_label)
    }

    /// A matrix of numbers as colours.
    pub fn heat_map(title: &str) -> HeatMap {
        HeatMap::new(title)
    }
}
