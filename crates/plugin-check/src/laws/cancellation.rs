//! Ctrl-C must not look like a failure: a method that hears it stops with the status for that, or finishes.

use skillweld_plugin_host::{HostHooks, PluginError};

use super::Law;
use crate::case::Values;
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "cancellation",
    statement: "A method that is asked to stop finishes or says that it was cancelled.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let cases = subject.cases(Values::Exact, Reach::Tame);
    let stopping =
        Setup { hooks: HostHooks { cancelled: &|| true, ..HostHooks::SILENT }, ..Setup::default() };
    subject.for_all(&cases, |case| {
        // Cases that it declines anyway show nothing.
        run(subject.method, case, &Setup::default())?;
        match run(subject.method, case, &stopping) {
            Ok(_) | Err(PluginError::Cancelled { .. }) => Ok(()),
            Err(error) => Err(Finding::Broken(error.to_string())),
        }
    })
}
