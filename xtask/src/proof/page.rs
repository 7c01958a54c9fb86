//! Tables in Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skillweld_rate::Rate;

const HEAD: &str = "# Proof\n\nWritten by `cargo xtask proof` from the policies in [experts](../experts): every number comes out of that command. \
                    Rates are in percent, with Wilson's interval of 95 %. All is of one training of every policy. *Within chance*: as claimed, but \
                    the interval of the difference (Newcombe's, of 95 %) has zero in it.\n\n";
/// Beside the page.
const PICTURES: &str = "proof";

/// A claim of a paper and what was found.
pub(super) struct Claim {
    pub(super) text: &'static str,
    /// The paper's own numbers.
    pub(super) paper: &'static str,
    pub(super) ours: String,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    /// As claimed, but by no more than chance may bring about.
    Unclear,
    No,
}

impl Verdict {
    /// A number was to be reached, and was or was not.
    pub(super) fn reached(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }

    /// The first was to be larger. Beyond chance where Newcombe's interval of the difference has no zero in it.
    pub(super) fn larger(first: Rate, second: Rate) -> Self {
        match first.difference(second) {
            [low, _] if low > 0.0 => Self::Yes,
            _ if first.share() > second.share() => Self::Unclear,
            _ => Self::No,
        }
    }

    /// What holds only if both do.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Unclear => "within chance",
            Self::No => "**no**",
        }
    }
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
                section.claims.iter().map(move |claim| {
                    vec![claim.text.to_owned(), claim.verdict.text().to_owned(), chapter.clone()]
                })
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
        vec![self.text.to_owned(), self.paper.to_owned(), self.ours.clone(), self.verdict.text().to_owned()]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_by_chance_is_said_to_be() {
        let rate = |successes| Rate { successes, trials: 100 };
        assert!(Verdict::larger(rate(80), rate(50)) == Verdict::Yes);
        assert!(Verdict::larger(rate(55), rate(50)) == Verdict::Unclear);
        assert!(Verdict::larger(rate(50), rate(50)) == Verdict::No);
        assert!(Verdict::Yes.and(Verdict::Unclear) == Verdict::Unclear);
        assert!(Verdict::Unclear.and(Verdict::No) == Verdict::No);
    }

    #[test]
    fn pages_hold_together() {
        let folder = std::env::temp_dir().join(format!("proof-{}", std::process::id()));
        let claim = Claim { text: "it moves", paper: "1", ours: "2".into(), verdict: Verdict::No };
        let section = Section {
            text: "Words.".into(),
            headings: vec!["a".into(), "b".into()],
            rows: vec![vec!["1".into(), "2".into()]],
            charts: vec!["<svg/>".into()],
            claims: vec![claim],
        };
        let mut page = Page::default();
        page.add("RETAIN: how far to go", section);
        page.write(&folder).unwrap();
        let text = fs::read_to_string(folder.join("proof.md")).unwrap();
        assert!(
            text.contains("| it moves | **no** | [RETAIN: how far to go](#retain-how-far-to-go) |"),
            "{text}"
        );
        assert!(text.contains("| a | b |\n|---|---|\n| 1 | 2 |"), "{text}");
        let picture = "proof/retain-how-far-to-go-1.svg";
        assert!(text.contains(&format!("![RETAIN: how far to go]({picture})")), "{text}");
        assert_eq!(fs::read_to_string(folder.join(picture)).unwrap(), "<svg/>");
        fs::remove_dir_all(folder).unwrap();
    }
}
