//! `skillweld plugins check`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use skillweld_plugin_check::CheckOptions;

use super::child::{FLAG, Findings, Law, MethodReport, Verdict, check_here, check_in_child};
use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, print_json, table};

const EXAMPLES: &str = "\
Examples:
  skillweld plugins check target/release/libskillweld_plugin_my_merge.so
  skillweld plugins check ./stranger.so --cases 1000 --seed 7
  skillweld plugins check ./slow.so --cases 8 --timeout 600

Exit code 1 if a law is broken, or the plugin crashes or hangs.";

/// Hold every method of a plugin to the laws of merging, on random input, in a process of its own.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The plugin's library.
    file: PathBuf,
    /// Random cases for each law.
    #[arg(long, value_name = "N", default_value_t = CheckOptions::default().cases,
          value_parser = clap::value_parser!(u32).range(1..))]
    cases: u32,
    /// Where the random numbers start; the same seed draws the same cases.
    #[arg(long, value_name = "S", default_value_t = CheckOptions::default().seed)]
    seed: u64,
    /// How long one law may take before the plugin counts as hanging [default: 60, or a second a case if that is more].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// The results as JSON.
    #[arg(long)]
    json: bool,
    /// Check here and speak to the parent process.
    #[arg(long = FLAG, hide = true)]
    in_this_process: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    let options = CheckOptions { cases: args.cases, seed: args.seed };
    if args.in_this_process {
        check_here(&args.file, &options)?;
        return Ok(Outcome::Done);
    }
    let limit = Duration::from_secs(args.timeout.unwrap_or_else(|| u64::from(args.cases).max(60)));
    let Findings { methods, crash, hang } = check_in_child(&args.file, &options, limit, console)?;
    let passed = crash.is_none() && hang.is_none() && methods.iter().all(MethodReport::passed);
    if args.json {
        print_json(&json!({
            "plugin": args.file, "passed": passed, "crash": crash, "hang": hang, "methods": methods,
        }))?;
    } else {
        let mut page = Page::new(console);
        methods.iter().for_each(|method| show(method, &mut page));
        for end in crash.iter().chain(&hang) {
            page.line("");
            page.line(page.paint(Tone::Bad, end));
        }
        page.print()?;
    }
    Ok(if passed { Outcome::Done } else { Outcome::Bad })
}

fn show(report: &MethodReport, page: &mut Page) {
    let broken: Vec<&Law> =
        report.laws.iter().filter(|law| matches!(law.verdict, Verdict::Broken { .. })).collect();
    let verdict = match broken.len() {
        0 => page.paint(Tone::Good, "keeps every law that applies"),
        count => page.paint(Tone::Bad, format!("breaks {count} of {} laws", report.laws.len())),
    };
    page.heading(&format!("{} method {}", report.kind, report.method), verdict);
    let mut table = table([]);
    for law in &report.laws {
        let (mark, tone, detail) = match &law.verdict {
            Verdict::Kept { cases } => ("✓", Tone::Good, format!("{cases} cases")),
            Verdict::NotApplicable { reason } => ("–", Tone::Faint, reason.clone()),
            Verdict::Broken { .. } => ("✗", Tone::Bad, law.statement.clone()),
        };
        let detail_tone = if tone == Tone::Bad { Tone::Plain } else { Tone::Faint };
        table.add_row([cell(tone, mark), cell(tone, &law.name), cell(detail_tone, detail)]);
    }
    page.table(table);
    for law in broken {
        let Verdict::Broken { counterexample } = &law.verdict else { continue };
        page.line("");
        page.line(format!("  {} is broken by this:", page.paint(Tone::Bad, &law.name)));
        counterexample.lines().for_each(|line| page.line(format!("    {line}")));
    }
}
