//! `skillweld diff`.

use std::path::PathBuf;

use comfy_table::Cell;
use serde_json::json;
use skillweld_report::{Comparison, Control, Difference, Group, KeyDifference, Operand};

use crate::arguments::ThreadCount;
use crate::console::{Console, Page, Tone, cell, count, number, print_json, table};
use crate::progress::Progress;
use crate::{Outcome, figures, interrupt};

const EXAMPLES: &str = "\
Examples:
  skillweld diff base finetuned
  # one kind of tensors, and more of them
  skillweld diff base finetuned --keys '*.mlp.*' --limit 100
  # an adapter on its base
  skillweld diff experts/goal merged-goal --base base
  # a task of a merged checkpoint, as its weights would be, against its expert
  skillweld diff merged experts/goal --task-a goal
  skillweld diff old new --json | jq '.differences[0]'

Exit codes: 0 equal; 1 different; 2 failed, or wrong usage; 130 interrupted.";

/// Compare two checkpoints key by key.
///
/// Models, files, LoRA adapters and merged checkpoints, in any combination. Distances are ‖a − b‖ / ½(‖a‖ + ‖b‖): 0 for
/// equal tensors, about 1.4 for unrelated ones, 2 for opposite ones.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A checkpoint, an adapter, a merged checkpoint or a single file.
    a: PathBuf,
    /// Another.
    b: PathBuf,
    /// Only keys like this: `*` stands for anything, `?` for one character.
    #[arg(long, value_name = "GLOB")]
    keys: Option<String>,
    /// Keys to list, those that differ most first.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Take one task of A, a merged checkpoint.
    #[arg(long, value_name = "T")]
    task_a: Option<String>,
    /// Take one task of B, a merged checkpoint.
    #[arg(long, value_name = "T")]
    task_b: Option<String>,
    /// What adapters lie on, and what merged checkpoints do not hold.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadCount,
    /// One JSON document on standard output, and nothing else there; every key.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    interrupt::install()?;
    let a = Operand::open(&args.a, args.task_a.as_deref(), args.base.as_deref())?;
    let b = Operand::open(&args.b, args.task_b.as_deref(), args.base.as_deref())?;
    let progress = Progress::new(args.json);
    let control = Control {
        threads: args.threads.get(),
        cancelled: &interrupt::requested,
        start: &|elements| progress.start(elements, 4.0),
        advance: &|elements| progress.advance(elements),
    };
    let comparison = Comparison::of(&a, &b, args.keys.as_deref(), &control);
    progress.finish();
    let comparison = comparison?;
    anyhow::ensure!(
        comparison.keys > 0,
        "no key is like `{}`; `skillweld inspect --keys` lists them",
        args.keys.as_deref().unwrap_or("*")
    );
    let outcome = if comparison.equal { Outcome::Done } else { Outcome::Bad };
    if args.json {
        print_json(&json!(comparison))?;
        return Ok(outcome);
    }
    let mut page = Page::new(console);
    show(&comparison, args, &mut page);
    page.print()?;
    Ok(outcome)
}

fn show(comparison: &Comparison, args: &Args, page: &mut Page) {
    let (a, b) = (args.a.display(), args.b.display());
    let (keys, equal) = (comparison.keys, comparison.equal_keys);
    if comparison.equal {
        let verdict = page.paint(Tone::Good, "equal");
        page.heading("Same", format!("{a} and {b}: {}, all {verdict}", figures::counted(keys, "tensor")));
        return;
    }
    let verdict = page.paint(Tone::Warning, format!("{} differ", figures::count(keys - equal)));
    page.heading("Different", format!("{a} and {b}: of {}, {verdict}", figures::counted(keys, "tensor")));
    let of = |counted: &dyn Fn(&Difference) -> bool| {
        comparison.differences.iter().filter(|found| counted(&found.difference)).count() as u64
    };
    let some = |count: u64| if count == 0 { String::new() } else { figures::count(count) };
    page.facts([
        ("only in A", some(of(&|found| matches!(found, Difference::OnlyInA { .. })))),
        ("only in B", some(of(&|found| matches!(found, Difference::OnlyInB { .. })))),
        ("other shapes", some(of(&|found| matches!(found, Difference::Shape { .. })))),
        (
            "other values",
            some(of(&|found| matches!(found, Difference::Values { .. } | Difference::Bytes { .. }))),
        ),
        ("equal", figures::count(equal)),
    ]);
    page.heading("By modality", "");
    page.table(groups(comparison.by_modality.iter()));
    let mut layers: Vec<_> = comparison.by_layer.iter().collect();
    layers.sort_by(|a, b| b.1.relative_l2.total_cmp(&a.1.relative_l2));
    page.heading("By layer", "the largest distance first");
    page.table(groups(layers.iter().take(args.limit).copied()));
    page.heading("Keys", "the largest distance first");
    let rows = comparison.differences.iter().take(args.limit).map(row).collect();
    page.table_of_names(&["", "distance", "cosine", "largest", "elements", ""], rows);
    let more = comparison.differences.len().saturating_sub(args.limit);
    if more > 0 {
        let text =
            format!("  and {}; --limit shows more, --json all", figures::counted(more as u64, "other"));
        let text = page.paint(Tone::Faint, text);
        page.line(text);
    }
}

fn groups<'g>(groups: impl Iterator<Item = (&'g String, &'g Group)>) -> comfy_table::Table {
    let mut table = table(["", "keys", "different", "distance", "largest"]);
    for (name, group) in groups {
        table.add_row([
            cell(Tone::Name, name),
            count(group.keys),
            count(group.different),
            number(short(group.relative_l2)),
            number(short(group.max_abs)),
        ]);
    }
    table
}

fn row(found: &KeyDifference) -> (String, Vec<Cell>) {
    let blank = || number("");
    let shape = |shape: &[usize]| figures::shape(shape);
    let cells = match &found.difference {
        Difference::OnlyInA { dtype, shape: dimensions } => {
            let what = format!("only in A: {dtype} {}", shape(dimensions));
            vec![blank(), blank(), blank(), blank(), cell(Tone::Warning, what)]
        }
        Difference::OnlyInB { dtype, shape: dimensions } => {
            let what = format!("only in B: {dtype} {}", shape(dimensions));
            vec![blank(), blank(), blank(), blank(), cell(Tone::Warning, what)]
        }
        Difference::Shape { a, b } => {
            let what = format!("shape {} in A, {} in B", shape(a), shape(b));
            vec![blank(), blank(), blank(), blank(), cell(Tone::Warning, what)]
        }
        Difference::Bytes { dtype_a, dtype_b } => {
            let what = if dtype_a == dtype_b {
                format!("other bytes ({dtype_a})")
            } else {
                format!("{dtype_a} in A, {dtype_b} in B")
            };
            vec![blank(), blank(), blank(), blank(), cell(Tone::Warning, what)]
        }
        Difference::Values { dtype_a, dtype_b, elements, of, max_abs, relative_l2, cosine } => {
            let share = figures::percent(*elements as f64 / (*of).max(1) as f64);
            let dtypes =
                if dtype_a == dtype_b { String::new() } else { format!("{dtype_a} in A, {dtype_b} in B") };
            vec![
                number(short(*relative_l2)),
                number(format!("{cosine:.6}")),
                number(short(*max_abs)),
                number(share),
                cell(Tone::Faint, dtypes),
            ]
        }
    };
    (found.key.clone(), cells)
}

/// Four digits, of small numbers in powers of ten.
fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 { format!("{value:.4}") } else { format!("{value:.3e}") }
}
