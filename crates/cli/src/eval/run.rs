//! Rolls a policy out.

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use skillweld_eval::{Results, Trial, results_csv, success_plot};

use super::arguments::RunArgs;
use super::{policies, show};
use crate::console::Console;
use crate::progress::Progress;
use crate::{Outcome, interrupt, output_file};

pub(super) fn run(args: &RunArgs, console: Console) -> Result<Outcome> {
    let subject = &args.subject;
    let trials = subject.trials()?;
    policies::open(subject, console, |policies::Policies { mut sources, rollout }| {
        // Not before: what cannot be evaluated leaves no folder behind.
        let mut results = Results::open(&args.out, &subject.of()?)?;
        interrupt::install()?;
        let progress = Progress::new(args.json);
        let left: Vec<Trial> = trials.iter().filter(|trial| !results.has(trial)).cloned().collect();
        progress.count(trials.len(), trials.len() - left.len());
        rollout.run_all(
            &left,
            &mut sources,
            subject.skill.as_deref(),
            |_, _| Ok(()),
            |result| {
                progress.message(result.trial.to_string());
                results.add(result)?;
                progress.advance(1);
                Ok(if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
        )?;
        if trials.iter().any(|trial| !results.has(trial)) {
            let (done, out) = (results.all().len(), args.out.display());
            bail!("interrupted: {done} results are in {out}; the same command goes on");
        }
        output_file::write(&args.out.join("results.csv"), results_csv(results.all())?)?;
        output_file::write(&args.out.join("success.svg"), success_plot(results.of(), results.all())?)?;
        progress.finish();
        show::results(results.of(), results.all(), &args.out, args.json, console)
    })
}
