//! Tables in Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const HEAD: &str = "# Proof\n\nWritten by `cargo xtask proof` from the policies in [experts](../experts): every number comes out of that command. \
                    Rates are in percent, with Wilson's interval of 95 %.\n\n";
/// Beside the page.
const PICTURES: &str = "proof";

/// A claim of a paper and what was found.
pub(super) struct Claim {
    pub(super) text: &'static str,
    /// The paper's own numbers.
    pub(super) paper: &'static str,
    pub(super) ours: String,
    pub(super) holds: bool,
}

/// Words, a table, pictures, claims; without headings there is no table.
#[derive(Default)]
pub(super) struct Section {
    /// What was done, and on which trials.
    pub(super) text: String,
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// In SVG.
    pub(super) charts: Vec<String>,
    pub(super) claims: Vec<Claim>,
}

impl Section {
    pub(super) fn markdown(&self) -> String {
        let mut page = format!("{}\n", self.text);
        if !self.headings.is_empty() {
            page.push('\n');
            table(&mut page, &self.headings, &self.rows);
        }
        if !self.claims.is_empty() {
            let headings = ["claim", "paper", "here", "reproduced"].map(str::to_owned);
            let rows: Vec<Vec<String>> = self.claims.iter().map(Claim::row).collect();
            page.push('\n');
            table(&mut page, &headings, &rows);
        }
        page
    }
}

/// Sections below their headings.
#[derive(Default)]
pub(super) struct Page {
    sections: Vec<(&'static str, Section)>,
}

impl Page {
    pub(super) fn add(&mut self, title: &'static str, section: Section) {
        self.sections.push((title, section));
    }

    /// Writes `proof.md` into a folder, and its pictures into `proof` beside it.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let pictures = folder.join(PICTURES);
        if pictures.exists() {
            fs::remove_dir_all(&pictures).with_context(|| format!("cannot clear {}", pictures.display()))?;
        }
        fs::create_dir_all(&pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut page = format!("{HEAD}{}", self.verdicts());
        for (title, section) in &self.sections {
            page = format!("{page}\n## {title}\n\n{}", section.markdown());
            for (index, chart) in section.charts.iter().enumerate() {
                let name = format!("{}-{}.svg", anchor(title), index + 1);
                write(pictures.join(&name), chart)?;
                page = format!("{page}\n![{title}]({PICTURES}/{name})\n");
            }
        }
        write(folder.join("proof.md"), &page)
    }

    /// All claims, and where they are tried.
    fn verdicts(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .sections
            .iter()
            .flat_map(|(title, section)| {
                let chapter = format!("[{title}](#{})", anchor(title));
                section
                    .claims
                    .iter()
                    .map(move |claim| vec![claim.text.to_owned(), claim.verdict(), chapter.clone()])
            })
            .collect();
        let mut text = String::new();
        table(&mut text, &["claim", "reproduced", "chapter"].map(str::to_owned), &rows);
        text
    }
}

/// As web pages of Markdown name headings.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || *c == ' ');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

impl Claim {
    fn row(&self) -> Vec<String> {
        vec![self.text.to_owned(), self.paper.to_owned(), self.ours.clone(), self.verdict()]
    }

    fn verdict(&self) -> String {
        if self.holds { "yes" } else { "**no**" }.to_owned()
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
