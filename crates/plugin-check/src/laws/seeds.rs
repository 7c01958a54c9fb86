//! Random methods draw from the seed that the host gives and from nothing else, so a recipe's seed names a result; a
//! method that says it is deterministic draws nothing.

use skillweld_plugin_host::flags;

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "seeds",
    statement: "Equal seeds give equal bytes; a deterministic method gives them for every seed.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let cases = subject.cases(Values::Rough, Reach::Wild);
    subject.for_all(&cases, |case| {
        let seed = if subject.method.has(flags::DETERMINISTIC) { !case.seed } else { case.seed };
        let first = run(subject.method, case, &Setup::default())?;
        let second = run(subject.method, &Case { seed, ..case.clone() }, &Setup::default())?;
        require(first.equals(&second), || {
            format!("seed {}: {:?}\nseed {seed}: {:?}", case.seed, first.values, second.values)
        })
    })
}
