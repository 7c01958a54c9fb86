//! The policy that is evaluated: in this process or behind a socket, as often as trials run side by side.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skillweld_drive::{LocalPolicy, RemoteOptions, RemotePolicy};
use skillweld_eval::{Rollout, agree};
use skillweld_gpu::Device;
use skillweld_policy::Policy;
use skillweld_policy::backend::Backend;
use skillweld_robot::{ActionSpace, ChunkSource, Expectation};
use skillweld_suites::{ACTIONS, STATES};

use super::arguments::Subject;
use crate::Outcome;
use crate::console::Console;
use crate::policy::{Job, routing};
use crate::serve::served;

/// How long a server's answer may take.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

/// Ready for trials.
pub(super) struct Policies {
    /// One for each trial at a time.
    pub(super) sources: Vec<Box<dyn ChunkSource>>,
    pub(super) rollout: Rollout,
}

/// Opens what is evaluated, checks that it fits the suites, and does `work` with it.
pub(super) fn open(
    subject: &Subject,
    console: Console,
    work: impl FnOnce(Policies) -> Result<Outcome>,
) -> Result<Outcome> {
    let jobs = subject.jobs();
    if subject.is_remote() {
        let said = subject.rule.describe() + &subject.opening.describe();
        ensure!(
            said.is_empty() && subject.opening.base().is_none(),
            "{} is for a policy in this process; a server decides by the options that it was started with",
            if said.is_empty() { "--base" } else { said.trim() }
        );
        let connect = |_| Ok(Box::new(RemotePolicy::connect(remote(subject)?)?) as Box<dyn ChunkSource>);
        return ready(subject, (0..jobs.get()).map(connect).collect::<Result<_>>()?, work);
    }
    console.note(&format!("opening {}", subject.policy));
    // Side by side, trials of different tasks are under way.
    let (path, in_memory) = (Path::new(&subject.policy), jobs);
    subject.opening.run(path, subject.images, in_memory, Local { subject, work })
}

fn remote(subject: &Subject) -> Result<RemoteOptions> {
    Ok(RemoteOptions {
        url: subject.policy.clone(),
        api_key: subject.api_key_file.as_deref().map(crate::serve::api_key).transpose()?,
        keys: subject.server_keys.clone(),
        // A server that says nothing of its policy is believed to have one for the suites.
        assumed: Expectation {
            action_dim: ACTIONS,
            space: ActionSpace::EndEffector,
            names: None,
            units: None,
            state_dim: Some(STATES),
            images: subject.images.get(),
            horizon: 8,
            needs_instruction: true,
        },
        timeout: SERVER_PATIENCE,
    })
}

struct Local<'a, W> {
    subject: &'a Subject,
    work: W,
}

impl<W: FnOnce(Policies) -> Result<Outcome>> Job for Local<'_, W> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, device: Option<Device>) -> Result<Outcome> {
        let Self { subject, work } = self;
        let rule = subject.rule.rule(&policy)?;
        let routing = routing(&policy, (subject.skill.as_deref(), "--skill"), rule)?;
        let policy = Arc::new(policy);
        let source = |_| {
            let (policy, routing, device) = (policy.clone(), routing.clone(), device.clone());
            let served = served::Served { policy, routing, active_tasks: NonZeroUsize::MIN, device };
            Ok(Box::new(LocalPolicy::new(served)?) as Box<dyn ChunkSource>)
        };
        ready(subject, (0..subject.jobs().get()).map(source).collect::<Result<_>>()?, work)
    }
}

fn ready(
    subject: &Subject,
    sources: Vec<Box<dyn ChunkSource>>,
    work: impl FnOnce(Policies) -> Result<Outcome>,
) -> Result<Outcome> {
    let expectation = sources.first().context("no trial can run without a policy")?.expects();
    agree(&expectation)?;
    let of_a_chunk = subject.actions.or(NonZeroUsize::new(expectation.horizon));
    let rollout = Rollout {
        image_size: subject.image_size,
        actions_per_chunk: of_a_chunk.unwrap_or(NonZeroUsize::MIN),
    };
    work(Policies { sources, rollout })
}
