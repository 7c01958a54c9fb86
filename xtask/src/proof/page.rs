//! Tables in Markdown.

use std::fmt::Write as _;

/// A claim of a paper and what was found.
pub(super) struct Claim {
    pub(super) text: &'static str,
    /// The paper's own numbers.
    pub(super) paper: &'static str,
    pub(super) ours: String,
    pub(super) holds: bool,
}

/// Words, a table, claims.
pub(super) struct Section {
    /// What was done, and on which trials.
    pub(super) text: String,
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) claims: Vec<Claim>,
}

impl Section {
    pub(super) fn markdown(&self) -> String {
        let mut page = format!("{}\n\n", self.text);
        table(&mut page, &self.headings, &self.rows);
        if !self.claims.is_empty() {
            let headings = ["claim", "paper", "here", "reproduced"].map(str::to_owned);
            let rows: Vec<Vec<String>> = self.claims.iter().map(Claim::row).collect();
            page.push('\n');
            table(&mut page, &headings, &rows);
        }
        page
    }
}

impl Claim {
    fn row(&self) -> Vec<String> {
        let holds = if self.holds { "yes" } else { "no" };
        vec![self.text.to_owned(), self.paper.to_owned(), self.ours.clone(), holds.to_owned()]
    }
}

/// Of a share.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn table(page: &mut String, headings: &[String], rows: &[Vec<String>]) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    page.push_str(&line(headings));
    writeln!(page, "|{}", "---|".repeat(headings.len())).unwrap_or_default();
    rows.iter().for_each(|row| page.push_str(&line(row)));
}
