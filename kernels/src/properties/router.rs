//! `router` against its formula in f64.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use skillweld_gpu::Target;
use skillweld_gpu::ops::{RouterScores, RouterSubspace};
use skillweld_tensor::Dtype;

use super::random::{bytes_of, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "router: scores equal their formula", check: equals_formula }]
}

/// Width in eights, rank and tokens of every subspace of every task, dtype of the hidden states, seed.
type Case = (usize, Vec<Vec<(usize, usize)>>, Dtype, u64);

fn equals_formula<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let rank = prop_oneof![3 => Just(8usize), 1 => 1..20usize];
    let subspaces = prop::collection::vec((rank, prop_oneof![1..10usize, 1..80usize]), 1..4);
    let width = prop_oneof![6 => 1..20usize, 1 => 128..140usize];
    let dtype = prop_oneof![Just(Dtype::BF16), Just(Dtype::F32)];
    let cases = (width, prop::collection::vec(subspaces, 1..4), dtype, any::<u64>());
    runner.run(&cases, |case| one_case(target, case)).map_err(|error| error.to_string())
}

fn one_case<T: Target>(target: &T, (eights, tasks, dtype, seed): Case) -> Result<(), TestCaseError> {
    let width = 8 * eights;
    let (mut host, mut device) = (Vec::new(), Vec::new());
    for (task, subspaces) in tasks.iter().enumerate() {
        let (mut of_host, mut of_device) = (Vec::new(), Vec::new());
        for (index, &(rank, tokens)) in subspaces.iter().enumerate() {
            let seed = seed ^ ((task as u64) << 40) ^ ((index as u64) << 48);
            let basis = bytes_of(Dtype::F32, &values(rank * width, seed ^ 1));
            let hidden = bytes_of(dtype, &values(tokens * width, seed ^ 2));
            of_device.push([
                target.array_of(Dtype::F32, &basis).map_err(failed)?,
                target.array_of(dtype, &hidden).map_err(failed)?,
            ]);
            of_host.push([floats_of(Dtype::F32, &basis), floats_of(dtype, &hidden)]);
        }
        host.push(of_host);
        device.push(of_device);
    }
    let mut scores = target.array(Dtype::F32, tasks.len()).map_err(failed)?;
    let operands: Vec<Vec<_>> = device
        .iter()
        .map(|task| {
            task.iter()
                .map(|[basis, hidden]| RouterSubspace { basis: basis.view(), hidden: hidden.view() })
                .collect()
        })
        .collect();
    let mut router = RouterScores::new(target, width, &operands, scores.view_mut()).map_err(failed)?;
    // Twice: the first run leaves the second what it found.
    router.run(target).and_then(|()| router.run(target)).map_err(failed)?;
    drop(router);
    let is = floats_of(Dtype::F32, &target.read(&scores).map_err(failed)?);
    for (is, task) in is.iter().zip(&host) {
        let parts: Vec<_> =
            task.iter().map(|[basis, hidden]| mean_projected_norm(basis, hidden, width)).collect();
        let expected = parts.iter().map(|part| part.0).sum::<f64>() / parts.len() as f64;
        let size = parts.iter().map(|part| part.1).sum::<f64>() / parts.len() as f64;
        // Both factors are off by 2⁻²¹ at most, and sums of f32 by about as much.
        let tolerance = 2f64.powi(-19) * size + 2f64.powi(-23) * expected;
        prop_assert!((f64::from(*is) - expected).abs() <= tolerance, "{} instead of {}", is, expected);
    }
    Ok(())
}

/// Mean over tokens of ‖P h‖, and of the norm of Σ |P| |h|, which bounds what roundings move it by.
fn mean_projected_norm(basis: &[f32], hidden: &[f32], width: usize) -> (f64, f64) {
    let (mut norms, mut sizes) = (0.0, 0.0);
    for token in hidden.chunks(width) {
        let (mut square, mut size) = (0.0, 0.0);
        for row in basis.chunks(width) {
            let products = row.iter().zip(token).map(|(p, h)| f64::from(*p) * f64::from(*h));
            let (dot, sum) =
                products.fold((0.0, 0.0), |(dot, sum), product| (dot + product, sum + product.abs()));
            square += dot * dot;
            size += sum * sum;
        }
        norms += square.sqrt();
        sizes += f64::sqrt(size);
    }
    let tokens = (hidden.len() / width) as f64;
    (norms / tokens, sizes / tokens)
}
