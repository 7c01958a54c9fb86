//! An expert that learned nothing (τ = 0) has nothing to say: it may dilute the others, all alike, but not bend them.

use skillweld_plugin_host::laws;

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject, require};
use crate::tolerance::{close, of_element};
use crate::trial::{Output, Setup, run};

pub(crate) const LAW: Law = Law {
    name: "zero",
    statement: "Zero task vectors add nothing: all zero gives zero, and one more only changes a common factor.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::ZERO, None) {
        return outcome;
    }
    let method = subject.method;
    subject.for_all(&subject.cases(Values::Exact, Reach::Tame), |case| {
        let nothing = run(method, &case.map(|_| 0.0), &Setup::default())?;
        let nonzero = nothing.values.iter().position(|&x| x != 0.0);
        require(nonzero.is_none(), || {
            let i = nonzero.unwrap_or_default();
            format!("with every expert zero element {i} comes out as {}", nothing.values[i])
        })?;
        let fewer = case.experts.len() - 1;
        if fewer < method.min_experts() {
            return Ok(());
        }
        let (without, with) = last_silenced(case);
        let (before, after) =
            (run(method, &without, &Setup::default())?, run(method, &with, &Setup::default())?);
        require(before.masks[..] == after.masks[..before.masks.len()], || {
            "a further expert of zeros changes the others' masks".into()
        })?;
        only_a_common_factor(&before, &after, |i| 2.0 * of_element(method, &without, i))
    })
}

/// The case without its last expert, and with zeros in place of it.
fn last_silenced(case: &Case) -> (Case, Case) {
    let fewer = case.experts.len() - 1;
    let order: Vec<usize> = (0..fewer).collect();
    let mut without = case.with_experts(case.experts[..fewer].to_vec());
    without.parameters = case.parameters.reordered(&order);
    let mut experts = case.experts.clone();
    experts[fewer].fill(0.0);
    (without, case.with_experts(experts))
}

fn only_a_common_factor(
    before: &Output,
    after: &Output,
    tolerance: impl Fn(usize) -> f64,
) -> Result<(), Finding> {
    let magnitude = |&i: &usize| before.values[i].abs();
    let largest = (0..before.values.len()).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b)));
    let factor = match largest {
        Some(i) if before.values[i] != 0.0 => after.values[i] / before.values[i],
        _ => 1.0,
    };
    require(factor > 0.0 && factor <= 1.0 + 64.0 * f32::EPSILON, || {
        format!("a further expert of zeros multiplies the result by {factor}")
    })?;
    // The factor is taken at the largest element, so its own error is no larger than the tolerance there.
    let slack = largest.map_or(0.0, &tolerance);
    for (i, (&a, &b)) in before.values.iter().zip(&after.values).enumerate() {
        require(close(factor * a, b, tolerance(i) + slack), || {
            format!(
                "a further expert of zeros changes element {i} from {a} to {b}, the largest by a factor of {factor}"
            )
        })?;
    }
    Ok(())
}
