use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::frame::{Area, Drawn, Frame, SCALE, anchored, framed, px, text, text_width};
use crate::number::significant;
use crate::plane::{drawable, extremes, spread};
use crate::theme::Role;
use crate::{ChartError, number};

/// Groups of bars.
#[derive(Debug, Clone)]
pub struct Bars {
    frame: Frame,
    y_label: String,
    groups: Vec<String>,
    series: Vec<Series>,
    y_range: Option<(f64, f64)>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    values: Vec<f64>,
    /// Lowest and highest, a pair a bar.
    spread: Vec<(f64, f64)>,
}

framed!(Bars);

impl Bars {
    pub(crate) fn new(title: &str, y_label: &str) -> Self {
        Self {
            frame: Frame::new(title, 760, 300),
            y_label: y_label.to_owned(),
            groups: Vec::new(),
            series: Vec::new(),
            y_range: None,
        }
    }

    /// Names of the groups, from left to right.
    #[must_use]
    pub fn groups<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.groups = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// One bar in every group; none for what is not finite, or beyond ±10³⁰⁰.
    #[must_use]
    pub fn series(mut self, name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let values = values.into_iter().map(drawable).collect();
        self.series.push(Series { name: name.to_owned(), values, spread: Vec::new() });
        self
    }

    /// The spread around the values of the series named last, as (lowest, highest): a thin line through each bar. None for what is
    /// not finite.
    #[must_use]
    pub fn spread(mut self, bounds: impl IntoIterator<Item = (f64, f64)>) -> Self {
        if let Some(series) = self.series.last_mut() {
            series.spread = bounds.into_iter().map(|(low, high)| (drawable(low), drawable(high))).collect();
        }
        self
    }

    /// What the y axis covers at least: it still grows to cover all values, and zero.
    #[must_use]
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y_range = Some((low, high));
        self
    }

    fn drawn(&self, standalone: bool) -> Result<String, ChartError> {
        let expected = self.groups.len();
        for Series { values, spread, .. } in &self.series {
            let lengths = [Some(values.len()), (!spread.is_empty()).then_some(spread.len())];
            if let Some(found) = lengths.into_iter().flatten().find(|found| *found != expected) {
                return Err(ChartError::Shape { title: self.frame.title.clone(), expected, found });
            }
        }
        let values = self.series.iter().flat_map(|series| &series.values);
        let mut values: Vec<f64> = values.copied().filter(|value| value.is_finite()).collect();
        if values.is_empty() {
            return Err(self.frame.empty());
        }
        let ends = self.series.iter().flat_map(|series| &series.spread).flat_map(|&(low, high)| [low, high]);
        values.extend(ends.filter(|end| end.is_finite()));
        // Lengths are compared: bars begin at zero.
        values.push(0.0);
        let (low, high) = extremes(&values);
        let (padded_low, padded_high) = spread((low, high), 0.06);
        let range = (if low == 0.0 { 0.0 } else { padded_low }, if high == 0.0 { 0.0 } else { padded_high });
        let range = self.y_range.map_or(range, |(a, b)| (a.min(low), b.max(high)));
        let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        let names = if names.len() > 1 { names } else { Vec::new() };
        self.frame.draw(&names, standalone, |area| self.draw(area, range))
    }

    fn draw(&self, area: &Area<'_>, range: (f64, f64)) -> Drawn<Vec<String>> {
        let count = self.groups.len();
        let mut chart = ChartBuilder::on(area)
            .margin_right(px(10))
            .margin_top(px(8))
            .x_label_area_size(px(32))
            .y_label_area_size(px(66))
            .build_cartesian_2d(0.0..count as f64, range.0..range.1)?;
        let y_tick = |y: &f64| significant(*y, 3);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Role::Grid.colour().stroke_width(SCALE))
            .axis_style(Role::Axis.colour().stroke_width(SCALE))
            .label_style(text(11, Role::Faint))
            .axis_desc_style(text(12, Role::Faint))
            .y_desc(self.y_label.as_str())
            .y_labels(6)
            .y_label_formatter(&y_tick)
            .set_all_tick_mark_size(px(3))
            .draw()?;
        let (left, _) = chart.backend_coord(&(0.0, range.0));
        let (right, _) = chart.backend_coord(&(count as f64, range.0));
        self.name_groups(area, &chart.backend_coord(&(0.0, range.0)), (right - left) / count.max(1) as i32)?;
        let width = 0.8 / self.series.len().max(1) as f64;
        let mut marks = Vec::new();
        for (index, Series { name, values, spread }) in self.series.iter().enumerate() {
            for (group, &value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
                let start = group as f64 + 0.1 + index as f64 * width;
                let corners = [(start, 0.0), (start + width * 0.94, value)];
                let bar = Rectangle::new(corners, Role::Series(index).colour().filled());
                chart.draw_series(std::iter::once(bar))?;
                if let Some(&(low, high)) = spread.get(group).filter(|(a, b)| a.is_finite() && b.is_finite())
                {
                    let middle = start + width * 0.47;
                    let line = [(middle, low), (middle, high)];
                    chart.draw_series(LineSeries::new(line, Role::Ink.colour().stroke_width(SCALE)))?;
                }
                let group = &self.groups[group];
                marks.push(format!("{group}, {name}: {} {}", self.y_label, number(value)));
            }
        }
        Ok(marks)
    }

    /// Names below the groups, as many as there is room for.
    fn name_groups(&self, area: &Area<'_>, origin: &(i32, i32), width: i32) -> Drawn {
        const SIZE: u32 = 11;
        let longest = self.groups.iter().map(|name| px(text_width(name, SIZE) + 8)).max().unwrap_or(0);
        let every = (longest / width.max(1) + 1).max(1) as usize;
        let (base_x, base_y) = area.get_base_pixel();
        for (index, name) in self.groups.iter().enumerate().step_by(every) {
            let x = origin.0 + width * index as i32 + width / 2 - base_x;
            let style = anchored(&text(SIZE, Role::Faint), HPos::Center, VPos::Top);
            area.draw_text(name, &style, (x, origin.1 - base_y + px(8)))?;
        }
        Ok(())
    }
}
