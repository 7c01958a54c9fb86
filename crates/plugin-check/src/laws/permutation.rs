//! Experts are a set: the order in which a recipe lists them, each with its own parameters, is not information.

use proptest::prelude::*;
use skillweld_plugin_host::laws;

use super::Law;
use crate::case::{Case, Values, With};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::tolerance::{close, of_element};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "permutation",
    statement: "Reordering the experts, with their parameters, changes nothing beyond rounding.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::PERMUTATION, None) {
        return outcome;
    }
    let method = subject.method;
    let cases = subject.cases(Values::Exact, Reach::Tame).prop_flat_map(|case| {
        let order = Just((0..case.experts.len()).collect::<Vec<_>>()).prop_shuffle();
        order.prop_map(move |order| With { case: case.clone(), what: "new order", extra: order })
    });
    subject.for_all(&cases, |With { case, extra: order, .. }| {
        let reordered = Case {
            experts: order.iter().map(|&k| case.experts[k].clone()).collect(),
            // Methods without statistics have none.
            statistics: order.iter().filter_map(|&k| case.statistics.get(k).cloned()).collect(),
            parameters: case.parameters.reordered(order),
            ..case.clone()
        };
        let (before, after) =
            (run(method, case, &Setup::default())?, run(method, &reordered, &Setup::default())?);
        for (i, (&a, &b)) in before.values.iter().zip(&after.values).enumerate() {
            require(close(a, b, 2.0 * of_element(method, case, i)), || {
                format!("element {i} is {a} in the first order and {b} in the second")
            })?;
        }
        for (new, &old) in order.iter().enumerate().filter(|_| !before.masks.is_empty()) {
            require(before.masks[old] == after.masks[new], || format!("the mask of expert {old} changes"))?;
        }
        for (new, &old) in order.iter().enumerate().filter(|_| !before.rescalers.is_empty()) {
            let (a, b) = (before.rescalers[old], after.rescalers[new]);
            let tolerance = (case.numel() as f64 + 8.0) * f64::from(f32::EPSILON * a.abs());
            require(close(a, b, tolerance), || {
                format!("the rescaler of expert {old} changes from {a} to {b}")
            })?;
        }
        Ok(())
    })
}
