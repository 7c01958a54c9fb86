//! LayerNorm and RMSNorm against their formulas in f64.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::Target;
use skillweld_gpu::ops::{layer_norm, rms_norm};
use skillweld_tensor::Dtype;

use super::rows::{HostRows, Output, close, rounding};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "norm: equals its formula", check: equals_formula }]
}

/// Rows, columns, offset of every value, dtypes, seed.
type Case = ((usize, usize), f32, (Dtype, Dtype), u64);

fn equals_formula<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let columns = prop_oneof![1..40usize, 880..900usize, 1150..1300usize, 1900..2100usize, 2049..5000usize];
    let dtypes = prop_oneof![
        Just((Dtype::F32, Dtype::F32)),
        Just((Dtype::F32, Dtype::BF16)),
        Just((Dtype::BF16, Dtype::BF16))
    ];
    let cases = ((0..10usize, columns), -3f32..3.0, dtypes, any::<u64>());
    runner.run(&cases, |case| one_case(target, case)).map_err(|error| error.to_string())
}

fn one_case<T: Target>(
    target: &T,
    ((rows, columns), offset, (read, written), seed): Case,
) -> Result<(), TestCaseError> {
    let mut x = HostRows::new(rows, columns, Dtype::F32, seed);
    x.values.iter_mut().for_each(|value| *value += offset);
    let x = HostRows::of(rows, columns, read, &x.values);
    let vector = |seed| HostRows::new(1, columns, Dtype::F32, seed);
    let (gain, bias) = (vector(seed ^ 1), vector(seed ^ 2));
    let epsilon = 1e-2f32;
    let [on_target, gains, biases] = [x.upload(target)?, gain.upload(target)?, bias.upload(target)?];
    let mut layer = Output::new(target, rows, columns, written)?;
    let mut rms = Output::new(target, rows, columns, written)?;
    layer_norm(target, x.view(&on_target), gains.view(), biases.view(), epsilon, &mut layer.view())
        .map_err(failed)?;
    rms_norm(target, x.view(&on_target), gains.view(), epsilon, &mut rms.view()).map_err(failed)?;

    let n = columns as f64;
    let stats: Vec<_> = (0..rows)
        .map(|row| {
            let row: Vec<f64> = (0..columns).map(|column| x.at(row, column)).collect();
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let square = row.iter().map(|x| x * x).sum::<f64>() / n;
            let largest = row.iter().fold(0f64, |largest, x| largest.max(x.abs()));
            let scale = |v: f64| 1.0 / (v + f64::from(epsilon)).sqrt();
            (mean, scale(variance), scale(square), largest)
        })
        .collect();
    // A lane adds n / 32 numbers one after the other, then five more; a mean that is off by so much moves every element.
    let sums = 2f64.powi(-24) * (n / 32.0 + 12.0);
    close("layer_norm", &layer.values(target)?, |index| {
        let (row, column) = (index / columns, index % columns);
        let (mean, scale, _, largest) = stats[row];
        let (gain, bias) = (gain.at(0, column), bias.at(0, column));
        let expected = (x.at(row, column) - mean) * scale * gain + bias;
        let tolerance =
            rounding(written) * expected.abs() + sums * (gain.abs() * largest * scale * 4.0 + bias.abs());
        (expected, tolerance)
    })?;
    close("rms_norm", &rms.values(target)?, |index| {
        let (row, column) = (index / columns, index % columns);
        let expected = x.at(row, column) * stats[row].2 * gain.at(0, column);
        (expected, (rounding(written) + sums) * expected.abs())
    })
}
