//! What colours mean, and what they are: the one place that knows.
//!
//! plotters writes fixed colours. Each that is used here is one of [`Role`]'s, and stands in the SVG as a class beside the
//! fixed colour of light pages, which viewers without style sheets show.

use std::fmt::Write;

use plotters::style::RGBColor;

/// Series that have a colour of their own; later ones begin again.
pub(crate) const SERIES: usize = 8;
/// Steps of the sequential map.
pub(crate) const LEVELS: usize = 21;

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Titles and values.
    Ink,
    /// Names of axes and ticks.
    Faint,
    /// Axes.
    Axis,
    /// Lines behind the data.
    Grid,
    /// Text on strong colours.
    Paper,
    /// The n-th series.
    Series(usize),
    /// The n-th step of the sequential map, from the page's colour to the strongest.
    Level(usize),
}

/// Colours of light and of dark pages.
type Pair = [[u8; 3]; 2];

const INK: Pair = [[0x1c, 0x25, 0x30], [0xe6, 0xea, 0xf0]];
const FAINT: Pair = [[0x52, 0x5f, 0x6e], [0xa3, 0xb0, 0xbf]];
const AXIS: Pair = [[0x9a, 0xa6, 0xb3], [0x5b, 0x68, 0x77]];
const GRID: Pair = [[0xe4, 0xe9, 0xef], [0x29, 0x33, 0x3f]];
const PAPER: Pair = [[0xff, 0xff, 0xfe], [0x0d, 0x13, 0x1a]];

/// Okabe and Ito's palette, whose colours differ for everybody, darkened where white pages want more contrast and lightened
/// for dark ones.
const SERIES_COLOURS: [Pair; SERIES] = [
    [[0x00, 0x72, 0xb2], [0x5a, 0xb8, 0xf2]],
    [[0xd5, 0x5e, 0x00], [0xff, 0x93, 0x4f]],
    [[0x00, 0x8f, 0x68], [0x3a, 0xd3, 0xa3]],
    [[0xb8, 0x57, 0x8c], [0xe9, 0x9c, 0xc7]],
    [[0xa8, 0x78, 0x00], [0xf0, 0xc7, 0x4a]],
    [[0x5b, 0x4f, 0xb5], [0xa9, 0xa3, 0xff]],
    [[0x2f, 0x9f, 0xc4], [0x86, 0xdd, 0xee]],
    [[0x66, 0x70, 0x7c], [0xb4, 0xbd, 0xc8]],
];

/// Stops of the sequential map: one hue, lightness falling (rising on dark pages) all the way.
const MAP: [[[u8; 3]; 4]; 2] = [
    [[0xee, 0xf5, 0xfb], [0x9c, 0xc9, 0xe8], [0x2c, 0x83, 0xbf], [0x08, 0x30, 0x5e]],
    [[0x16, 0x20, 0x2b], [0x1f, 0x54, 0x80], [0x3f, 0x9d, 0xdb], [0xd3, 0xee, 0xff]],
];

impl Role {
    /// The sequential map's step for a value between `low` and `high`.
    pub(crate) fn level(value: f64, (low, high): (f64, f64)) -> Self {
        let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
        Self::Level((share * (LEVELS - 1) as f64).round() as usize)
    }

    /// The colour of text on this colour.
    pub(crate) fn text_on(self) -> Self {
        match self {
            Self::Level(step) if step * 2 > LEVELS + 1 => Self::Paper,
            _ => Self::Ink,
        }
    }

    /// What plotters draws with: the light page's colour.
    pub(crate) fn colour(self) -> RGBColor {
        let [r, g, b] = self.pair()[0];
        RGBColor(r, g, b)
    }

    fn pair(self) -> Pair {
        match self {
            Self::Ink => INK,
            Self::Faint => FAINT,
            Self::Axis => AXIS,
            Self::Grid => GRID,
            Self::Paper => PAPER,
            Self::Series(index) => SERIES_COLOURS[index % SERIES],
            Self::Level(step) => MAP.map(|stops| between(stops, step)),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Ink => "ink".to_owned(),
            Self::Faint => "faint".to_owned(),
            Self::Axis => "axis".to_owned(),
            Self::Grid => "grid".to_owned(),
            Self::Paper => "paper".to_owned(),
            Self::Series(index) => format!("s{index}"),
            Self::Level(step) => format!("q{step}"),
        }
    }

