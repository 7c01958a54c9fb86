//! What is evaluated, on what.

use std::collections::HashSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use skillweld_eval::Trial;
use skillweld_suites::{PerturbationKind, Split, Strength, Suite, Task};

use super::identity::identity;
use crate::policy::{Opening, RuleArguments};

const EXAMPLES: &str = "\
Examples:
  skillweld eval run merged --out results/merged                      all tasks, ten layouts of the selection split each
  skillweld eval run merged --suite goal --episodes 50 --split final --out results/goal
  skillweld eval run merged --perturb none --perturb light:strong --perturb camera:mild --out results/merged-light
  skillweld eval run ws://gpu-box:8000 --out results/server           a policy server
  skillweld eval compare results/merged results/ties                  on the same trials

Every trial is a line of OUT/trials.jsonl; the same command goes on where it was interrupted. At the end OUT/results.csv and
OUT/success.svg show them. Results are the same for the same policy, trials
and actions a chunk, on any machine that computes the same actions.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The folder of the results; one that the same command began goes on.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    pub(super) json: bool,
}

/// A policy and the trials that it is put to.
#[derive(clap::Args)]
pub(super) struct Subject {
    /// A merged checkpoint, a single expert, or a policy server: ws://HOST:PORT.
    pub(super) policy: String,
    /// Tasks of this suite; may be repeated [default: all].
    #[arg(long, value_enum)]
    suite: Vec<crate::sim::SuiteName>,
    /// This task (`skillweld sim tasks`); may be repeated.
    #[arg(long, value_name = "ID", conflicts_with = "suite")]
    task: Vec<String>,
    /// Layouts of each task.
    #[arg(long, value_name = "N", default_value = "10")]
    episodes: NonZeroU32,
    /// Which layouts: those to choose by, those to report once, or those that demonstrations have.
    #[arg(long, value_enum, default_value = "selection")]
    split: SplitName,
    /// What is unlike training, for example light:strong: camera, background, light, layout, robot_state, noise, language; mild, medium,
    /// strong. May be repeated: every layout under each of them, and as it is under `none`.
    #[arg(long, value_name = "KIND:STRENGTH", value_parser = perturbation, default_value = "none", hide_default_value = true)]
    perturb: Vec<Perturbed>,
    /// Another arm.
    #[arg(long, value_enum, default_value = "so101")]
    embodiment: crate::sim::EmbodimentName,
    /// Actions of a chunk that are carried out before the policy is asked again [default: all].
    #[arg(long, value_name = "N")]
    pub(super) actions: Option<NonZeroUsize>,
    /// Trials that run side by side, those that wait for actions at the same time sharing a forward [default: four a core; of a
    /// server one]. Results do not depend on it.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Rows and columns of both pictures.
    #[arg(long, value_name = "PIXELS", default_value_t = 96)]
    pub(super) image_size: usize,
    /// Pictures of an observation that the policy was trained with: front, then wrist.
    #[arg(long, value_name = "N", default_value = "2")]
    pub(super) images: NonZeroUsize,
    /// The expert to run by its name, instead of routing on the first observation.
    #[arg(long, value_name = "NAME")]
    pub(super) skill: Option<String>,
    /// The names under which a server wants pictures and state.
    #[arg(long, value_name = "NAME", default_value = "LIBERO")]
    pub(super) server_keys: String,
    /// A file whose first line is the server's API key.
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) rule: RuleArguments,
    #[command(flatten)]
    pub(super) opening: Opening,
}

/// How one is unlike training, if it is.
type Perturbed = Option<(PerturbationKind, Strength)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Training,
    Selection,
    Final,
}

impl Subject {
    /// All trials, layout by layout, each once.
    pub(super) fn trials(&self) -> Result<Vec<Trial>> {
        let tasks = self.tasks()?;
        let mut trials = Vec::new();
        for index in 0..self.episodes.get() {
            for (task, &perturbation) in
                tasks.iter().flat_map(|task| self.perturb.iter().map(move |p| (task, p)))
            {
                trials.push(Trial {
                    task: task.id.to_owned(),
                    split: self.split(),
                    index,
                    perturbation,
                    embodiment: self.embodiment.embodiment(),
                });
            }
        }
        // Who names a task or a perturbation twice would count it twice.
        let mut seen = HashSet::new();
        trials.retain(|trial| seen.insert(trial.clone()));
        Ok(trials)
    }

    /// Trials that run side by side.
    pub(super) fn jobs(&self) -> NonZeroUsize {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        // So many that one batch is computed while others are simulated.
        let local = cores.saturating_mul(const { NonZeroUsize::new(4).unwrap() });
        self.jobs.unwrap_or(if self.is_remote() { NonZeroUsize::MIN } else { local })
    }

    fn split(&self) -> Split {
        match self.split {
            SplitName::Training => Split::Training,
            SplitName::Selection => Split::Selection,
            SplitName::Final => Split::Final,
        }
    }

    fn tasks(&self) -> Result<Vec<&'static Task>> {
        if !self.task.is_empty() {
            let one = |id: &String| {
                Task::named(id)
                    .with_context(|| format!("there is no task {id}; `skillweld sim tasks` lists them"))
            };
            return self.task.iter().map(one).collect();
        }
        let named =
            |suite: &Suite| self.suite.is_empty() || self.suite.iter().any(|name| name.suite() == *suite);
        Ok(Suite::ALL.into_iter().filter(named).flat_map(Suite::tasks).collect())
    }

    /// Whether the policy is behind a server's address.
    pub(super) fn is_remote(&self) -> bool {
        self.policy.contains("://")
    }

    /// All that decides on results besides the trials' tasks, layouts and perturbations: a folder has results of one kind. Of a
    /// checkpoint what is in it, and in its base, so that another one in the same place is another policy. What stands behind a server's
    /// address is not known.
    ///
    /// # Errors
    /// Where a checkpoint cannot be read.
    pub(super) fn of(&self) -> Result<String> {
        let mut of = self.policy.clone();
        if !self.is_remote() {
            let path = std::fs::canonicalize(&self.policy).with_context(|| format!("cannot find {of}"))?;
            of = format!("{} ({})", path.display(), identity(&path)?);
            if let Some(base) = self.opening.base() {
                of += &format!(" on {} ({})", base.display(), identity(base)?);
            }
        }
        let mut word = |flag: &str, value: &dyn std::fmt::Display| of += &format!(" --{flag} {value}");
        word("split", &self.split().name());
        word("embodiment", &self.embodiment.embodiment().name());
        word("image-size", &self.image_size);
        word("images", &self.images);
        if let Some(actions) = self.actions {
            word("actions", &actions);
        }
        if let Some(skill) = &self.skill {
            word("skill", skill);
        }
        if self.is_remote() {
            word("server-keys", &self.server_keys);
        }
        Ok(of + &self.rule.describe() + &self.opening.describe())
    }
}

fn perturbation(text: &str) -> Result<Perturbed> {
    if text == "none" {
        return Ok(None);
    }
    let (kind, strength) =
        text.split_once(':').context("write it KIND:STRENGTH, for example light:strong")?;
    let kinds = PerturbationKind::ALL.into_iter();
    let kind = kinds.clone().find(|one| one.name() == kind).with_context(|| {
        let known: Vec<&str> = kinds.map(PerturbationKind::name).collect();
        format!("`{kind}` is none of {}", known.join(", "))
    })?;
    let strength = Strength::ALL.into_iter().find(|one| one.name() == strength);
    Ok(Some((kind, strength.context("the strength is none of mild, medium, strong")?)))
}
