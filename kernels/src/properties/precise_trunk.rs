//! A block of an action expert's trunk against its formula in f64.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::ops::{RowsView, RowsViewMut, precise_layer_norm, precise_linear, precise_read};
use skillweld_gpu::{Array, Memory, Target};
use skillweld_tensor::Dtype;

use super::rows::{HostRows, Output, close, float};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "precise_trunk: equals its formula", check: trunk_equals }]
}

/// Row `row` of x times row `feature` of w, and the sum of the products' sizes.
fn dot(x: &HostRows, row: usize, w: &HostRows, feature: usize) -> (f64, f64) {
    let products = (0..x.columns).map(|j| x.at(row, j) * w.at(feature, j));
    products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()))
}

fn trunk_equals<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let cases = ((1..20usize, 1..50usize), float(), float(), any::<u64>());
    runner.run(&cases, |case| one_block(target, case)).map_err(|error| error.to_string())
}

/// x ← ReLU(W₂ norm(x + W₁ a + b₁) + b₂), as a block of an action expert has it.
fn one_block<T: Target>(
    target: &T,
    ((rows, width), read, stored, seed): ((usize, usize), Dtype, Dtype, u64),
) -> Result<(), TestCaseError> {
    let attended = HostRows::new(rows, width, read, seed);
    let matrix = |other| HostRows::new(width, width, stored, seed ^ other);
    let vector = |other| HostRows::new(1, width, Dtype::F32, seed ^ other);
    let (w1, w2) = (matrix(1), matrix(2));
    let [b1, b2, gain, bias] = [3, 4, 5, 6].map(vector);
    let start = HostRows::new(rows, width, Dtype::F32, seed ^ 7);
    let on = [attended.upload(target)?, w1.upload(target)?, w2.upload(target)?];
    let vectors = [b1.upload(target)?, b2.upload(target)?, gain.upload(target)?, bias.upload(target)?];

    let stride = width.next_multiple_of(8);
    let wide: Vec<u8> = start
        .values
        .chunks(width)
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, stride - width)))
        .flat_map(|value| f64::from(value).to_le_bytes())
        .collect();
    let x = target.array_of(Dtype::F64, &wide).map_err(failed)?;
    let zeros = || target.array_of(Dtype::F64, &vec![0; wide.len()]).map_err(failed);
    let (mut sum, mut out) = (zeros()?, zeros()?);
    let epsilon = 1e-5f32;
    let view = |array| trunk_view(array, rows, width);
    precise_linear(
        target,
        attended.view(&on[0]),
        w1.view(&on[1]),
        vectors[0].view(),
        Some(view(&x)?),
        false,
        &mut trunk_view_mut(&mut sum, rows, width)?,
    )
    .map_err(failed)?;
    let mut normed = trunk_view_mut(&mut sum, rows, width)?;
    precise_layer_norm(target, &mut normed, vectors[2].view(), vectors[3].view(), epsilon).map_err(failed)?;
    let mut written = trunk_view_mut(&mut out, rows, width)?;
    precise_linear(target, view(&sum)?, w2.view(&on[2]), vectors[1].view(), None, true, &mut written)
        .map_err(failed)?;
    let mut rounded = Output::new(target, rows, width, Dtype::F32)?;
    precise_read(target, view(&out)?, &mut rounded.view()).map_err(failed)?;

    let normed: Vec<Vec<f64>> = (0..rows)
        .map(|row| {
            let sums = (0..width).map(|f| start.at(row, f) + dot(&attended, row, &w1, f).0 + b1.at(0, f));
            let sums: Vec<f64> = sums.collect();
            let mean = sums.iter().sum::<f64>() / width as f64;
            let variance = sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
            (0..width).map(|f| (sums[f] - mean) * scale * gain.at(0, f) + bias.at(0, f)).collect()
        })
        .collect();
    close("trunk", &rounded.values(target)?, |index| {
        let (row, feature) = (index / width, index % width);
        let products = (0..width).map(|j| normed[row][j] * w2.at(feature, j));
        let (sum, size) = products.fold((0.0, 0.0), |(sum, size): (f64, f64), p| (sum + p, size + p.abs()));
        let expected = (sum + b2.at(0, feature)).max(0.0);
        // Of f32's rounding at the end; the norm of a row of one element is its bias and forgives nothing.
        (expected, 2f64.powi(-24) * expected + 1e-9 * (1.0 + size))
    })
}

fn trunk_view<M: Memory>(array: &Array<M>, rows: usize, width: usize) -> Result<RowsView<'_>, TestCaseError> {
    RowsView::new(array.view(), rows, width).map_err(failed)
}

fn trunk_view_mut<M: Memory>(
    array: &mut Array<M>,
    rows: usize,
    width: usize,
) -> Result<RowsViewMut<'_>, TestCaseError> {
    RowsViewMut::new(array.view_mut(), rows, width).map_err(failed)
}
