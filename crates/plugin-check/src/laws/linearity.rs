//! merge(x + y) = merge(x) + merge(y): what makes task arithmetic an arithmetic. x and y are whole numbers, so that
//! x + y is exact and only the method itself rounds.

use skillweld_plugin_host::{Kind, laws};

use super::Law;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::tolerance::{close, of_element};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law =
    Law { name: "linearity", statement: "merge(x + y) = merge(x) + merge(y), within rounding.", check };

fn check(subject: &Subject<'_>) -> Outcome {
    if let Some(outcome) = subject.unclaimed(laws::LINEAR, Some(Kind::Merge)) {
        return outcome;
    }
    let method = subject.method;
    subject.for_all(&subject.cases(Values::Exact, Reach::Tame), |x| {
        let y = partner(x);
        let both = x.with_experts((x.experts.iter().zip(&y.experts)).map(|(x, y)| sum(x, y)).collect());
        let [of_x, of_y, of_both] = [x, &y, &both].map(|case| run(method, case, &Setup::default()));
        let (of_x, of_y, of_both) = (of_x?.values, of_y?.values, of_both?.values);
        for (i, ((&a, &b), &together)) in of_x.iter().zip(&of_y).zip(&of_both).enumerate() {
            let tolerance: f64 = [x, &y, &both].iter().map(|case| of_element(method, case, i)).sum();
            require(close(together, a + b, tolerance), || {
                format!("element {i}: {a} + {b} separately, {together} together; y is\n{y}")
            })?;
        }
        Ok(())
    })
}

/// Another case of the same shape: the next expert, backwards, times −3.
fn partner(x: &Case) -> Case {
    let next = |k: usize| &x.experts[(k + 1) % x.experts.len()];
    x.with_experts((0..x.experts.len()).map(|k| next(k).iter().rev().map(|&v| -3.0 * v).collect()).collect())
}

fn sum(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}
