//! Rolls a policy out.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use skillweld_drive::{LocalPolicy, RemoteOptions, RemotePolicy};
use skillweld_eval::{Results, Rollout, Trial, agree};
use skillweld_gpu::Device;
use skillweld_policy::Policy;
use skillweld_policy::backend::Backend;
use skillweld_robot::{ActionSpace, ChunkSource, Expectation};
use skillweld_suites::{ACTIONS, STATES};

use super::arguments::RunArgs;
use super::show;
use crate::console::Console;
use crate::policy::{Job, routing};
use crate::progress::Progress;
use crate::serve::served;
use crate::{Outcome, interrupt};

/// How long a server's answer may take.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(args: &RunArgs, console: Console) -> Result<Outcome> {
    let trials = args.trials()?;
    let work = Work { args, trials, console };
    if args.policy.contains("://") {
        return work.roll_out(RemotePolicy::connect(remote(args)?)?);
    }
    console.note(&format!("opening {}", args.policy));
    args.opening.run(Path::new(&args.policy), args.images, NonZeroUsize::MIN, work)
}

fn remote(args: &RunArgs) -> Result<RemoteOptions> {
    Ok(RemoteOptions {
        url: args.policy.clone(),
        api_key: args.api_key_file.as_deref().map(crate::serve::api_key).transpose()?,
        keys: args.server_keys.clone(),
        // A server that says nothing of its policy is believed to have one for the suites.
        assumed: Expectation {
            action_dim: ACTIONS,
            space: ActionSpace::EndEffector,
            names: None,
            units: None,
            state_dim: Some(STATES),
            images: args.images.get(),
            horizon: 8,
            needs_instruction: true,
        },
        timeout: SERVER_PATIENCE,
    })
}

struct Work<'a> {
    args: &'a RunArgs,
    trials: Vec<Trial>,
    console: Console,
}

impl Job for Work<'_> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, device: Option<Device>) -> Result<Outcome> {
        let rule = self.args.rule.rule(&policy)?;
        let routing = routing(&policy, (self.args.skill.as_deref(), "--skill"), rule)?;
        let served =
            served::Served { policy: policy.into(), routing, active_tasks: NonZeroUsize::MIN, device };
        self.roll_out(LocalPolicy::new(served)?)
    }
}

impl Work<'_> {
    fn roll_out(self, mut source: impl ChunkSource) -> Result<Outcome> {
        let expectation = source.expects();
        agree(&expectation)?;
        // Not before: what cannot be evaluated leaves no folder behind.
        let mut results = Results::open(&self.args.out, &self.args.of())?;
        let rollout = Rollout {
            image_size: self.args.image_size,
            actions_per_chunk: self
                .args
                .actions
                .or(NonZeroUsize::new(expectation.horizon))
                .unwrap_or(NonZeroUsize::MIN),
        };
        interrupt::install()?;
        let progress = Progress::new(self.args.json);
        progress.count(self.trials.len(), 0);
        for trial in &self.trials {
            progress.message(trial.to_string());
            if !results.has(trial) {
                if interrupt::requested() {
                    let (done, out) = (results.all().len(), self.args.out.display());
                    bail!("interrupted: {done} results are in {out}; the same command goes on");
                }
                // A server is told which expert; a policy in this process has been.
                results.add(rollout.run(trial, &mut source, self.args.skill.as_deref())?)?;
            }
            progress.advance(1);
        }
        progress.finish();
        show::results(results.of(), results.all(), &self.args.out, self.args.json, self.console)
    }
}
