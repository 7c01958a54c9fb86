//! The policy that drives, in this process or behind a socket.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use skillweld_drive::{LocalPolicy, RemoteOptions, RemotePolicy};
use skillweld_gpu::Device;
use skillweld_policy::Policy;
use skillweld_policy::backend::Backend;
use skillweld_robot::{
    ActionSpace, BodyUnit, ChunkExecutor, ChunkSource, Description, Expectation, Overlap, Prompt, Unit, agree,
};

use crate::Outcome;
use crate::arm::body_unit;
use crate::console::Console;
use crate::policy::{Job, Opening, RuleArguments, routing};
use crate::serve::served;

/// The policy.
#[derive(clap::Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct PolicyArguments {
    /// A merged checkpoint, a single expert, or a policy server: ws://HOST:PORT.
    #[arg(long, value_name = "POLICY")]
    policy: String,
    /// The expert to run by its name, instead of routing on the first observation.
    #[arg(long, value_name = "NAME")]
    skill: Option<String>,
    #[command(flatten)]
    rule: RuleArguments,
    /// What the policy's joint positions are, `degrees` or `centred`, where it does not say so itself.
    #[arg(long, value_name = "UNIT", value_parser = body_unit)]
    policy_units: Option<BodyUnit>,
    /// Images of an observation that the policy was trained with; the first so many of the robot's cameras are taken. A
    /// server says it itself.
    #[arg(long, value_name = "N", default_value = "2")]
    images: NonZeroUsize,
    /// What happens where a new chunk overlaps with the one that is being carried out.
    #[arg(long, value_enum, default_value_t)]
    overlap: OverlapName,
    /// Keys that a server of another make expects: plain, LIBERO, DROID, ALOHA.
    #[arg(long, value_name = "NAME", default_value = "plain")]
    server_keys: String,
    /// How long a server's answer may take, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    server_timeout: f64,
    /// A file whose first line is the server's API key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    opening: Opening,
}

/// `--overlap`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum OverlapName {
    /// The new chunk counts
    Replace,
    /// From the old one to the new one, linearly
    #[default]
    Blend,
    /// The mean of all chunks that say something of a step, old ones more: ACT's temporal ensembling
    Ensemble,
}

/// Whatever gives chunks, ready.
pub(crate) struct Source {
    pub(crate) executor: ChunkExecutor,
    pub(crate) name: String,
}

impl PolicyArguments {
    /// Opens the policy, compares it with the robot, and does `work` with it.
    pub(crate) fn with_source(
        &self,
        task: Option<&str>,
        robot: &Description,
        console: Console,
        work: impl FnOnce(Source) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let prompt = Prompt { instruction: task.map(str::to_owned), task: self.skill.clone() };
        if self.policy.contains("://") {
            let remote = RemotePolicy::connect(self.remote(robot)?)?;
            return work(self.source(remote, prompt, robot)?);
        }
        console.note(&format!("opening {}", self.policy));
        let job = LocalJob { arguments: self, prompt, robot, work };
        self.opening.run(Path::new(&self.policy), self.images, NonZeroUsize::MIN, job)
    }

    fn remote(&self, robot: &Description) -> Result<RemoteOptions> {
        let timeout =
            Duration::try_from_secs_f64(self.server_timeout).ok().filter(|timeout| !timeout.is_zero());
        Ok(RemoteOptions {
            url: self.policy.clone(),
            api_key: self.api_key_file.as_deref().map(crate::serve::api_key).transpose()?,
            keys: self.server_keys.clone(),
            // openpi's own server says nothing of its policy: it is believed to be one for this robot.
            assumed: Expectation {
                action_dim: robot.joints.len(),
                space: ActionSpace::Positions,
                names: None,
                units: None,
                state_dim: Some(robot.joints.len()),
                images: robot.cameras.len(),
                horizon: 50,
                needs_instruction: true,
            },
            timeout: timeout.context("--server-timeout must be above 0")?,
        })
    }

    fn source(
        &self,
        source: impl ChunkSource + 'static,
        prompt: Prompt,
        robot: &Description,
    ) -> Result<Source> {
        let units = self.policy_units.map(|units| units.of_joints(source.expects().action_dim));
        if let (Some(said), Some(told)) = (&source.expects().units, &units)
            && said != told
        {
            bail!(
                "the policy itself says what its joint positions are, and it is something else: leave --policy-units out"
            );
        }
        let source = Told { source, units };
        let expectation = source.expects();
        agree(&expectation, &prompt, robot)?;
        if expectation.units.is_none() {
            bail!(
                "the policy does not say what its joint positions are: say it with --policy-units degrees or centred (wrong units \
                 would move the arm far from where it should go)"
            );
        }
        let overlap = match self.overlap {
            OverlapName::Replace => Overlap::Replace,
            OverlapName::Blend => Overlap::Blend,
            OverlapName::Ensemble => Overlap::Ensemble,
        };
        let executor = ChunkExecutor::new(source, prompt, overlap)?;
        Ok(Source { executor, name: self.policy.clone() })
    }
}

/// A policy whose units somebody has said.
struct Told<S> {
    source: S,
    /// Where it says nothing itself.
    units: Option<Vec<Unit>>,
}

impl<S: ChunkSource> ChunkSource for Told<S> {
    fn expects(&self) -> Expectation {
        let said = self.source.expects();
        Expectation { units: said.units.or_else(|| self.units.clone()), ..said }
    }

    fn start_episode(&mut self) {
        self.source.start_episode();
    }

    fn infer(
        &mut self,
        request: &skillweld_robot::ChunkRequest,
    ) -> Result<skillweld_robot::Chunk, skillweld_robot::ChunkError> {
        self.source.infer(request)
    }
}

/// What is done with a policy in this process.
struct LocalJob<'a, W> {
    arguments: &'a PolicyArguments,
    prompt: Prompt,
    robot: &'a Description,
    work: W,
}

impl<W: FnOnce(Source) -> Result<Outcome>> Job for LocalJob<'_, W> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, device: Option<Device>) -> Result<Outcome> {
        let Self { arguments, mut prompt, robot, work } = self;
        let skill = prompt.task.take();
        let routing = routing(&policy, (skill.as_deref(), "--skill"), arguments.rule.rule(&policy)?)?;
        let served =
            served::Served { policy: policy.into(), routing, active_tasks: NonZeroUsize::MIN, device };
        work(arguments.source(LocalPolicy::new(served)?, prompt, robot)?)
    }
}
