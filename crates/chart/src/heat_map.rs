use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::frame::{Area, Drawn, Frame, anchored, framed, px, text, text_width};
use crate::plane::extremes;
use crate::theme::{LEVELS, Role};
use crate::{ChartError, number};

/// Size of names, in pixels.
const SIZE: u32 = 11;
/// Narrower cells have no number in them.
const ROOM_FOR_NUMBER: u32 = 34;
/// Height of the scale below the cells.
const SCALE_HEIGHT: u32 = 44;

/// A matrix of numbers as colours, from the page's own to the strongest. As high as its rows need.
#[derive(Debug, Clone)]
pub struct HeatMap {
    frame: Frame,
    rows: Vec<String>,
    columns: Vec<String>,
    values: Vec<Vec<f64>>,
    range: Option<(f64, f64)>,
}

impl HeatMap {
    pub(crate) fn new(title: &str) -> Self {
        Self {
            frame: Frame::new(title, 760, 0),
            rows: Vec::new(),
            columns: Vec::new(),
            values: Vec::new(),
            range: None,
        }
    }

    /// Names of the columns, from left to right.
    #[must_use]
    pub fn columns<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.columns = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// One more row below: a value for each column, NaN where there is none.
    #[must_use]
    pub fn row(mut self, name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        self.rows.push(name.to_owned());
        self.values.push(values.into_iter().collect());
        self
    }

    /// Values of the palest and of the strongest colour; without, the least and the greatest.
    #[must_use]
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// Pixels that the rows' names take.
    fn left(&self) -> u32 {
        self.rows.iter().map(|name| text_width(name, SIZE)).max().unwrap_or(0).min(260) + 12
    }

    /// Width and height of a cell: as wide as there is room for, but cells of few columns stay cells.
    fn cell(&self) -> (u32, u32) {
        let room = self.frame.width.saturating_sub(self.left() + 12);
        let width = (room / self.columns.len().max(1) as u32).clamp(4, 84);
        (width, if self.rows.len() > 12 { 22 } else { 32 })
    }

    fn drawn(&self, standalone: bool) -> Result<String, ChartError> {
        if let Some(row) = self.values.iter().find(|row| row.len() != self.columns.len()) {
            return Err(ChartError::Shape {
                title: self.frame.title.clone(),
                expected: self.columns.len(),
                found: row.len(),
            });
        }
        let finite = self.values.iter().flatten().copied().filter(|value| value.is_finite());
        let finite: Vec<f64> = finite.collect();
        if finite.is_empty() {
            return Err(self.frame.empty());
        }
        let range = self.range.unwrap_or_else(|| extremes(&finite));
        let mut frame = self.frame.clone();
        frame.height = 28 + 22 + self.cell().1 * self.rows.len() as u32 + SCALE_HEIGHT;
        frame.draw(&[], standalone, |area| self.draw(area, range))
    }

    fn draw(&self, area: &Area<'_>, range: (f64, f64)) -> Drawn<Vec<String>> {
        let (left, (width, height)) = (self.left(), self.cell());
        let top = 22;
        let longest = self.columns.iter().map(|name| text_width(name, SIZE) + 8).max().unwrap_or(0);
        let every = longest.div_ceil(width).max(1) as usize;
        for (index, name) in self.columns.iter().enumerate().step_by(every) {
            let style = anchored(&text(SIZE, Role::Faint), HPos::Center, VPos::Bottom);
            let x = px(left) + px(width) * index as i32 + px(width) / 2;
            area.draw_text(name, &style, (x, px(top - 4)))?;
        }
        let mut marks = Vec::new();
        for (row, (name, values)) in self.rows.iter().zip(&self.values).enumerate() {
            let y = px(top) + px(height) * row as i32;
            let style = anchored(&text(SIZE, Role::Faint), HPos::Right, VPos::Center);
            area.draw_text(name, &style, (px(left - 8), y + px(height) / 2))?;
            for (column, &value) in values.iter().enumerate() {
                let x = px(left) + px(width) * column as i32;
                let gap = px(1);
                let corners = [(x, y), (x + px(width) - gap, y + px(height) - gap)];
                if !value.is_finite() {
                    area.draw(&Rectangle::new(corners, Role::Grid.colour()))?;
                    continue;
                }
                let level = Role::level(value, range);
                area.draw(&Rectangle::new(corners, level.colour().filled()))?;
                marks.push(format!("{name}, {}: {}", self.columns[column], number(value)));
                if width >= ROOM_FOR_NUMBER {
                    let style = anchored(&text(SIZE, level.text_on()), HPos::Center, VPos::Center);
                    let middle = ((corners[0].0 + corners[1].0) / 2, (corners[0].1 + corners[1].1) / 2);
                    area.draw_text(&number(value), &style, middle)?;
                }
            }
        }
        self.draw_scale(area, range, top + height * self.rows.len() as u32 + 14)?;
        Ok(marks)
    }

    /// The colours with the values at their ends.
    fn draw_scale(&self, area: &Area<'_>, (low, high): (f64, f64), top: u32) -> Drawn {
        const STEP: u32 = 8;
        let left = self.left();
        for step in 0..LEVELS {
            let x = left + STEP * step as u32;
            let corners = [(px(x), px(top)), (px(x + STEP), px(top + 10))];
            area.draw(&Rectangle::new(corners, Role::Level(step).colour().filled()))?;
        }
        let right = left + STEP * LEVELS as u32;
        for (value, x, side) in [(low, left, HPos::Left), (high, right, HPos::Right)] {
            let style = anchored(&text(10, Role::Faint), side, VPos::Top);
            area.draw_text(&number(value), &style, (px(x), px(top + 13)))?;
        }
        Ok(())
    }
}

framed!(HeatMap);
