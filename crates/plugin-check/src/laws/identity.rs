//! Merging copies of one expert gives that expert: whatever a method does, it is some kind of mean.

use skillweld_plugin_host::{Kind, laws};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::tolerance::{close, of_element};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "identity",
    statement: "Identical experts give that expert, with default parameters; their masks are identical.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::IDENTITY, None) {
        return outcome;
    }
    let method = subject.method;
    let cases = Case::strategy(method, 1..=5, Values::Rough, Reach::Defaults);
    subject.for_all(&cases, |case| {
        let case = case.with_experts(vec![case.experts[0].clone(); case.experts.len()]);
        let output = run(method, &case, &Setup::default())?;
        if method.kind() == Kind::Mask {
            return require(output.masks.windows(2).all(|pair| pair[0] == pair[1]), || {
                "identical experts have different masks".into()
            });
        }
        for (i, (&actual, &expected)) in output.values.iter().zip(&case.experts[0]).enumerate() {
            require(close(actual, expected, of_element(method, &case, i)), || {
                format!(
                    "element {i} of all {} experts is {expected}, but comes out as {actual}",
                    case.experts.len()
                )
            })?;
        }
        Ok(())
    })
}
