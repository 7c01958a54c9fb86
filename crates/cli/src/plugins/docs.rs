//! `skillweld plugins docs`: one page of Markdown a method, from what the method says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skillweld_plugin_host::{Kind, Method, ParamSpec};

use super::Search;
use super::describe::{experts, flags_of, laws_of};
use super::inspect::recipe;
use crate::Outcome;
use crate::console::{Console, print};

const EXAMPLES: &str = "\
Examples:
  skillweld plugins docs methods
  # your own method's page among the others
  skillweld plugins docs methods --plugin target/release
  # for a script: are the pages those that would be written now?
  skillweld plugins docs methods --check";

/// The pages' list, and how every page says where it comes from.
const INDEX: &str = "README.md";
const ORIGIN: &str = "<!-- Written by `skillweld plugins docs` from what the method says of itself. -->";

/// Write a page of Markdown for every method, and a list of them.
///
/// Pages of methods that are no longer there are removed; other files in the folder stay.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder to write to; it is made if it is not there.
    folder: PathBuf,
    /// Write nothing; exit code 1 and a line for each page that is missing, stale or left over.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    search: Search,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let registry = args.search.discover(console, false)?;
    let mut methods: Vec<&Method> = registry.iter().collect();
    methods.sort_by_key(|method| (method.kind() == Kind::Mask, method.id()));
    let pages = pages(&methods);
    let changes = changes(&args.folder, &pages)?;
    if args.check {
        let lines: String = changes.iter().map(|(name, what)| format!("{name} {what}\n")).collect();
        print(&lines)?;
        return Ok(if changes.is_empty() { Outcome::Done } else { Outcome::Bad });
    }
    fs::create_dir_all(&args.folder).with_context(|| format!("cannot make {}", args.folder.display()))?;
    for name in changes.keys() {
        let path = args.folder.join(name);
        match pages.get(name) {
            Some(page) => {
                fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?,
        }
    }
    let (all, changed) = (pages.len() - 1, changes.len());
    print(&format!("{all} methods in {}, {changed} files changed\n", args.folder.display()))?;
    Ok(Outcome::Done)
}

/// What must be written, and pages of ours that must go.
fn changes(folder: &Path, pages: &BTreeMap<String, String>) -> Result<BTreeMap<String, &'static str>> {
    let mut changes = BTreeMap::new();
    for (name, page) in pages {
        match fs::read_to_string(folder.join(name)) {
            Ok(text) if text == *page => {}
            Ok(_) => {
                changes.insert(name.clone(), "is stale");
            }
            Err(_) => {
                changes.insert(name.clone(), "is missing");
            }
        }
    }
    let Ok(entries) = fs::read_dir(folder) else { return Ok(changes) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_ours = || fs::read_to_string(folder.join(&name)).is_ok_and(|text| text.contains(ORIGIN));
        if name.ends_with(".md") && !pages.contains_key(&name) && is_ours() {
            changes.insert(name, "is of a method that is not there");
        }
    }
    Ok(changes)
}

fn pages(methods: &[&Method]) -> BTreeMap<String, String> {
    let mut pages: BTreeMap<String, String> =
        methods.iter().map(|method| (file_name(method), page(method))).collect();
    pages.insert(INDEX.to_owned(), index(methods));
    pages
}

/// A mask method may bear a merge method's name.
fn file_name(method: &Method) -> String {
    match method.kind() {
        Kind::Merge => format!("{}.md", method.id()),
        Kind::Mask => format!("{}-mask.md", method.id()),
    }
}

fn index(methods: &[&Method]) -> String {
    let mut text =
        format!("# Methods\n\n{ORIGIN}\n\n| id | kind | what it computes | source |\n|---|---|---|---|\n");
    for method in methods {
        text.push_str(&format!(
            "| [`{}`]({}) | {} | {} | {} |\n",
            method.id(),
            file_name(method),
            method.kind(),
            table_text(method.summary()),
            table_text(method.citation()),
        ));
    }
    text
}

