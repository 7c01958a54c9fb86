//! From what plotters wrote to what stands in a page: classes for colours, a description, titles on marks.

use crate::frame::{Frame, SCALE};
use crate::theme::{Role, style};

/// Escapes text for element content and attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Rewrites a drawing of `frame`. Points, bars and cells take `marks` as their titles, in the order in which they were drawn.
pub(crate) fn finished(drawing: &str, frame: &Frame, marks: &[String], standalone: bool) -> String {
    let (width, height) = (frame.width, frame.height);
    let (title, description) = (escaped(&frame.title), escaped(&frame.description));
    let label = if description.is_empty() { title.clone() } else { format!("{title}. {description}") };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {} {}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{label}\">\n",
        width * SCALE,
        height * SCALE,
    );
    if !description.is_empty() {
        svg.push_str(&format!("<desc>{description}</desc>\n"));
    }
    if standalone {
        svg.push_str(&format!("<title>{title}</title>\n<style>{}</style>\n", style()));
        // A file has no page behind it.
        svg.push_str("<rect width=\"100%\" height=\"100%\" class=\"f-paper\" fill=\"#ffffff\"/>\n");
    }
    let mut marks = marks.iter();
    for line in drawing.lines() {
        if line.starts_with("<svg") {
            continue;
        }
        svg.push_str(&rewritten(line, &mut marks));
        svg.push('\n');
    }
    svg
}

/// One line of a drawing: a tag, or the text of a text element (in which every `<` is escaped).
fn rewritten<'m>(line: &str, marks: &mut impl Iterator<Item = &'m String>) -> String {
    let Some(tag) = line.strip_prefix('<') else { return line.to_owned() };
    let line = line.replace(" opacity=\"1\"", "").replace(" fill=\"none\" stroke=\"none\"", "");
    let coloured = ["fill", "stroke"].into_iter().find_map(|attribute| {
        let start = line.find(&format!("{attribute}=\"#"))? + attribute.len() + 2;
        Some((Role::of(line.get(start..start + 7)?)?, attribute == "fill"))
    });
    let Some((role, fills)) = coloured else { return line };
    let name = tag.split([' ', '>', '/']).next().unwrap_or(tag);
    let line = line.replacen(&format!("<{name}"), &format!("<{name} class=\"{}\"", role.class(fills)), 1);
    let is_mark = role.is_data() && fills && matches!(name, "circle" | "rect");
    match marks.next_if(is_mark) {
        Some(mark) => {
            format!("{}><title>{}</title></{name}>", line.trim_end_matches("/>"), escaped(mark))
        }
        None => line,
    }
}

/// `next`, only where something takes it.
trait NextIf: Iterator {
    fn next_if(&mut self, wanted: bool) -> Option<Self::Item> {
        if wanted { self.next() } else { None }
    }
}

impl<I: Iterator> NextIf for I {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_marks_say_their_values() {
        let marks = ["a < b".to_owned()];
        let mut marks = marks.iter();
        let mut line = |line: &str| rewritten(line, &mut marks);
        assert_eq!(line("a &lt; #0072B2"), "a &lt; #0072B2");
        assert_eq!(
            line("<polyline fill=\"none\" opacity=\"1\" stroke=\"#0072B2\" points=\"1,2 \"/>"),
            "<polyline class=\"l-s0\" fill=\"none\" stroke=\"#0072B2\" points=\"1,2 \"/>"
        );
        assert_eq!(
            line("<circle cx=\"1\" opacity=\"1\" fill=\"#0072B2\"/>"),
            "<circle class=\"f-s0\" cx=\"1\" fill=\"#0072B2\"><title>a &lt; b</title></circle>"
        );
        // There is no title left, and a colour of nobody stays what it is.
        assert_eq!(line("<circle fill=\"#0072B2\"/>"), "<circle class=\"f-s0\" fill=\"#0072B2\"/>");
        assert_eq!(line("<circle fill=\"#010203\"/>"), "<circle fill=\"#010203\"/>");
    }
}
