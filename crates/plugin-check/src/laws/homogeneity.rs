//! merge(c·x) = c·merge(x) for c > 0: a method has no hidden unit of length, such as an absolute threshold.

use skillweld_plugin_host::{Kind, laws};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::tolerance::{close, of_element};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "homogeneity",
    statement: "merge(c·x) = c·merge(x) for c > 0, within rounding; masks do not change.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::HOMOGENEOUS, None) {
        return outcome;
    }
    let method = subject.method;
    // Far enough to cross any threshold. Powers of two move no rounding; 3 does, which may decide a near tie in a mask.
    let (small, large) = (2f32.powi(-20), 2f32.powi(20));
    let factors: &[f32] = if method.kind() == Kind::Mask { &[small, large] } else { &[small, large, 3.0] };
    subject.for_all(&subject.cases(Values::Exact, Reach::Tame), |case| {
        let plain = run(method, case, &Setup::default())?;
        for &c in factors {
            let base = case.base.iter().map(|x| c * x).collect();
            let scaled = Case { base, ..case.map(|x| c * x) };
            let output = run(method, &scaled, &Setup::default())?;
            require(plain.masks == output.masks, || format!("the masks change with c = {c}"))?;
            for (i, (&a, &b)) in plain.values.iter().zip(&output.values).enumerate() {
                require(close(c * a, b, 2.0 * of_element(method, &scaled, i)), || {
                    format!("element {i} is {a}, and with experts times {c} it is {b}")
                })?;
            }
        }
        Ok(())
    })
}