    /// True for what stands for data: bars, points, cells.
    pub(crate) fn is_data(self) -> bool {
        matches!(self, Self::Series(_) | Self::Level(_))
    }

    /// The class of what is filled, or drawn, in this colour.
    pub(crate) fn class(self, fills: bool) -> String {
        format!("{}-{}", if fills { "f" } else { "l" }, self.name())
    }

    fn all() -> impl Iterator<Item = Self> {
        let named = [Self::Ink, Self::Faint, Self::Axis, Self::Grid, Self::Paper];
        named.into_iter().chain((0..SERIES).map(Self::Series)).chain((0..LEVELS).map(Self::Level))
    }

    /// The role of a colour as plotters writes it, such as `#0072B2`.
    pub(crate) fn of(written: &str) -> Option<Self> {
        Self::all().find(|role| hex(role.pair()[0]).eq_ignore_ascii_case(written))
    }
}

/// A step between stops, in even parts.
fn between(stops: [[u8; 3]; 4], step: usize) -> [u8; 3] {
    let place = step as f64 / (LEVELS - 1) as f64 * (stops.len() - 1) as f64;
    let first = (place as usize).min(stops.len() - 2);
    let share = place - first as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    std::array::from_fn(|i| mix(stops[first][i], stops[first + 1][i]))
}

fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// The style sheet of all charts: variables `--chart-…` for light pages and for dark ones (`prefers-color-scheme`), and the
/// classes that use them. A page with charts of `to_inline_svg` has it once.
pub fn style() -> String {
    let variables = |scheme: usize| {
        Role::all().fold(String::new(), |mut text, role| {
            let _ = write!(text, "--chart-{}:{};", role.name(), hex(role.pair()[scheme]));
            text
        })
    };
    let mut css = format!(
        ":root{{{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        variables(0),
        variables(1)
    );
    for role in Role::all() {
        let (fill, line, name) = (role.class(true), role.class(false), role.name());
        let _ = write!(css, ".{fill}{{fill:var(--chart-{name})}}.{line}{{stroke:var(--chart-{name})}}");
    }
    css.push_str(
        "\n.chart text{font-family:system-ui,sans-serif}.chart polyline{stroke-linejoin:round;stroke-linecap:round}\n",
    );
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance as WCAG defines it.
    fn luminance(colour: [u8; 3]) -> f64 {
        let linear = colour.map(|c| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_has_one_role() {
        for role in Role::all() {
            assert_eq!(Role::of(&hex(role.pair()[0]).to_uppercase()), Some(role));
        }
        assert_eq!(Role::of("#123456"), None);
    }

    #[test]
    fn colours_can_be_read_on_their_pages() {
        for scheme in [0, 1] {
            let page = PAPER[scheme];
            for role in [Role::Ink, Role::Faint] {
                assert!(contrast(role.pair()[scheme], page) >= 4.5, "{role:?} as text");
            }
            for series in 0..SERIES {
                let contrast = contrast(Role::Series(series).pair()[scheme], page);
                assert!(contrast >= 3.0, "series {series}, scheme {scheme}: {contrast}");
            }
            for step in 0..LEVELS {
                let level = Role::Level(step);
                let contrast = contrast(level.text_on().pair()[scheme], level.pair()[scheme]);
                assert!(contrast >= 3.0, "text on level {step}, scheme {scheme}: {contrast}");
            }
        }
    }

    #[test]
    fn the_sequential_map_is_monotone() {
        for step in 1..LEVELS {
            let [light, dark] = [0, 1].map(|scheme| {
                luminance(Role::Level(step).pair()[scheme]) - luminance(Role::Level(step - 1).pair()[scheme])
            });
            assert!(light < 0.0 && dark > 0.0, "step {step}: {light} {dark}");
        }
    }

    #[test]
    fn levels_span_their_range() {
        assert_eq!(Role::level(0.0, (0.0, 1.0)), Role::Level(0));
        assert_eq!(Role::level(1.0, (0.0, 1.0)), Role::Level(LEVELS - 1));
        assert_eq!(Role::level(0.5, (0.0, 1.0)), Role::Level(LEVELS / 2));
        assert_eq!(Role::level(7.0, (7.0, 7.0)), Role::Level(LEVELS / 2));
    }
}
