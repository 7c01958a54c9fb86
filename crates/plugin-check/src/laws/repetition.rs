//! A result depends on the call alone: not on calls before it and not on what happens to lie in the scratch. Without
//! that neither a restarted merge nor one spread over machines gives the same bytes.

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "repetition",
    statement: "The same call gives the same bytes, whatever was called before and whatever lies in the scratch.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let cases = subject.cases(Values::Rough, Reach::Wild);
    subject.for_all(&cases, |case| {
        let first = run(subject.method, case, &Setup::default())?;
        let between = Case { seed: !case.seed, ..case.map(|x| 1.5 - x) };
        // Only to leave traces, if the method keeps any.
        let _ = run(subject.method, &between, &Setup::default());
        let again = run(subject.method, case, &Setup { scratch_fill: 1.0, ..Setup::default() })?;
        require(first.equals(&again) && first.totals == again.totals, || {
            format!("first {:?}\nthen  {:?}", first.values, again.values)
        })
    })
}
