//! `skillweld route`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::json;
use skillweld_gpu::Device;
use skillweld_policy::backend::Backend;
use skillweld_policy::{Decision, Observation, Outcome as Verdict, Policy, Routing};

use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::observation_file;
use crate::policy::{Job, Opening, RuleArguments, decision_json};

const EXAMPLES: &str = "\
Examples:
  skillweld route merged --inputs observation.safetensors
  skillweld route merged --inputs observation.safetensors --candidates goal,object --min-probability 0.6 --json

Exit code 1 if the router abstains.";

/// Which task does this observation belong to?
///
/// Runs the vision-language model under every task's mask and scores its hidden states in the subspaces of that task's
/// expert (MergeVLA's training-free router).
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A merged checkpoint with a router.
    policy: PathBuf,
    /// The observation, in either form that `predict` takes.
    #[arg(long, value_name = "IN.safetensors")]
    inputs: PathBuf,
    /// Images of an observation that the experts were trained with; another number is refused.
    #[arg(long, value_name = "N", default_value = "2")]
    images: NonZeroUsize,
    #[command(flatten)]
    rule: RuleArguments,
    #[command(flatten)]
    opening: Opening,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let observation = observation_file::read(&args.inputs)?;
    args.opening.run(&args.policy, args.images, NonZeroUsize::MIN, Route { args, observation, console })
}

struct Route<'a> {
    args: &'a Args,
    observation: Observation,
    console: Console,
}

impl Job for Route<'_> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, _device: Option<Device>) -> Result<Outcome> {
        let Self { args, observation, console } = self;
        ensure!(
            policy.routes(),
            "{} has nothing to route: it holds {}",
            args.policy.display(),
            if policy.tasks().len() == 1 {
                "one task"
            } else {
                "no router; merge with `router:` in the recipe"
            }
        );
        let rule = args.rule.rule(&policy)?;
        let decision =
            policy.session_with(Routing::Router { rule, every_chunks: None }).route(&observation)?;
        let outcome = if decision.task().is_some() { Outcome::Done } else { Outcome::Bad };
        if args.json {
            print_json(&json!(decision_json(&policy, &decision)))?;
            return Ok(outcome);
        }
        let mut page = Page::new(console);
        let found = decision.task().map_or("none is sure enough", |task| policy.tasks()[task].as_str());
        let fallback = if matches!(decision.outcome, Verdict::FellBack(_)) {
            " (the fallback: none is sure enough)"
        } else {
            ""
        };
        page.heading("Task", format!("{}{fallback}", page.paint(Tone::Name, found)));
        candidates(&mut page, &policy, &decision);
        page.print()?;
        Ok(outcome)
    }
}

/// The scores of all candidates.
pub(crate) fn candidates<B: Backend>(page: &mut Page, policy: &Policy<B>, decision: &Decision) {
    let mut rows = table(["task", "score", "probability"]);
    for candidate in &decision.candidates {
        let tone = if decision.task() == Some(candidate.task) { Tone::Good } else { Tone::Plain };
        rows.add_row([
            cell(tone, &policy.tasks()[candidate.task]),
            number(format!("{:.4}", candidate.score)),
            number(format!("{:.1} %", 100.0 * candidate.probability)),
        ]);
    }
    page.table(rows);
    page.line(format!("  margin {:.1} %", 100.0 * decision.margin));
}