fn page(method: &Method) -> String {
    let mut text = format!("# {}\n\n{ORIGIN}\n\n{}.\n\n", method.id(), sentence(method.summary()));
    let inputs = if method.takes_task_vectors() { "task vectors" } else { "weights" };
    let base = if method.needs_base_model() { "; needs a `base_model`" } else { "" };
    text.push_str(&format!(
        "- {} method, version {}\n",
        sentence(&method.kind().to_string()),
        method.version()
    ));
    text.push_str(&format!("- takes the {inputs} of {} experts{base}\n", experts(method)));
    if let Some(mask) = method.mask() {
        text.push_str(&format!(
            "- makes masks with [`{mask}`]({mask}-mask.md), unless the recipe names another\n"
        ));
    }
    if method.cuda().is_some() {
        text.push_str("- brings device code along for `--device cuda`\n");
    }
    if !method.citation().is_empty() {
        text.push_str(&format!("- source: {}\n", method.citation()));
    }
    if !method.params().is_empty() {
        text.push_str(
            "\n## Parameters\n\n| name | value | default | set | meaning |\n|---|---|---|---|---|\n",
        );
        method.params().iter().for_each(|param| text.push_str(&parameter(param)));
    }
    text.push_str(&format!("\n## In a recipe\n\n```yaml\n{}\n```\n", unindented(&recipe(method))));
    text.push_str("\n## What is known of it\n\n");
    let known = flags_of(method).into_iter().filter_map(flag).chain(laws_of(method).into_iter().map(law));
    known.for_each(|line| text.push_str(&format!("- {line}\n")));
    text.push_str("\n`skillweld plugins check` tests all of this on random input.\n");
    text
}

fn parameter(param: &ParamSpec) -> String {
    let default = param.default.as_ref().map_or_else(|| "required".to_owned(), |value| format!("`{value}`"));
    let set = if param.per_expert { "per model" } else { "once" };
    let meaning =
        if param.no_effect { format!("no effect: {}", param.description) } else { param.description.clone() };
    let kind = table_text(&param.kind.to_string());
    format!("| `{}` | {kind} | {default} | {set} | {} |\n", param.name, table_text(&meaning))
}

/// What a flag says to who uses the method; `None` where the head of the page has said it, or nobody need know.
fn flag(name: &'static str) -> Option<&'static str> {
    Some(match name {
        "elementwise" => {
            "every element depends on the same element of the experts alone, and on statistics: it streams"
        }
        "rows" => {
            "every row depends on the same row of the experts alone, and on statistics: it streams by rows"
        }
        "matrix" => "sees whole matrices, and takes memory for them; other tensors are averaged",
        "any_shape" => "takes tensors that are no matrices as they are, too",
        "optional_base" => {
            "works on task vectors where the recipe has a `base_model`, on weights where it has none"
        }
        "needs_statistics" => {
            "weighs the experts by statistics that you measured: `statistics: PATH` at each model"
        }
        "low_rank" => "takes LoRA experts as their factors, without multiplying them out",
        "deterministic" => "does not use random numbers",
        "propagates_non_finite" => "NaN and infinity come out as such, where a recipe lets them in",
        _ => return None,
    })
}

fn law(name: &'static str) -> &'static str {
    match name {
        "identity" => "identical experts give that expert",
        "permutation" => "the order of the experts does not matter",
        "endpoints" => "`t` = 0 gives the first model, `t` = 1 the second",
        "linear" => "linear: merge(x + y) = merge(x) + merge(y)",
        "homogeneous" => "homogeneous: merge(c·x) = c·merge(x) for c > 0",
        "zero" => "task vectors of zeros add nothing",
        "sign_agreement" => "every element has the sign of the experts' sum, or is zero",
        "keeps_itself" => "a single expert keeps all its own entries",
        other => other,
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn table_text(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn unindented(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_missing_and_left_over_pages_are_told_from_files_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let pages = BTreeMap::from(
            ["a.md", "b.md", "c.md"].map(|name| (name.to_owned(), format!("{ORIGIN} of {name}"))),
        );
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.md", &pages["a.md"]);
        write("b.md", "before");
        write("old.md", ORIGIN);
        write("mine.md", "not of ours");
        let expected =
            [("b.md", "is stale"), ("c.md", "is missing"), ("old.md", "is of a method that is not there")];
        let expected = expected.map(|(name, what)| (name.to_owned(), what));
        assert_eq!(changes(folder.path(), &pages).unwrap(), BTreeMap::from(expected));
        assert_eq!(changes(Path::new("nowhere"), &pages).unwrap().len(), 3);
    }
}
