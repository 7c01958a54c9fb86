use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::frame::{Area, Drawn, Frame, anchored, framed, px, text};
use crate::number::significant;
use crate::theme::Role;
use crate::{ChartError, number};

/// Longer series are lines without points.
const MOST_MARKS: usize = 80;

/// Series of points in a plane, joined by lines or not.
#[derive(Debug, Clone)]
pub struct Plane {
    frame: Frame,
    x_label: String,
    y_label: String,
    joined: bool,
    series: Vec<Series>,
    references: Vec<(String, f64)>,
    y_range: Option<(f64, f64)>,
    y_logarithmic: bool,
}

#[derive(Debug, Clone, Default)]
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    band: Vec<(f64, f64, f64)>,
}

framed!(Plane);

impl Plane {
    pub(crate) fn new(title: &str, x_label: &str, y_label: &str, joined: bool) -> Self {
        Self {
            frame: Frame::new(title, 760, 320),
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            joined,
            series: Vec::new(),
            references: Vec::new(),
            y_range: None,
            y_logarithmic: false,
        }
    }

    /// A series of (x, y). Points that are not finite, or beyond ±10³⁰⁰, are left out, and lines end there.
    #[must_use]
    pub fn series(mut self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| (drawable(x), drawable(y))).collect();
        self.series.push(Series { name: name.to_owned(), points, band: Vec::new() });
        self
    }

    /// The spread around the series named last, as (x, lowest, highest).
    #[must_use]
    pub fn band(mut self, bounds: impl IntoIterator<Item = (f64, f64, f64)>) -> Self {
        if let Some(series) = self.series.last_mut() {
            series.band =
                bounds.into_iter().map(|(x, a, b)| (drawable(x), drawable(a), drawable(b))).collect();
        }
        self
    }

    /// A value to compare with: a thin line across, with its name on it.
    #[must_use]
    pub fn reference(mut self, name: &str, y: f64) -> Self {
        self.references.push((name.to_owned(), drawable(y)));
        self
    }

    /// What the y axis covers at least: it still grows to cover all values.
    #[must_use]
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y_range = Some((low, high));
        self
    }

    /// Powers of ten on the y axis; values that are not above zero are left out.
    #[must_use]
    pub fn y_logarithmic(mut self) -> Self {
        self.y_logarithmic = true;
        self
    }

    /// What is drawn for a value of y; NaN where nothing is.
    fn drawn_y(&self, y: f64) -> f64 {
        if self.y_logarithmic { if y > 0.0 { y.log10() } else { f64::NAN } } else { y }
    }

    /// Whole runs of finite points, as they are drawn.
    fn runs(&self, series: &Series) -> Vec<Vec<(f64, f64)>> {
        let drawn: Vec<_> = series.points.iter().map(|&(x, y)| (x, self.drawn_y(y))).collect();
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        drawn.split(|point| !finite(point)).filter(|run| !run.is_empty()).map(<[_]>::to_vec).collect()
    }

    fn bounds(&self, series: &Series) -> Vec<(f64, f64, f64)> {
        let drawn = series.band.iter().map(|&(x, low, high)| (x, self.drawn_y(low), self.drawn_y(high)));
        drawn.filter(|(x, low, high)| x.is_finite() && low.is_finite() && high.is_finite()).collect()
    }

    /// What the axes cover; `None` without a finite point.
    fn ranges(&self) -> Option<[(f64, f64); 2]> {
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        for series in &self.series {
            for (x, y) in self.runs(series).into_iter().flatten() {
                xs.push(x);
                ys.push(y);
            }
            for (x, low, high) in self.bounds(series) {
                xs.push(x);
                ys.extend([low, high]);
            }
        }
        if xs.is_empty() {
            return None;
        }
        ys.extend(self.references.iter().map(|(_, y)| self.drawn_y(*y)));
        if let Some((low, high)) = self.y_range {
            ys.extend([self.drawn_y(low), self.drawn_y(high)]);
        }
        ys.retain(|y| y.is_finite());
        let x = spread(extremes(&xs), if self.joined { 0.01 } else { 0.05 });
        let (low, high) = extremes(&ys);
        let (padded_low, padded_high) = spread(unhurried((low, high), self.y_logarithmic), 0.06);
        // Zero is where values begin, if they come near it at all.
        let from_zero = !self.y_logarithmic && low >= 0.0 && low < 0.4 * high;
        let given = |y: f64| self.y_range.is_some_and(|(a, b)| y == self.drawn_y(a) || y == self.drawn_y(b));
        let low = match low {
            _ if given(low) => low,
            _ if from_zero => 0.0,
            _ => padded_low,
        };
        let high = if given(high) && high > low { high } else { padded_high };
        Some([x, (low, high)])
    }

    fn drawn(&self, standalone: bool) -> Result<String, ChartError> {
        let Some(ranges) = self.ranges() else {
            let title = self.frame.title.clone();
            let any = self.series.iter().flat_map(|series| &series.points).any(|(_, y)| y.is_finite());
            return Err(if self.y_logarithmic && any {
                ChartError::Logarithm { title }
            } else {
                self.frame.empty()
            });
        };
        let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        // One series is what the axis says.
        let names = if names.len() > 1 { names } else { Vec::new() };
        self.frame.draw(&names, standalone, |area| self.draw(area, ranges))
    }

    /// True when most of what stands at the right lies above `value`.
    fn is_below(&self, value: f64, x: (f64, f64)) -> bool {
        let right = x.0 + 0.7 * (x.1 - x.0);
        let points = self.series.iter().flat_map(|series| self.runs(series)).flatten();
        let sides = points.filter(|point| point.0 >= right).map(|point| if point.1 > value { 1 } else { -1 });
        sides.sum::<i64>() > 0
    }

    fn draw(&self, area: &Area<'_>, [x, y]: [(f64, f64); 2]) -> Drawn<Vec<String>> {
        let mut chart = ChartBuilder::on(area)
            .margin_right(px(10))
            .margin_top(px(8))
            .x_label_area_size(px(44))
            .y_label_area_size(px(66))
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        // Numbers of layers have nothing between them.
        let whole = self.series.iter().flat_map(|series| &series.points).all(|(x, _)| x.fract() == 0.0);
        let x_tick = |x: &f64| if whole && x.fract() != 0.0 { String::new() } else { significant(*x, 4) };
        // So many that two ticks are not the same.
        let digits = 2 + (y.0.abs().max(y.1.abs()) / (y.1 - y.0)).log10().ceil().clamp(1.0, 10.0) as usize;
        let y_tick = |y: &f64| {
            if self.y_logarithmic { significant(10f64.powf(*y), 2) } else { significant(*y, digits) }
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Role::Grid.colour().stroke_width(crate::frame::SCALE))
            .axis_style(Role::Axis.colour().stroke_width(crate::frame::SCALE))
            .label_style(text(11, Role::Faint))
            .axis_desc_style(text(12, Role::Faint))
            .x_desc(self.x_label.as_str())
            .y_desc(self.y_label.as_str())
            .x_labels(10)
            .y_labels(6)
            .x_label_formatter(&x_tick)
            .y_label_formatter(&y_tick)
            .set_all_tick_mark_size(px(3))
            .draw()?;
        for (name, value) in &self.references {
            let value = self.drawn_y(*value);
            let line = DashedLineSeries::new(
                [(x.0, value), (x.1, value)],
                px(5) as u32,
                px(4) as u32,
                Role::Axis.colour().stroke_width(px(1) as u32),
            );
            chart.draw_series(line)?;
            let place = area_relative(area, chart.backend_coord(&(x.1, value)));
            // On the side of the line on which there is less of the data.
            let below = self.is_below(value, x);
            let (side, gap) = if below { (VPos::Top, px(3)) } else { (VPos::Bottom, -px(3)) };
            let style = anchored(&text(11, Role::Faint), HPos::Right, side);
            area.draw_text(name, &style, (place.0 - px(2), place.1 + gap))?;
        }
        for (index, series) in self.series.iter().enumerate() {
            let bounds = self.bounds(series);
            if bounds.len() > 1 {
                let lower = bounds.iter().map(|&(x, low, _)| (x, low));
                let upper = bounds.iter().rev().map(|&(x, _, high)| (x, high));
                let outline: Vec<_> = lower.chain(upper).collect();
                let fill = Role::Series(index).colour().mix(0.18).filled();
                chart.draw_series(std::iter::once(Polygon::new(outline, fill)))?;
            }
        }
        let mut marks = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            let colour = Role::Series(index).colour();
            let runs = self.runs(series);
            if self.joined {
                for run in &runs {
                    let line = LineSeries::new(run.iter().copied(), colour.stroke_width(px(2) as u32));
                    chart.draw_series(line)?;
                }
            }
            let points: Vec<_> = runs.into_iter().flatten().collect();
            if self.joined && points.len() > MOST_MARKS {
                continue;
            }
            let radius = if self.joined { px(3) } else { px(4) };
            for (x, y) in points {
                chart.draw_series(std::iter::once(Circle::new((x, y), radius, colour.filled())))?;
                let value = if self.y_logarithmic { 10f64.powf(y) } else { y };
                marks.push(format!(
                    "{}: {} {}, {} {}",
                    series.name,
                    self.x_label,
                    significant(x, 4),
                    self.y_label,
                    number(value)
                ));
            }
        }
        Ok(marks)
    }
}

/// A place of the whole drawing as one of an area of it.
fn area_relative(area: &Area<'_>, place: (i32, i32)) -> (i32, i32) {
    let (x, y) = area.get_base_pixel();
    (place.0 - x, place.1 - y)
}

/// What varies by less than a tenth of itself gets room around it: noise should not look like a mountain range.
fn unhurried((low, high): (f64, f64), logarithmic: bool) -> (f64, f64) {
    let least = if logarithmic { 0.5 } else { 0.1 * low.abs().max(high.abs()) };
    let room = ((least - (high - low)) / 2.0).max(0.0);
    (low - room, high + room)
}

/// Least and greatest.
pub(crate) fn extremes(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
}

/// A value, or NaN for one that no axis reaches: of widths that overflow plotters looks for ticks for ever.
pub(crate) fn drawable(value: f64) -> f64 {
    if value.abs() <= 1e300 { value } else { f64::NAN }
}

/// A range with a share of it added at both ends; one value gets room around it.
pub(crate) fn spread((low, high): (f64, f64), share: f64) -> (f64, f64) {
    let room = match high - low {
        0.0 if low == 0.0 => 0.5,
        0.0 => low.abs() * 0.1,
        width => width * share,
    };
    (low - room, high + room)
}
