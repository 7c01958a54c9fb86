//! The host calls a method from every core at once, each with another block. A buffer that the calls share shows here:
//! the threads work on different values, so one that sees another's is wrong.

use std::sync::Barrier;

use super::Law;
use crate::CheckOptions;
use crate::case::{Case, Values};
use crate::parameters::Reach;
use crate::report::Outcome;
use crate::subject::{Finding, Subject, require};
use crate::trial::{Output, Setup, run_bound};

pub(crate) const LAW: Law = Law {
    name: "threads",
    statement: "Calls from several threads at once give the same bytes as one after the other.",
    check,
};

const THREADS: usize = 4;
/// Calls of each thread, and elements of each call: enough for the threads to meet inside the method.
const REPEATS: usize = 100;
const NUMEL: usize = 2000;

fn check(subject: &Subject<'_>) -> Outcome {
    // A case here is as long as many elsewhere, and a race does not care for its values.
    let options = CheckOptions { cases: subject.options.cases.div_ceil(8), ..*subject.options };
    let subject = &Subject { method: subject.method, options: &options };
    let cases = subject.cases(Values::Exact, Reach::Wild);
    subject.for_all(&cases, |case| {
        let case = case.tiled(NUMEL);
        let bound = case.parameters.bind(subject.method, case.experts.len(), &Setup::default().hooks)?;
        let variants: Vec<Case> = (0..THREADS).map(|i| case.map(|x| x * -(2f32.powi(i as i32)))).collect();
        let alone = |case: &Case| run_bound(&bound, case, &Setup::default());
        let expected: Vec<Output> = variants.iter().map(alone).collect::<Result<_, _>>()?;
        let barrier = Barrier::new(THREADS);
        let together = |case: &Case, expected: &Output| {
            barrier.wait();
            let same = |()| {
                alone(case).is_ok_and(|output| output.equals(expected) && output.totals == expected.totals)
            };
            std::iter::repeat_n((), REPEATS).all(same)
        };
        let all_same = std::thread::scope(|scope| {
            let threads = variants
                .iter()
                .zip(&expected)
                .map(|(case, expected)| scope.spawn(|| together(case, expected)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Result<Vec<bool>, _>>()
        });
        let all_same = all_same.map_err(|_| Finding::Broken("a thread of the check panicked".into()))?;
        require(all_same.iter().all(|&same| same), || {
            format!("of {THREADS} threads these saw other bytes than alone: {:?}", differing(&all_same))
        })
    })
}

fn differing(all_same: &[bool]) -> Vec<usize> {
    (0..all_same.len()).filter(|&thread| !all_same[thread]).collect()
}
