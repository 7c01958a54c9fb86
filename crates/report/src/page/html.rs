//! Pieces of a page.

use std::fmt::Write;

/// Text as it stands in an element or attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `0.7512` → `75.1 %`, in one piece.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1}\u{202f}%", share * 100.0) } else { "–".to_owned() }
}

/// `1234567` → `1 234 567`, with narrow spaces that do not break.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Three digits and a decimal unit.
pub(crate) fn scaled(value: f64, units: [&str; 5]) -> String {
    let place = units.iter().enumerate().position(|(i, _)| value < 999.5 * 1000f64.powi(i as i32));
    let place = place.unwrap_or(units.len() - 1);
    let value = skillweld_chart::number(value / 1000f64.powi(place as i32));
    format!("{value} {}", units[place]).trim_end().to_owned()
}

/// A plot with what there is to see in it; without a word where the plot before says it.
pub(crate) fn figure(svg: &str, caption: &str) -> String {
    let caption = match caption {
        "" => String::new(),
        caption => format!("<figcaption>{caption}</figcaption>"),
    };
    format!("<figure>\n{svg}{caption}</figure>\n")
}

/// A table; headings that begin with `#` stand over numbers. Cells are HTML.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |column: usize| headings.get(column).is_some_and(|heading| heading.starts_with('#'));
    let class = |column| if is_number(column) { " class=\"n\"" } else { "" };
    let mut html = "<div class=\"table\"><table>\n<thead><tr>".to_owned();
    for (column, heading) in headings.iter().enumerate() {
        let _ = write!(html, "<th scope=\"col\"{}>{}</th>", class(column), heading.trim_start_matches('#'));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{cell}</td>", class(column));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// What is there for who wants it.
pub(crate) fn details(summary: &str, content: &str) -> String {
    format!("<details><summary>{summary}</summary>{content}</details>\n")
}

/// Monospaced.
pub(crate) fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

/// A bar as long as the share.
pub(crate) fn bar(share: f64) -> String {
    format!("<span class=\"bar\" style=\"width:{:.0}px\"></span>", share.clamp(0.0, 1.0) * 160.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(percent(0.7512), "75.1\u{202f}%");
        assert_eq!(
            [0.0, 999.0, 1500.0, 2.5e9].map(|x| scaled(x, UNITS)),
            ["0 B", "999 B", "1.5 kB", "2.5 GB"]
        );
        assert_eq!(scaled(7.0, ["", "K", "M", "B", "T"]), "7");
    }

    #[test]
    fn what_others_wrote_stays_text() {
        assert_eq!(code("<script>\"&"), "<code>&lt;script&gt;&quot;&amp;</code>");
        let html = table(&["a", "#b"], &[vec!["x".into(), "1".into()]]);
        assert!(
            html.contains("<th scope=\"col\" class=\"n\">b</th>")
                && html.contains("<td>x</td><td class=\"n\">1</td>")
        );
    }
}
