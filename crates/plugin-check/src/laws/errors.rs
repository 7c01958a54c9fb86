//! A failure without words costs its user an evening. Inputs here are as bad as they get, so most methods that can
//! fail do.

use core::cell::Cell;

use skillweld_plugin_host::{NO_REASON, PluginError};

use super::{Law, panics};
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "error_text",
    statement: "A method that fails says why through the host's error callback.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let failures = Cell::new(0);
    let outcome = subject.for_all(&panics::hard_cases(subject), |case| {
        if let Err(PluginError::Failed { message, .. }) = run(subject.method, case, &Setup::default()) {
            failures.set(failures.get() + 1);
            return require(message != NO_REASON && !message.trim().is_empty(), || {
                "it fails without a word".into()
            });
        }
        Ok(())
    });
    match outcome {
        Outcome::Passed { .. } if failures.get() == 0 => {
            Outcome::Skipped { reason: "the method failed on none of the hard cases".into() }
        }
        Outcome::Passed { .. } => Outcome::Passed { cases: failures.get() },
        other => other,
    }
}
