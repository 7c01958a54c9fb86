//! What stands in the SVG: every value once, nothing that needs a network, the same bytes each time.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use proptest::prelude::*;
use skillweld_chart::{Chart, ChartError, number, style};

fn count(svg: &str, what: &str) -> usize {
    svg.matches(what).count()
}

#[test]
fn bars_have_a_line_for_their_spread() {
    let bars = || Chart::bars("t", "y").groups(["one", "two"]).series("a", [1.0, 2.0]);
    let lines = |svg: String| svg.matches("<polyline class=\"l-ink").count();
    let plain = lines(bars().to_svg().unwrap());
    let svg = bars().spread([(0.5, 1.5), (f64::NAN, 9.0)]).to_svg().unwrap();
    assert_eq!(lines(svg), plain + 1);
}

#[test]
fn lines_draw_every_finite_point_and_end_at_gaps() {
    let points = [(0.0, 0.1), (1.0, 0.4), (2.0, f64::NAN), (3.0, 0.2), (4.0, 0.3)];
    let svg = Chart::lines("a < b", "layer", "share").series("kept", points).to_inline_svg().unwrap();
    assert_eq!(count(&svg, "<circle"), 4);
    assert!(svg.contains("<title>kept: layer 1, share 0.4</title>"), "{svg}");
    assert_eq!(count(&svg, "<polyline class=\"l-s0\""), 2, "a line on each side of the gap");
    assert!(svg.contains("aria-label=\"a &lt; b\""));
    assert!(!svg.contains("<style>"), "the page brings the colours");
}

#[test]
fn long_series_are_lines_without_points() {
    let svg =
        Chart::lines("t", "x", "y").series("s", (0..500).map(|i| (f64::from(i), 1.0))).to_svg().unwrap();
    assert_eq!((count(&svg, "<circle"), count(&svg, "<polyline class=\"l-s0\"")), (0, 1));
}

#[test]
fn little_variation_looks_little_and_ticks_are_told_apart() {
    let ticks = |svg: &str| {
        let lines: Vec<&str> = svg.lines().collect();
        let texts = lines
            .windows(2)
            .filter(|pair| pair[0].starts_with("<text") && pair[0].contains("text-anchor=\"end\""));
        texts.map(|pair| pair[1].to_owned()).collect::<Vec<_>>()
    };
    for (low, high) in [(0.1230, 0.1231), (1e-9, 1.001e-9), (1000.0, 1000.01), (-5.0, 5.0), (0.0, 0.3)] {
        let chart = Chart::lines("t", "x", "y").series("s", [(0.0, low), (1.0, high)]);
        let svg = chart.to_inline_svg().unwrap();
        let mut seen = ticks(&svg);
        let count = seen.len();
        assert!(count >= 2, "{svg}");
        seen.dedup();
        assert_eq!(seen.len(), count, "{low} to {high}: {seen:?}");
        let places = circles(&svg);
        // The plot is 240 pixels high, a tenth of the value more than all of it.
        let apart = (places[0].1 - places[1].1) / 4.0;
        assert_eq!(
            apart < 30.0,
            (high - low) / high.abs() < 0.01,
            "{low} to {high} are {apart} pixels apart"
        );
    }
}

#[test]
fn bands_stand_behind_the_lines() {
    let line = [(0.0, 1.0), (1.0, 2.0)];
    let svg = Chart::lines("t", "x", "y").series("s", line).band(line.map(|(x, y)| (x, y - 0.5, y + 0.5)));
    let svg = svg.to_inline_svg().unwrap();
    let (band, line) =
        (svg.find("<polygon class=\"f-s0\"").unwrap(), svg.find("<polyline class=\"l-s0\"").unwrap());
    assert!(band < line);
}

#[test]
fn logarithmic_axes_leave_out_what_has_no_logarithm() {
    let chart = |values: [f64; 3]| {
        let points = values.into_iter().enumerate().map(|(x, y)| (x as f64, y));
        Chart::scatter("t", "x", "σ").series("s", points).y_logarithmic().to_inline_svg()
    };
    let svg = chart([1.0, 0.0, 1e-4]).unwrap();
    assert_eq!(count(&svg, "<circle"), 2);
    assert!(svg.contains("σ 1e−4</title>"), "marks say values, not logarithms: {svg}");
    assert_eq!(chart([0.0, 0.0, -1.0]), Err(ChartError::Logarithm { title: "t".into() }));
}

#[test]
fn bars_and_cells_say_their_values() {
    let bars =
        Chart::bars("t", "d").groups(["one", "two"]).series("a", [1.0, 2.0]).series("b", [f64::NAN, 3.0]);
    let svg = bars.to_inline_svg().unwrap();
    assert_eq!(count(&svg, "</title></rect>"), 3);
    assert!(svg.contains("<title>two, b: d 3</title>"));
    let map = Chart::heat_map("t").columns(["x", "y"]).row("r", [0.0, 1.0]).row("s", [f64::NAN, 0.5]);
    let svg = map.to_inline_svg().unwrap();
    assert_eq!(count(&svg, "</title></rect>"), 3);
    assert!(svg.contains("<rect class=\"f-q20\"") && svg.contains("<title>r, y: 1</title>"));
}

