//! Stages side by side, each as soon as those that it needs have ended.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};

use super::Stage;

struct State<'a> {
    /// In the order in which they are begun, if nothing else hinders them.
    waiting: Vec<&'a Stage>,
    running: BTreeSet<&'a str>,
    error: Option<anyhow::Error>,
}

impl<'a> State<'a> {
    /// Takes the first stage that needs none of those that wait or run.
    fn next(&mut self) -> Option<&'a Stage> {
        let unmade = |name: &str| {
            self.running.contains(name) || self.waiting.iter().any(|waiting| waiting.name == name)
        };
        let index = self.waiting.iter().position(|stage| !stage.needs().any(unmade))?;
        let stage = self.waiting.remove(index);
        self.running.insert(&stage.name);
        Some(stage)
    }
}

/// Does every stage once, `jobs` at a time. After a failure none is begun; those under way are finished.
///
/// # Errors
/// The first of `work`.
pub(super) fn run<'a>(
    stages: Vec<&'a Stage>,
    jobs: usize,
    work: impl Fn(&Stage) -> Result<()> + Sync,
) -> Result<()> {
    let state = Mutex::new(State { waiting: stages, running: BTreeSet::new(), error: None });
    let changed = Condvar::new();
    let lock = || -> MutexGuard<'_, State<'a>> { state.lock().unwrap_or_else(PoisonError::into_inner) };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let mut state = lock();
                while state.error.is_none() && !state.waiting.is_empty() {
                    let Some(stage) = state.next() else {
                        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    };
                    drop(state);
                    // Others would wait for ever for a stage that nobody does any more.
                    let result = catch_unwind(AssertUnwindSafe(|| work(stage)))
                        .unwrap_or_else(|_| Err(anyhow!("stage {} has panicked", stage.name)));
                    state = lock();
                    state.running.remove(stage.name.as_str());
                    if let Err(error) = result {
                        state.error.get_or_insert(error);
                    }
                    changed.notify_all();
                }
            });
        }
    });
    match state.into_inner().unwrap_or_else(PoisonError::into_inner).error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::ensure;

    use super::*;
    use crate::train::stages::STAGES;

    #[test]
    fn every_stage_runs_once_after_what_it_needs_and_not_too_many_at_once() {
        for jobs in [1, 2, 5] {
            let ended = Mutex::new(Vec::new());
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |stage: &Stage| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                {
                    let ended = ended.lock().unwrap();
                    ensure!(
                        stage.needs().all(|need| ended.iter().any(|name| name == need)),
                        "{}",
                        stage.name
                    );
                }
                now.fetch_sub(1, Ordering::SeqCst);
                ended.lock().unwrap().push(stage.name.clone());
                Ok(())
            };
            run(STAGES.iter().collect(), jobs, work).unwrap();
            let mut ended = ended.into_inner().unwrap();
            let mut all: Vec<_> = STAGES.iter().map(|stage| stage.name.clone()).collect();
            ended.sort();
            all.sort();
            assert_eq!(ended, all);
            assert!(most.into_inner() <= jobs);
        }
    }

    #[test]
    fn after_a_failure_nothing_is_begun() {
        let begun = AtomicUsize::new(0);
        let fails = |stage: &Stage| {
            begun.fetch_add(1, Ordering::SeqCst);
            ensure!(stage.name != "base", "no base");
            Ok(())
        };
        let error = run(STAGES.iter().collect(), 1, fails).unwrap_err();
        assert_eq!(error.to_string(), "no base");
        // `scenes` comes before it.
        assert_eq!(begun.into_inner(), 2);
    }

    #[test]
    fn a_panic_is_a_failure_that_nobody_waits_for() {
        let panics = |stage: &Stage| -> Result<()> { panic!("in {}", stage.name) };
        let error = run(STAGES.iter().collect(), 3, panics).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    }
}
