//! The merged tensor has the shape of its inputs, so every element of it must be written; finite weights of ordinary
//! size give finite weights; and a method must at least work with its own defaults.

use skillweld_plugin_host::{PluginError, UNWRITTEN_BITS, flags};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "fills_output",
    statement: "With its defaults a method takes every tensor and writes a finite number to every element.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let method = subject.method;
    let cases = Case::some_long(Case::strategy(method, 1..=5, Values::Exact, Reach::Defaults));
    // Required parameters have no defaults, and a method on matrices may say that a tensor is none.
    let may_decline = |case: &Case| {
        method.params().iter().any(|spec| spec.default.is_none())
            || (method.has(flags::MATRIX) && case.shape.len() != 2)
    };
    subject.for_all(&cases, |case| {
        let output = run(method, case, &Setup::default()).map_err(|error| match error {
            PluginError::Failed { .. } if may_decline(case) => Finding::Beside,
            error => Finding::Broken(error.to_string()),
        })?;
        let unwritten = output.values.iter().position(|x| x.to_bits() == UNWRITTEN_BITS);
        require(unwritten.is_none(), || {
            format!("element {} is never written", unwritten.unwrap_or_default())
        })?;
        let wild = output.values.iter().position(|x| !x.is_finite());
        require(wild.is_none(), || {
            let i = wild.unwrap_or_default();
            format!("element {i} comes out as {}", output.values[i])
        })
    })
}
