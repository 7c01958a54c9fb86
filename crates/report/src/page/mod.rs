//! A report as one page: no script, nothing from a network, light and dark.

mod cards;
mod html;
mod made_of;
mod plots;
mod spectra;

use std::fmt::Write;

use crate::{Report, ReportError};
use html::{count, escaped, scaled};

/// Nothing may be loaded, and nothing run, whatever names the page has to show.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
const STYLE: &str = include_str!("style.css");

/// One part of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    /// HTML; `Err` says why there is none.
    content: Result<String, String>,
}

impl Report {
    /// The page. The same report gives the same bytes.
    ///
    /// # Errors
    /// [`ReportError::Chart`] for a plot that cannot be drawn.
    pub fn to_html(&self) -> Result<String, ReportError> {
        let sections = [
            made_of::plan(self),
            plots::masks(self)?,
            plots::vectors(self)?,
            plots::experts(self)?,
            spectra::section(self)?,
            plots::blocks(self)?,
            plots::router(self)?,
            made_of::provenance(self),
        ];
        let title = escaped(&self.name);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
             <title>{title} · merge report</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n<div class=\"frame\">\n",
            skillweld_chart::style()
        );
        let _ = write!(
            page,
            "<header><p class=\"kind\">Merge report</p>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p></header>\n",
            self.lead()
        );
        page.push_str("<nav aria-label=\"Contents\"><ol>\n");
        for Section { id, title, .. } in &sections {
            let _ = writeln!(page, "<li><a href=\"#{id}\">{title}</a></li>");
        }
        page.push_str("</ol></nav>\n<main>\n");
        page.push_str(&cards::cards(self));
        for Section { id, title, content } in &sections {
            let content = match content {
                Ok(content) => content.clone(),
                Err(why) => format!("<p class=\"absent\">{}</p>\n", escaped(why)),
            };
            let _ = write!(page, "<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n");
        }
        let _ = write!(
            page,
            "</main>\n<footer>Made by <code>skillweld report</code> {}. Values appear when marks are pointed at; \
             <code>--json</code> has them all.</footer>\n</div>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        );
        Ok(page)
    }

    /// What was merged, in a sentence.
    fn lead(&self) -> String {
        let method = |field: &str| self.provenance["recipe"][field].as_str().map(escaped);
        let mask = self.provenance["recipe"]["mask"]["method"].as_str().map(escaped);
        let how = method("merge_method").map(|method| format!(" by <b>{method}</b>")).unwrap_or_default();
        let mask =
            mask.filter(|_| self.masked).map(|mask| format!(", masks by <b>{mask}</b>")).unwrap_or_default();
        let tasks = match self.tasks.as_slice() {
            [] => "Models".to_owned(),
            tasks => {
                let names: Vec<String> =
                    tasks.iter().map(|task| format!("<b>{}</b>", escaped(task))).collect();
                let plural = if tasks.len() == 1 { "" } else { "s" };
                format!("{} task{plural}, {},", tasks.len(), names.join(", "))
            }
        };
        let family = self.family.as_deref().map(|family| match family.ends_with("model") {
            true => format!(" {}", escaped(family)),
            false => format!(" {} model", escaped(family)),
        });
        let form = match (self.official, self.masked) {
            (true, _) => "in the published MergeVLA code's layout",
            (false, true) => "with one mask a task over a shared task vector",
            (false, false) => "without masks: all tasks share the final weights",
        };
        format!(
            "{tasks} merged{how}{mask} into one{} {form}: {} tensors, {} parameters, {} on disk.",
            family.unwrap_or_else(|| " checkpoint".to_owned()),
            count(self.tensors),
            scaled(self.elements as f64, ["", "K", "M", "B", "T"]),
            scaled(self.bytes as f64, ["B", "kB", "MB", "GB", "TB"]),
        )
    }

    fn section(
        &self,
        id: &'static str,
        title: &'static str,
        content: impl FnOnce() -> Result<String, ReportError>,
    ) -> Result<Section, ReportError> {
        let content = match self.why_not(id) {
            Some(why) => Err(why.to_owned()),
            None => Ok(content()?),
        };
        Ok(Section { id, title, content })
    }
}
