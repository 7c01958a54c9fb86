//! A skill that is added.

use std::fs;

use skillweld_merge::Control;
use skillweld_plugin_host::Registry;
use skillweld_store::StoreError;

use super::chain::{chain_paths, unchanged};
use super::{CHECKPOINT, PREVIOUS, State};
use crate::folder::link_tree;
use crate::step::check_cancelled;
use crate::{Pair, Policy, RetainError, Skill, StartedFrom, Step};

/// A skill about to be added.
#[derive(Debug)]
pub struct Addition {
    pub(super) state: State,
    pub(super) name: String,
    pub(super) keep_previous: bool,
    pub(super) started_from: StartedFrom,
    pub(super) pair: Pair,
}

impl Addition {
    /// What the skill will be called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was finetuned from the state's policy, as far as can be seen.
    pub fn started_from(&self) -> &StartedFrom {
        &self.started_from
    }

    /// As [`Pair::plan`].
    ///
    /// # Errors
    /// As [`Pair::plan`].
    pub fn plan<'a>(
        &'a self,
        registry: &'a Registry,
        control: &Control<'a>,
    ) -> Result<Step<'a>, RetainError> {
        self.pair.plan(registry, control)
    }

    /// Makes the step, which [`plan`](Self::plan) gave. The state is then after it; if anything fails, as it was.
    ///
    /// # Errors
    /// Whatever fails on the way; a current checkpoint that is not what the ledger says.
    pub fn run(&self, step: &Step<'_>, control: &Control<'_>) -> Result<Skill, RetainError> {
        let Self { state, pair, .. } = self;
        step.check()?;
        let out = state.stage()?;
        let checkpoint = out.path().join(CHECKPOINT);
        fs::create_dir(&checkpoint).map_err(StoreError::io("create", &checkpoint))?;
        let count = state.ledger.skills.len();
        let mut ledger = state.ledger.clone();
        let done = step.write(&checkpoint, chain_paths(&ledger, count, &pair.finetuned), control)?;
        if state.lock.is_none() {
            ledger.base.blake3 = done.base.clone();
        }
        let current = if count == 0 { "the base" } else { "the current checkpoint" };
        unchanged((current, &pair.base), ledger.contents_after(count), &done.base)?;
        let skill = Skill {
            name: self.name.clone(),
            finetuned: Policy { path: pair.finetuned.clone(), blake3: done.finetuned },
            interpolation: pair.interpolation.clone(),
            result_blake3: done.result,
            started_from: self.started_from.clone(),
        };
        ledger.skills.push(skill.clone());
        ledger.write(out.path())?;
        if self.keep_previous && count > 0 {
            link_tree(&pair.base, &out.path().join(PREVIOUS))?;
        }
        check_cancelled(control)?;
        out.commit()?;
        Ok(skill)
    }
}
