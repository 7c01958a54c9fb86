//! A weight that became NaN or infinite in training must not vanish in a merge: the merged checkpoint would look
//! healthy and be wrong. A method may refuse it, or pass it on when it says so.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use skillweld_plugin_host::{Kind, flags};

use super::Law;
use crate::case::{Case, Values, With};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "non_finite",
    statement: "NaN and infinity in an input come out as NaN or infinity at the same place.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let method = subject.method;
    if method.kind() == Kind::Mask {
        return Outcome::Skipped { reason: "a bit cannot be NaN".into() };
    }
    if !method.has(flags::PROPAGATES_NON_FINITE) {
        return Outcome::Skipped { reason: "not declared".into() };
    }
    let cases = Case::strategy(method, 1..=5, Values::Exact, Reach::Defaults);
    let bad = select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    let cases = (cases, any::<Index>(), any::<Index>(), bad).prop_map(|(mut case, expert, element, bad)| {
        let place =
            (case.numel() > 0).then(|| (expert.index(case.experts.len()), element.index(case.numel())));
        if let Some((k, i)) = place {
            case.experts[k][i] = bad;
        }
        With { case, what: "expert and element that is not finite", extra: place }
    });
    subject.for_all(&cases, |With { case, extra: place, .. }| {
        let (_, i) = place.ok_or(Finding::Beside)?;
        let output = run(method, case, &Setup::default())?;
        if !method.has(flags::MATRIX) {
            return require(!output.values[i].is_finite(), || {
                format!("element {i} comes out as {}", output.values[i])
            });
        }
        require(output.values.iter().any(|x| !x.is_finite()), || "every element comes out finite".into())
    })
}
