//! The host owns all memory; a plugin writes to its output, its sums and its scratch, and nowhere else. Inputs are
//! often a file mapped into memory: a write there ends the process, or changes another tensor's result.

use super::Law;
use crate::case::Values;
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "memory_bounds",
    statement: "A method writes to its output, its sums and its scratch, and to nothing else.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let cases = subject.cases(Values::Exact, Reach::Wild);
    subject.for_all(&cases, |case| {
        let output = run(subject.method, case, &Setup::default())?;
        require(output.trespasses.is_empty(), || format!("it writes {}", output.trespasses.join(", ")))
    })
}
