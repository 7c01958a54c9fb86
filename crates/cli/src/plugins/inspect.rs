//! `skillweld plugins inspect`.

use skillweld_plugin_host::{Kind, Method, ParamSpec, Registry};

use super::Search;
use super::describe::{description, experts, flags_of, laws_of};
use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, print_json, table};

const EXAMPLES: &str = "\
Examples:
  skillweld plugins inspect ties
  # the mask method of a name that a merge method has too
  skillweld plugins inspect emr --mask
  skillweld plugins inspect my_merge --plugin target/release
  # the JSON Schema of its parameters
  skillweld plugins inspect ties --json | jq .parameters";

/// Describe a method: parameters, laws, citation, and how to write it in a recipe.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The method's name in recipes.
    id: String,
    /// The mask method of that name, where a merge method has it too.
    #[arg(long)]
    mask: bool,
    #[command(flatten)]
    search: Search,
    /// Everything as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let registry = args.search.discover(console, args.json)?;
    let method = find(&registry, &args.id, args.mask)?;
    if args.json {
        print_json(&description(method))?;
    } else {
        page(method, console).print()?;
    }
    Ok(Outcome::Done)
}

/// The merge method, or the mask method where it is asked for or the only one of that name.
fn find<'r>(registry: &'r Registry, id: &str, mask: bool) -> anyhow::Result<&'r Method> {
    if mask {
        return Ok(registry.mask(id)?);
    }
    match (registry.merge(id), registry.mask(id)) {
        (Ok(method), _) | (Err(_), Ok(method)) => Ok(method),
        (Err(error), Err(_)) => Err(error.into()),
    }
}

fn page(method: &Method, console: Console) -> Page {
    let mut page = Page::new(console);
    page.heading(method.id(), method.summary());
    let or_none = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let inputs = if method.takes_task_vectors() { "task vectors of" } else { "weights of" };
    let base = match method.needs_base_model() {
        true => "; needs a base model",
        false if method.takes_task_vectors() => "; without a base model their weights",
        false => "",
    };
    let mask = method.mask().map(|mask| format!("{mask}, unless a recipe names another"));
    let device_code = method
        .cuda()
        .map(|code| format!("kernel {}, {} bytes, for --device cuda", code.run, code.image.len()));
    page.facts([
        ("kind", format!("{} method, version {}", method.kind(), method.version())),
        ("takes", format!("{inputs} {} experts{base}", experts(method))),
        ("flags", or_none(flags_of(method))),
        ("laws", or_none(laws_of(method))),
        ("mask", mask.unwrap_or_default()),
        ("device code", device_code.unwrap_or_default()),
        ("cite", method.citation().to_owned()),
        ("plugin", method.path().display().to_string()),
    ]);
    if !method.params().is_empty() {
        page.heading("Parameters", "");
        page.table(parameters(method.params()));
    }
    page.heading("In a recipe", "");
    page.line(recipe(method));
    page
}

fn parameters(params: &[ParamSpec]) -> comfy_table::Table {
    let mut table = table(["name", "value", "default", "set", "meaning"]);
    for param in params {
        let default = match &param.default {
            Some(value) => cell(Tone::Plain, value),
            None => cell(Tone::Warning, "required"),
        };
        table.add_row([
            cell(Tone::Name, &param.name),
            cell(Tone::Plain, &param.kind),
            default,
            cell(Tone::Plain, if param.per_expert { "per model" } else { "once" }),
            match param.no_effect {
                true => cell(Tone::Faint, format!("no effect: {}", param.description)),
                false => cell(Tone::Plain, &param.description),
            },
        ]);
    }
    table
}

/// The lines that choose the method, with every default written out.
pub(super) fn recipe(method: &Method) -> String {
    let (choice, parameters) = match method.kind() {
        Kind::Merge => (format!("  merge_method: {}", method.id()), "  parameters:"),
        Kind::Mask => (format!("  mask:\n    method: {}", method.id()), ""),
    };
    let mut lines = vec![choice];
    if !parameters.is_empty() && !method.params().is_empty() {
        lines.push(parameters.to_owned());
    }
    for param in method.params().iter().filter(|param| !param.no_effect) {
        let default = param.default.as_ref().map_or_else(|| "…".to_owned(), ToString::to_string);
        lines.push(format!("    {}: {default}", param.name));
    }
    lines.join("\n")
}
