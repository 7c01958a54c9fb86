//! A chain of skills made again, and held against its ledger.

use std::fs;
use std::path::Path;

use skillweld_merge::Control;
use skillweld_plugin_host::Registry;
use skillweld_store::StoreError;

use super::Watch;
use crate::contents::first_difference;
use crate::{Contents, Ledger, Pair, RetainError};

/// Makes the first `count` skills into the folder `to`, with the steps between below `chain`.
pub(super) fn replay(
    ledger: &Ledger,
    count: usize,
    to: &Path,
    chain: &Path,
    registry: &Registry,
    (control, watch): (&Control<'_>, Watch<'_>),
) -> Result<(), RetainError> {
    let mut start = ledger.base.path.clone();
    for (index, skill) in ledger.skills[..count].iter().enumerate() {
        let last = index + 1 == count;
        let target = if last { to.to_owned() } else { chain.join(index.to_string()) };
        let made = || {
            fs::create_dir_all(&target).map_err(StoreError::io("create", &target))?;
            let pair = Pair::open(&start, &skill.finetuned.path, &skill.interpolation)?;
            let step = pair.plan(registry, control)?;
            step.check()?;
            watch(&skill.name, index + 1, count, step.work());
            step.write(&target, chain_paths(ledger, index, &skill.finetuned.path), control)
        };
        let done = made().map_err(|error| in_step(&skill.name, error))?;
        if index == 0 {
            unchanged(("the base", &start), &ledger.base.blake3, &done.base)?;
        }
        let policy = &skill.finetuned;
        unchanged((&format!("skill {}", skill.name), &policy.path), &policy.blake3, &done.finetuned)?;
        if let Some(change) = first_difference(&skill.result_blake3, &done.result) {
            return Err(RetainError::ResultChanged { skill: skill.name.clone(), change });
        }
        if index > 0 {
            fs::remove_dir_all(&start).map_err(StoreError::io("remove", &start))?;
        }
        start = target;
    }
    if chain.exists() {
        fs::remove_dir_all(chain).map_err(StoreError::io("remove", chain))?;
    }
    Ok(())
}

/// Says in which step it was; a stop is one of the whole chain.
fn in_step(skill: &str, error: RetainError) -> RetainError {
    match error {
        RetainError::Merge(skillweld_merge::MergeError::Cancelled) => error,
        source => RetainError::Step { skill: skill.to_owned(), source: Box::new(source) },
    }
}

/// What a step's provenance names: never the folder of a state, which moves and changes.
pub(super) fn chain_paths<'p>(
    ledger: &'p Ledger,
    index: usize,
    finetuned: &'p Path,
) -> [Option<&'p Path>; 2] {
    [(index == 0).then_some(ledger.base.path.as_path()), Some(finetuned)]
}

pub(super) fn unchanged(
    (whose, path): (&str, &Path),
    expected: &Contents,
    found: &Contents,
) -> Result<(), RetainError> {
    match first_difference(expected, found) {
        None => Ok(()),
        Some(change) => {
            Err(RetainError::InputChanged { whose: whose.to_owned(), path: path.to_owned(), change })
        }
    }
}
