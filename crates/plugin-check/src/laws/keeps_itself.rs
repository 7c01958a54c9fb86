//! An expert merged alone is its own task vector, and the mask must give it back whole: what it drops then, it drops
//! for no reason.

use skillweld_plugin_host::{Kind, laws};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "keeps_itself",
    statement: "The mask of an expert merged alone keeps all its nonzero elements.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::KEEPS_ITSELF, Some(Kind::Mask)) {
        return outcome;
    }
    let cases = Case::strategy(subject.method, 1..=1, Values::Rough, Reach::Tame);
    subject.for_all(&cases, |case| {
        if case.experts.len() != 1 {
            return Err(Finding::Beside);
        }
        let output = run(subject.method, case, &Setup::default())?;
        let dropped = (0..case.numel()).find(|&i| case.experts[0][i] != 0.0 && !output.keeps(0, i));
        require(dropped.is_none(), || {
            let i = dropped.unwrap_or_default();
            format!("element {i}, {}, is dropped", case.experts[0][i])
        })
    })
}
