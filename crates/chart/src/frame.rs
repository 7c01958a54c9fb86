//! What all charts have: a title, a description, a size, a legend above the data.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::ChartError;
use crate::svg::finished;
use crate::theme::Role;

/// plotters places everything on whole units; these are smaller than what is seen.
pub(crate) const SCALE: u32 = 4;
/// Height of a line of the legend.
const LEGEND_LINE: u32 = 20;
const TITLE_HEIGHT: u32 = 28;

/// Title, description and size of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) title: String,
    pub(crate) description: String,
    /// In pixels, as the page shows it.
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Where charts are drawn.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What the library says when it gives up.
pub(crate) type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Methods of [`Frame`] that every chart has.
macro_rules! framed {
    ($chart:ty) => {
        impl $chart {
            /// What is to be seen, for those who do not see it.
            #[must_use]
            pub fn description(mut self, description: impl Into<String>) -> Self {
                self.frame.description = description.into();
                self
            }

            /// Width and height in pixels.
            #[must_use]
            pub fn size(mut self, width: u32, height: u32) -> Self {
                (self.frame.width, self.frame.height) = (width.max(120), height.max(80));
                self
            }

            /// A whole SVG file, colours for light and dark pages included.
            ///
            /// # Errors
            /// [`ChartError`]: nothing to draw, or names and values that do not fit one another.
            pub fn to_svg(&self) -> Result<String, ChartError> {
                self.drawn(true)
            }

            /// An SVG element for a page that has [`style`](crate::style) in its style sheet.
            ///
            /// # Errors
            /// As `to_svg`.
            pub fn to_inline_svg(&self) -> Result<String, ChartError> {
                self.drawn(false)
            }
        }
    };
}
pub(crate) use framed;

/// Pixels in units of the drawing.
pub(crate) const fn px(pixels: u32) -> i32 {
    (pixels * SCALE) as i32
}

/// Text of a size in pixels. plotters writes sizes divided by 1.24.
pub(crate) fn text<'a>(size: u32, role: Role) -> TextStyle<'a> {
    ("sans-serif", px(size) * 124 / 100).into_font().color(&role.colour())
}

fn title_style<'a>() -> TextStyle<'a> {
    let plain = text(14, Role::Ink);
    TextStyle { font: plain.font.style(FontStyle::Bold), ..plain }
}

/// Anchors text where it begins, or elsewhere.
pub(crate) fn anchored<'a>(style: &TextStyle<'a>, horizontal: HPos, vertical: VPos) -> TextStyle<'a> {
    style.pos(Pos::new(horizontal, vertical))
}

/// About as wide as text of so many pixels is, in pixels.
pub(crate) fn text_width(text: &str, size: u32) -> u32 {
    (text.chars().count() as u32 * size * 58).div_ceil(100)
}

impl Frame {
    pub(crate) fn new(title: &str, width: u32, height: u32) -> Self {
        Self { title: title.to_owned(), description: String::new(), width, height }
    }

    /// Draws the title and the names of the series, then what `draw` draws below; it gives the titles of marks in the order
    /// in which it drew them.
    pub(crate) fn draw(
        &self,
        names: &[&str],
        standalone: bool,
        draw: impl FnOnce(&Area<'_>) -> Drawn<Vec<String>>,
    ) -> Result<String, ChartError> {
        let mut drawing = String::new();
        let whole = || {
            let backend = SVGBackend::with_string(&mut drawing, (self.width * SCALE, self.height * SCALE));
            let root = backend.into_drawing_area();
            root.draw_text(&self.title, &title_style(), (px(2), px(4)))?;
            let below = TITLE_HEIGHT + self.legend(&root, names)?;
            let (_, area) = root.split_vertically(px(below));
            let marks = draw(&area)?;
            root.present()?;
            Ok(marks)
        };
        let marks: Drawn<Vec<String>> = whole();
        let marks = marks
            .map_err(|error| ChartError::Drawing { title: self.title.clone(), reason: error.to_string() })?;
        Ok(finished(&drawing, self, &marks, standalone))
    }

    /// A short line in its colour before each name, as many on a line as fit; gives the height taken.
    fn legend(&self, root: &Area<'_>, names: &[&str]) -> Drawn<u32> {
        const SIZE: u32 = 12;
        const SWATCH: u32 = 16;
        let (mut x, mut y) = (2, TITLE_HEIGHT);
        for (index, name) in names.iter().enumerate() {
            let width = SWATCH + 6 + text_width(name, SIZE) + 18;
            if x > 2 && x + width > self.width {
                (x, y) = (2, y + LEGEND_LINE);
            }
            let middle = px(y) + px(LEGEND_LINE) / 2 - px(2);
            let line = [(px(x), middle), (px(x + SWATCH), middle)];
            let style = Role::Series(index).colour().stroke_width(3 * SCALE);
            root.draw(&PathElement::new(line, style))?;
            let style = anchored(&text(SIZE, Role::Faint), HPos::Left, VPos::Center);
            root.draw_text(name, &style, (px(x + SWATCH + 6), middle))?;
            x += width;
        }
        Ok(if names.is_empty() { 0 } else { y - TITLE_HEIGHT + LEGEND_LINE })
    }

    pub(crate) fn empty(&self) -> ChartError {
        ChartError::Empty { title: self.title.clone() }
    }
}
