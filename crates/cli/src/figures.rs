//! Numbers as people read them.

use std::time::Duration;

/// `1234567` → `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun, in the plural where there is not exactly one: `1 tensor`, `1,234 tensors`.
pub(crate) fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Bytes in decimal units, as disks are sold: `1.23 GB`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Elements with one letter: `494.0 M`.
pub(crate) fn elements(value: u64) -> String {
    scaled(value as f64, &["", "K", "M", "B", "T"]).trim_end().to_owned()
}

/// Three digits and a unit.
fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", units[unit])
}

/// `0.7512` → `75.1%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// `0.42 s`, `12.3 s`, `3 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        _ => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

/// Dimensions, outermost first: `896 × 4864`, `scalar`.
pub(crate) fn shape(dimensions: &[usize]) -> String {
    if dimensions.is_empty() {
        return "scalar".to_owned();
    }
    dimensions.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ")
}

/// A bar of `share` (0..=1) of `width` columns, in eighths of a column.
pub(crate) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// One column a value, the lowest for `min` and the highest for `max`.
pub(crate) fn sparkline(values: &[f64], (min, max): (f64, f64)) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let span = max - min;
    let step = |value: &f64| {
        // All the same: a line in the middle.
        let share = if span > 0.0 { (value - min) / span } else { 0.5 };
        STEPS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(step).collect()
}

/// Least and greatest value; zeros for none.
pub(crate) fn extremes(values: &[f64]) -> (f64, f64) {
    let min = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    (min, values.iter().copied().reduce(f64::max).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_three_digits_and_a_unit() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!([0, 1, 1234].map(|n| counted(n, "tensor")), ["0 tensors", "1 tensor", "1,234 tensors"]);
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(999_499.0), "999 kB");
        assert_eq!(bytes(999_500.0), "1.00 MB");
        assert_eq!(bytes(1.234e9), "1.23 GB");
        assert_eq!(bytes(98.7e9), "98.7 GB");
        assert_eq!(elements(7), "7");
        assert_eq!(elements(494_032_768), "494 M");
        assert_eq!(percent(0.7512), "75.1%");
        assert_eq!(duration(Duration::from_millis(417)), "0.42 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(shape(&[]), "scalar");
        assert_eq!(shape(&[2, 3]), "2 × 3");
    }

    #[test]
    fn bars_and_sparklines_span_their_range() {
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(bar(0.5, 3), "█▌");
        assert_eq!(sparkline(&[0.0, 0.5, 1.0], (0.0, 1.0)), "▁▅█");
        assert_eq!(sparkline(&[0.3, 0.3], (0.3, 0.3)), "▅▅");
        assert_eq!(extremes(&[2.0, -1.0]), (-1.0, 2.0));
    }
}
