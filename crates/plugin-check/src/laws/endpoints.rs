//! Interpolation begins and ends where it says: a sweep over `t` must contain both models themselves.

use serde_json::json;
use skillweld_plugin_host::{Kind, laws};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::tolerance::close;
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "endpoints",
    statement: "Parameter t = 0 gives the first expert (the base, where one is needed), t = 1 the last.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::ENDPOINTS, Some(Kind::Merge)) {
        return outcome;
    }
    let method = subject.method;
    let allows = |end: f64| {
        method.params().iter().any(|spec| spec.name == "t" && spec.kind.encode(&json!(end)).is_some())
    };
    if !allows(0.0) || !allows(1.0) {
        return Outcome::Failed {
            message: "claimed, but there is no parameter `t` that may be 0 and 1".into(),
        };
    }
    let cases = Case::strategy(method, 2..=2, Values::Rough, Reach::Tame);
    subject.for_all(&cases, |case| {
        let zeros = vec![0.0; case.numel()];
        let start = match (method.takes_task_vectors(), method.needs_base_model()) {
            (true, _) => &zeros,
            (false, true) => &case.base,
            (false, false) => &case.experts[0],
        };
        for (t, end) in [(0.0, start), (1.0, &case.experts[case.experts.len() - 1])] {
            let Some(parameters) = case.parameters.with("t", &json!(t)) else { continue };
            let output = run(method, &Case { parameters, ..case.clone() }, &Setup::default())?;
            for (i, (&actual, &expected)) in output.values.iter().zip(end).enumerate() {
                // The other end comes in times zero, so only rounding at this end's own size is left.
                let tolerance = 4.0 * f64::from(f32::EPSILON * expected.abs());
                require(close(actual, expected, tolerance), || {
                    format!("with t = {t} element {i} comes out as {actual}, not {expected}")
                })?;
            }
        }
        Ok(())
    })
}
