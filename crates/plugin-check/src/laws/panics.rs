//! A panic is a bug even where the SDK contains it, and an unknown status is a contradiction of the header.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use skillweld_plugin_host::PluginError;

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "no_panics",
    statement: "Whatever the values, parameters and number of experts, a method gives a result or a proper error.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    subject.for_all(&hard_cases(subject), |case| match run(subject.method, case, &Setup::default()) {
        Ok(_) | Err(PluginError::Failed { .. }) => Ok(()),
        Err(error) => Err(Finding::Broken(error.to_string())),
    })
}

/// Up to 40 experts, any parameters, and values at the edges of f32.
pub(crate) fn hard_cases(subject: &Subject<'_>) -> impl Strategy<Value = Case> + use<> {
    let few = Case::strategy(subject.method, 1..=5, Values::Rough, Reach::Wild);
    let many = Case::strategy(subject.method, 1..=40, Values::Exact, Reach::Wild);
    let edge = select(vec![0.0, -0.0, f32::MIN_POSITIVE / 4.0, f32::MAX, f32::MIN, f32::NAN, f32::INFINITY]);
    let edges = proptest::collection::vec((any::<Index>(), any::<Index>(), edge), 0..4);
    (prop_oneof![few, many], edges).prop_map(|(mut case, edges)| {
        for (expert, element, edge) in edges {
            if case.numel() > 0 {
                let (k, i) = (expert.index(case.experts.len()), element.index(case.numel()));
                case.experts[k][i] = edge;
            }
        }
        let experts = core::mem::take(&mut case.experts);
        case.with_experts(experts)
    })
}