#[test]
fn names_and_values_have_to_fit() {
    let shape = |expected, found| Err(ChartError::Shape { title: "t".into(), expected, found });
    let spread = Chart::bars("t", "d").groups(["a", "b"]).series("s", [1.0, 2.0]).spread([(0.0, 1.0)]);
    assert_eq!(spread.to_svg(), shape(2, 1));
    assert_eq!(Chart::bars("t", "d").groups(["a"]).series("s", [1.0, 2.0]).to_svg(), shape(1, 2));
    assert_eq!(Chart::heat_map("t").columns(["a", "b"]).row("r", [1.0]).to_svg(), shape(2, 1));
    let empty = Err(ChartError::Empty { title: "t".into() });
    assert_eq!(Chart::lines("t", "x", "y").series("s", [(f64::NAN, 1.0)]).to_svg(), empty);
    assert_eq!(Chart::heat_map("t").to_svg(), empty);
    assert_eq!(Chart::bars("t", "y").groups(["a"]).series("s", [f64::INFINITY]).to_svg(), empty);
}

#[test]
fn a_file_stands_alone() {
    let svg = Chart::scatter("title", "x", "y")
        .series("s", [(1.0, 1.0)])
        .description("one point")
        .to_svg()
        .unwrap();
    assert!(svg.contains("<title>title</title>") && svg.contains("<desc>one point</desc>"));
    assert!(svg.contains(&style()) && style().contains("prefers-color-scheme:dark"));
    for network in ["http://", "https://", "url(", "<script", "@import"] {
        let without_namespace = svg.replace("http://www.w3.org/2000/svg", "");
        assert!(!without_namespace.contains(network), "{network}");
    }
}

/// Every coordinate of marks, in the viewBox's units.
fn circles(svg: &str) -> Vec<(f64, f64)> {
    let attribute = |tag: &str, name: &str| {
        let rest = tag.split_once(&format!(" {name}=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    svg.lines()
        .filter(|line| line.starts_with("<circle"))
        .map(|tag| (attribute(tag, "cx"), attribute(tag, "cy")))
        .collect()
}

proptest! {
    #[test]
    fn points_lie_where_their_values_are(points in proptest::collection::vec((-1e6f64..1e6, -1e3f64..1e3), 1..40)) {
        let svg = Chart::scatter("t", "x", "y").series("s", points.clone()).size(760, 320).to_inline_svg().unwrap();
        let places = circles(&svg);
        prop_assert_eq!(places.len(), points.len());
        // A larger x lies further right, a larger y further up; all inside.
        for (i, j) in (0..points.len()).flat_map(|i| (0..points.len()).map(move |j| (i, j))) {
            if points[i].0 < points[j].0 { prop_assert!(places[i].0 <= places[j].0); }
            if points[i].1 < points[j].1 { prop_assert!(places[i].1 >= places[j].1); }
        }
        for (x, y) in places {
            prop_assert!((0.0..=4.0 * 760.0).contains(&x) && (0.0..=4.0 * 320.0).contains(&y));
        }
        prop_assert_eq!(&svg, &Chart::scatter("t", "x", "y").series("s", points).size(760, 320).to_inline_svg().unwrap());
    }

    #[test]
    fn numbers_are_near_what_they_stand_for(value in prop_oneof![-1e9f64..1e9, -1.0f64..1.0, -1e-6f64..1e-6]) {
        let text = number(value).replace('−', "-");
        let read: f64 = text.parse().unwrap();
        // Three digits: half of the last one's place.
        prop_assert!((read - value).abs() <= 0.005 * value.abs() + 1e-300, "{} for {}", text, value);
    }

    /// Between the largest numbers lies more than a number can say.
    #[test]
    fn the_largest_values_draw_or_are_refused(
        values in proptest::collection::vec(prop_oneof![1e307..f64::MAX, f64::MIN..-1e307, Just(0.0)], 0..4),
    ) {
        let points = values.iter().enumerate().map(|(x, y)| (x as f64, *y));
        let something = values.contains(&0.0);
        let lines = Chart::lines("t", "x", "y").series("s", points).to_svg();
        let bars = Chart::bars("t", "y").groups(vec!["a"; values.len()]).series("s", values).to_svg();
        prop_assert_eq!([lines.is_ok(), bars.is_ok()], [something; 2]);
    }

    #[test]
    fn any_values_draw_or_are_refused(values in proptest::collection::vec(proptest::num::f64::ANY, 0..12)) {
        let points = values.iter().enumerate().map(|(x, y)| (x as f64, *y));
        for chart in [Chart::lines("t", "x", "y"), Chart::scatter("t", "x", "y")] {
            let _ = chart.clone().series("s", points.clone()).to_svg();
            let _ = chart.series("s", points.clone()).y_logarithmic().to_svg();
        }
        let names: Vec<String> = (0..values.len()).map(|i| i.to_string()).collect();
        let names = || names.iter().map(String::as_str);
        let _ = Chart::bars("t", "y").groups(names()).series("s", values.clone()).to_svg();
        let _ = Chart::heat_map("t").columns(names()).row("r", values.clone()).to_svg();
    }
}
