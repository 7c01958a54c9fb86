//! Checkpoints hold tensors without elements (an unused bias, a table of no rows); they must not stop a merge.

use proptest::prelude::*;
use proptest::sample::select;
use skillweld_plugin_host::flags;

use super::Law;
use crate::case::Case;
use crate::parameters::{Parameters, Reach};
use crate::report::Outcome;
use crate::subject::{Finding, Subject};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "empty_tensors",
    statement: "A tensor without elements is merged into one without elements.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let method = subject.method;
    let expert_count = method.min_experts();
    let shapes = match method.only_matrices() {
        true => vec![vec![0, 7], vec![7, 0]],
        false => vec![vec![0], vec![0, 7], vec![7, 0], vec![3, 0, 2]],
    };
    let (shapes, gram) = (select(shapes), method.has(flags::MATRIX));
    let cases = (shapes, Parameters::strategy(method, expert_count, Reach::Defaults)).prop_map(
        move |(shape, parameters)| Case {
            // A matrix without rows has inputs all the same.
            statistics: vec![vec![0.0; if gram { square_of_columns(&shape) } else { 0 }]; expert_count],
            gram,
            shape,
            experts: vec![Vec::new(); expert_count],
            base: Vec::new(),
            merged: Vec::new(),
            parameters,
            seed: 0,
        },
    );
    subject.for_all(&cases, |case| {
        run(method, case, &Setup::default()).map(drop).map_err(|error| Finding::Broken(error.to_string()))
    })
}

fn square_of_columns(shape: &[usize]) -> usize {
    match shape {
        [_, columns] => columns * columns,
        _ => 0,
    }
}
