//! GELU, SwiGLU and the residual's sum against their formulas in f64.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::Target;
use skillweld_gpu::ops::{add, gelu, swiglu};
use skillweld_tensor::Dtype;

use super::rows::{HostRows, Output, close, float, rounding};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "activation: equals its formula", check: equals_formula }]
}

/// Rows and columns; dtypes of operand, residual and result; whether there is a scale; seed.
type Case = ((usize, usize), (Dtype, Dtype, Dtype), bool, u64);

fn equals_formula<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let cases = ((0..30usize, 1..200usize), (float(), float(), float()), any::<bool>(), any::<u64>());
    runner.run(&cases, |case| one_case(target, case)).map_err(|error| error.to_string())
}

fn one_case<T: Target>(
    target: &T,
    ((rows, columns), (read, second, written), scaled, seed): Case,
) -> Result<(), TestCaseError> {
    let x = HostRows::new(rows, columns, read, seed);
    let gate = HostRows::new(rows, columns, read, seed ^ 1);
    let residual = HostRows::new(rows, columns, second, seed ^ 2);
    let scale = HostRows::new(1, columns, Dtype::F32, seed ^ 3);
    let uploaded = [x.upload(target)?, gate.upload(target)?, residual.upload(target)?, scale.upload(target)?];
    let [x_view, gate_view, residual_view] =
        [x.view(&uploaded[0]), gate.view(&uploaded[1]), residual.view(&uploaded[2])];
    let scale_view = scaled.then(|| uploaded[3].view());
    let mut outs = Vec::new();
    for _ in 0..3 {
        outs.push(Output::new(target, rows, columns, written)?);
    }
    gelu(target, x_view, &mut outs[0].view()).map_err(failed)?;
    swiglu(target, gate_view, x_view, &mut outs[1].view()).map_err(failed)?;
    add(target, x_view, residual_view, scale_view, &mut outs[2].view()).map_err(failed)?;

    let u = rounding(written);
    let x = |index: usize| f64::from(x.values[index]);
    close("gelu", &outs[0].values(target)?, |index| {
        let expected = 0.5 * x(index) * (1.0 + erf(x(index) / 2f64.sqrt()));
        (expected, u * expected.abs() + 5e-7 * x(index).abs())
    })?;
    close("swiglu", &outs[1].values(target)?, |index| {
        let gate = f64::from(gate.values[index]);
        let expected = x(index) * gate / (1.0 + (-gate).exp());
        (expected, (u + 1e-6) * expected.abs() + 1e-30)
    })?;
    close("add", &outs[2].values(target)?, |index| {
        let (residual, factor) =
            (f64::from(residual.values[index]), f64::from(scale.values[index % columns]));
        let added = x(index) * if scaled { factor } else { 1.0 };
        let expected = residual + added;
        (expected, u * expected.abs() + 2f64.powi(-22) * (residual.abs() + added.abs()))
    })
}

/// The error function by its series, which is exact enough up to 4; beyond, 1 is.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}
