//! Runs one law over random cases.

use core::cell::Cell;
use core::fmt;

use proptest::prelude::{BoxedStrategy, Strategy};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use skillweld_plugin_host::{Kind, Method, PluginError};

use crate::report::Outcome;
use crate::{CheckOptions, case::Case, parameters::Reach};

/// How many smaller cases are tried of one that breaks a law.
const MAX_SHRINK_STEPS: u32 = 5000;

/// The method under test.
pub(crate) struct Subject<'a> {
    pub(crate) method: &'a Method,
    pub(crate) options: &'a CheckOptions,
}

/// Why a case does not show that the law holds.
pub(crate) enum Finding {
    /// The method declined the case (it may, with a reason), or the law says nothing about it.
    Beside,
    /// The law does not hold: why.
    Broken(String),
}

/// A failure of the method is no result to hold a law against; that failures have words and are no panics are laws of
/// their own.
impl From<PluginError> for Finding {
    fn from(_: PluginError) -> Self {
        Self::Beside
    }
}

/// The law holds when `holds`, else `message` says how not.
pub(crate) fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(Finding::Broken(message())) }
}

impl Subject<'_> {
    /// Tries `law` on cases drawn from `strategy`. A broken law comes with the smallest case that breaks it.
    pub(crate) fn for_all<S>(&self, strategy: &S, law: impl Fn(&S::Value) -> Result<(), Finding>) -> Outcome
    where
        S: Strategy,
        S::Value: fmt::Display,
    {
        let config = Config {
            cases: self.options.cases,
            failure_persistence: None,
            max_shrink_iters: u32::MAX - 1, // without the 1 it means 4 · cases
            ..Config::default()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.options.seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let kept = Cell::new(0);
        let shrink_steps: Cell<Option<u32>> = Cell::new(None);
        let outcome = TestRunner::new_with_rng(config, rng).run(strategy, |case| {
            if let Some(steps) = shrink_steps.get() {
                // Smaller cases that pass end the shrinking; at its own limit proptest would print to standard error.
                if steps == MAX_SHRINK_STEPS {
                    return Ok(());
                }
                shrink_steps.set(Some(steps + 1));
            }
            match law(&case) {
                Ok(()) => kept.set(kept.get() + 1),
                Err(Finding::Beside) => {}
                Err(Finding::Broken(message)) => {
                    shrink_steps.set(shrink_steps.get().or(Some(0)));
                    return Err(TestCaseError::fail(message));
                }
            }
            Ok(())
        });
        match outcome {
            Ok(()) if kept.get() > 0 => Outcome::Passed { cases: kept.get() },
            Ok(()) => Outcome::Skipped { reason: "the method took none of the cases".into() },
            Err(TestError::Fail(reason, case)) => Outcome::Failed { message: format!("{reason}\n{case}") },
            Err(TestError::Abort(reason)) => {
                Outcome::Failed { message: format!("the check gave up: {reason}") }
            }
        }
    }

    /// Half of the laws' cases have defaults, the other half what `reach` allows.
    pub(crate) fn cases(&self, values: crate::case::Values, reach: Reach) -> BoxedStrategy<Case> {
        let strategy = |reach| Case::strategy(self.method, 1..=5, values, reach);
        proptest::prop_oneof![strategy(Reach::Defaults), strategy(reach)].boxed()
    }

    /// `None` when the method claims the law; else why the law is skipped.
    pub(crate) fn unclaimed(&self, law: u64, for_kind: Option<Kind>) -> Option<Outcome> {
        if !self.method.claims(law) {
            return Some(Outcome::Skipped { reason: "not claimed".into() });
        }
        for_kind.filter(|&kind| kind != self.method.kind()).map(|kind| Outcome::Failed {
            message: format!("claimed, but only a {kind} method can keep it: drop the claim"),
        })
    }
}
