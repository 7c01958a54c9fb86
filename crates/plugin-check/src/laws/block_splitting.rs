//! The host cuts tensors into blocks that fit into cache, and how depends on the machine. So the cuts must not be seen
//! in the result: not by a byte, once the totals are the same, and in the totals by no more than f64 rounds.

use proptest::prelude::*;
use skillweld_plugin_host::{Method, flags};
use skillweld_tensor::row_step;

use super::Law;
use crate::case::{Case, Values, With};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Subject, require};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "block_splitting",
    statement: "However a tensor is cut into blocks, totals are equal within f64 rounding and results to the byte.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let method = subject.method;
    if method.has(flags::MATRIX) {
        return Outcome::Skipped { reason: "wants whole tensors".into() };
    }
    let cases = prop_oneof![
        with_cuts(subject.cases(Values::Exact, Reach::Wild), method.has(flags::ROWS)),
        with_cuts(subject.cases(Values::Rough, Reach::Wild), method.has(flags::ROWS)),
    ];
    subject.for_all(&cases, |With { case, extra: cuts, .. }| {
        let whole = run(method, case, &Setup::default())?;
        let cut = run(method, case, &Setup { cuts, ..Setup::default() })?;
        for (i, (a, b)) in whole.totals.iter().zip(&cut.totals).enumerate() {
            require((a - b).abs() <= totals_tolerance(method, case, *a, *b), || {
                format!("total {i} is {a} for the whole tensor and {b} for its blocks")
            })?;
        }
        let cut = run(method, case, &Setup { cuts, totals: Some(&whole.totals), ..Setup::default() })?;
        require(whole.equals(&cut), || {
            format!("whole {:?} {:?}\ncut   {:?} {:?}", whole.values, whole.masks, cut.values, cut.masks)
        })
    })
}

fn with_cuts(cases: BoxedStrategy<Case>, between_rows: bool) -> BoxedStrategy<With<Vec<usize>>> {
    let cut = move |case: Case| {
        let step = if between_rows { row_step(&case.shape) } else { 8 };
        let last = case.numel().saturating_sub(1) / step;
        let steps = proptest::sample::subsequence((1..=last).collect::<Vec<_>>(), 0..=last);
        steps.prop_map(move |steps| With {
            case: case.clone(),
            what: "cut at",
            extra: steps.into_iter().map(|i| step * i).collect(),
        })
    };
    Case::some_long(cases).prop_flat_map(cut).boxed()
}

/// Whole numbers add up exactly. Other sums of n terms are off by at most n·ε·Σ|terms|; terms are taken to be at most
/// the gain times |x| or x².
fn totals_tolerance(method: &Method, case: &Case, a: f64, b: f64) -> f64 {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = |x: f64| x.fract() == 0.0 && x.abs() < EXACT;
    if whole(a) && whole(b) {
        return 0.0;
    }
    let inputs = case.experts.iter().flatten().chain(&case.merged);
    let inputs = inputs.chain(if method.has(flags::NEEDS_BASE) { &case.base[..] } else { &[] });
    let terms: f64 = inputs.map(|&x| f64::from(x.abs()).max(f64::from(x).powi(2))).sum();
    (case.numel() as f64 + 8.0) * f64::EPSILON * case.parameters.gain() * (terms + a.abs() + b.abs())
}
