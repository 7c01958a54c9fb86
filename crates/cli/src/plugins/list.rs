//! `skillweld plugins list`.

use serde_json::json;
use skillweld_plugin_host::{Kind, Method};

use super::Search;
use super::describe::{description, experts};
use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, print_json, table};

const EXAMPLES: &str = "\
Examples:
  skillweld plugins list
  skillweld plugins list --plugin target/release
  # names of the mask methods, for a script
  skillweld plugins list --json | jq -r '.methods[] | select(.kind == \"mask\") | .id'

Of two methods of one name the first found counts: --plugin PATH, next to the program, $SKILLWELD_PLUGINS.";

/// List the merge and mask methods at hand.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    search: Search,
    /// Everything about every method, as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let registry = args.search.discover(console, args.json)?;
    let mut methods: Vec<&Method> = registry.iter().collect();
    methods.sort_by_key(|method| (method.kind() == Kind::Mask, method.id()));
    if args.json {
        let methods: Vec<_> = methods.into_iter().map(description).collect();
        let skipped = registry.skipped().iter();
        let skipped: Vec<_> = skipped.map(|s| json!({"plugin": s.path, "reason": s.reason})).collect();
        print_json(&json!({"methods": methods, "skipped": skipped}))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    if methods.is_empty() {
        page.line("no methods found: put plugins next to the program, name them with --plugin or $SKILLWELD_PLUGINS");
    } else {
        page.table(methods_table(&methods));
    }
    page.print()?;
    Ok(Outcome::Done)
}

fn methods_table(methods: &[&Method]) -> comfy_table::Table {
    let mut table = table(["method", "kind", "version", "experts", "what it does", "plugin"]);
    for method in methods {
        let file = method.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let plugin = file.split_once("skillweld_plugin_").map_or(file.as_str(), |(_, name)| name);
        table.add_row([
            cell(Tone::Name, method.id()),
            cell(Tone::Plain, method.kind()),
            cell(Tone::Plain, method.version()),
            cell(Tone::Plain, experts(method)),
            cell(Tone::Plain, method.summary()),
            cell(Tone::Faint, plugin),
        ]);
    }
    table
}
