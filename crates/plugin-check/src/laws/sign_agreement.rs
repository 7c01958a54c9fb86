//! Sign election (TIES, arXiv 2306.01708; EMR, arXiv 2405.17461): a merged element never points against the sum of
//! the experts. An element whose sum is exactly zero has no such sign; there any is allowed.

use serde_json::json;
use skillweld_plugin_host::{Kind, laws};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "sign_agreement",
    statement: "Every nonzero element has the sign of the sum of the experts, or of one of them after trimming.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::SIGN_AGREEMENT, Some(Kind::Merge)) {
        return outcome;
    }
    let method = subject.method;
    subject.for_all(&subject.cases(Values::Exact, Reach::Tame), |case| {
        // Trimmed and weighted as the parameters say: what took part is the method's own affair, but it took part.
        let output = run(method, case, &Setup::default())?;
        for (i, &x) in output.values.iter().enumerate() {
            let supported = x == 0.0 || case.experts.iter().any(|expert| expert[i] * x.signum() > 0.0);
            require(supported, || format!("element {i} comes out as {x}, which has no expert's sign"))?;
        }
        // With nothing trimmed and equal weights it is the plain sum.
        let plain = ["density", "weight"].iter().fold(case.parameters.clone(), |parameters, name| {
            parameters.with(name, &json!(1)).unwrap_or(parameters)
        });
        let output = run(method, &Case { parameters: plain, ..case.clone() }, &Setup::default())?;
        for (i, &x) in output.values.iter().enumerate() {
            let sum: f64 = case.experts.iter().map(|expert| f64::from(expert[i])).sum();
            require(f64::from(x) * sum >= 0.0, || {
                format!("element {i} comes out as {x}, against the sum {sum} (density and weights 1)")
            })?;
        }
        Ok(())
    })
}
