//! `gemm` against sums in f64, within what roundings of f32 sums and of the result allow; plain f32 sums bit for bit.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use skillweld_gpu::ops::{Linear, LinearScratch, LinearThen, linear};
use skillweld_gpu::{Array, CublasLt, Device, Target};
use skillweld_tensor::Dtype;

use super::random::{bytes_of, floats_of, values};
use super::{Property, failed};

/// Half the distance between neighbouring f32 near 1, and between neighbouring bf16.
const F32_ROUNDING: f64 = 1.0 / (1u32 << 24) as f64;
const BF16_ROUNDING: f64 = 1.0 / (1u32 << 8) as f64;

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "gemm: f32 sums equal the CPU bit for bit", check: equals_cpu },
        Property { name: "gemm: plain sums are within their roundings", check: plain },
        Property { name: "gemm: the matrix units' sums are within their roundings", check: matrix_units },
    ]
}

/// Shape of a layer, its dtypes, what comes after, seed.
#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    columns: usize,
    inner: usize,
    /// Of x, W and the result.
    dtypes: [Dtype; 3],
    bias: bool,
    then: Then,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Keep,
    Gelu,
    Add,
    AddScaled,
    SiluGate,
    Relu,
}

/// cuBLASLt holds to the same bounds; without it there is nothing to hold to them.
pub(super) fn of_devices() -> Vec<Property<Device>> {
    vec![Property { name: "gemm: cuBLASLt's sums are within their roundings", check: cublaslt }]
}

fn then() -> impl Strategy<Value = Then> {
    prop::sample::select(vec![Then::Keep, Then::Gelu, Then::Add, Then::AddScaled, Then::SiluGate, Then::Relu])
}

fn result_dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::BF16), Just(Dtype::F32)]
}

fn equals_cpu<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let cases = (0..80usize, 1..80usize, 0..50usize, any::<u64>());
    let done = runner.run(&cases, |(rows, columns, inner, seed)| {
        let dtypes = [Dtype::F32; 3];
        let case = Case { rows, columns, inner, dtypes, bias: false, then: Then::Keep, seed };
        let host = Host::new(&case);
        let is = run(target, &case, &host)?;
        for (i, &is) in is.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let expected = (0..inner)
                .fold(0.0f32, |sum, k| host.x[row * inner + k].mul_add(host.weight[column * inner + k], sum));
            prop_assert_eq!(is.to_bits(), expected.to_bits(), "row {} column {}", row, column);
        }
        Ok(())
    });
    done.map_err(|error| error.to_string())
}

fn plain<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let dtypes = prop_oneof![
        Just([Dtype::F32, Dtype::F32]),
        Just([Dtype::F32, Dtype::BF16]),
        Just([Dtype::BF16, Dtype::BF16])
    ];
    // An odd number of columns of x keeps bf16 away from the matrix units.
    let inner = prop_oneof![1 => 0..8usize, 5 => 17..30usize].prop_map(|half| 2 * half + 1);
    let shapes = (1..80usize, 1..80usize, inner);
    let cases = (shapes, dtypes, result_dtype(), any::<bool>(), then(), any::<u64>());
    let done = runner.run(&cases, |((rows, columns, inner), [x, weight], out, bias, then, seed)| {
        let case = Case { rows, columns, inner, dtypes: [x, weight, out], bias, then, seed };
        within_roundings(target, &case)
    });
    done.map_err(|error| error.to_string())
}

fn matrix_units<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    // Few rows and a long `inner` are cut into parts; more rows and columns take the large tile.
    let shapes = prop_oneof![
        (1..70usize, 1..70usize, 1..80usize),
        (1..70usize, 1..40usize, 40..120usize),
        (65..128usize, 65..128usize, 32..64usize),
        (100..200usize, 65..140usize, 1..40usize),
    ];
    let cases = (shapes, result_dtype(), any::<bool>(), then(), any::<u64>());
    let done = runner.run(&cases, |((rows, columns, eighths), out, bias, then, seed)| {
        let dtypes = [Dtype::BF16, Dtype::BF16, out];
        within_roundings(target, &Case { rows, columns, inner: 8 * eighths, dtypes, bias, then, seed })
    });
    done.map_err(|error| error.to_string())
}

fn cublaslt(device: &Device, runner: &mut TestRunner) -> Result<(), String> {
    let Some(library) = CublasLt::open(device).map_err(|error| error.to_string())? else {
        // As with a missing GPU: seen by who looks, and a failure for who asked for everything.
        let absent = "cuBLASLt is not installed; $SKILLWELD_CUBLASLT may name its file";
        let required = std::env::var_os("SKILLWELD_REQUIRE_GPU").is_some_and(|value| value == "1");
        #[expect(clippy::print_stdout, reason = "a test that says what it leaves out")]
        if !required {
            println!("skipped: {absent}");
        }
        return if required { Err(absent.to_owned()) } else { Ok(()) };
    };
    let library = RefCell::new(library);
    let dtypes = prop_oneof![
        Just([Dtype::BF16; 3]),
        Just([Dtype::BF16, Dtype::BF16, Dtype::F32]),
        Just([Dtype::F32; 3])
    ];
    let then = prop::sample::select(vec![Then::Keep, Then::Add, Then::Relu]);
    let shapes = (1..300usize, 1..40usize, 1..200usize);
    let cases = (shapes, dtypes, any::<bool>(), then, any::<u64>());
    let done = runner.run(&cases, |((rows, eighths, inner), dtypes, bias, then, seed)| {
        let case = Case { rows, columns: 8 * eighths, inner: 8 * inner, dtypes, bias, then, seed };
        let mut host = Host::new(&case);
        host.bias = floats_of(dtypes[2], &bytes_of(dtypes[2], &host.bias));
        let is = run_with(device, &case, &host, dtypes[2], |layer| library.borrow_mut().linear(layer))?;
        check_roundings(&case, &host, &is)
    });
    done.map_err(|error| error.to_string())
}

/// Operands as f32 that their dtypes hold exactly.
struct Host {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    beside: Vec<f32>,
    scale: Vec<f32>,
}

impl Host {
    fn new(case: &Case) -> Self {
        let [x, weight, out] = case.dtypes;
        let random = |dtype, numel, seed| {
            let values = values(numel, case.seed.rotate_left(seed) ^ u64::from(seed));
            floats_of(dtype, &bytes_of(dtype, &values))
        };
        Self {
            x: random(x, case.rows * case.inner, 1),
            weight: random(weight, case.columns * case.inner, 2),
            bias: random(Dtype::F32, case.columns, 3),
            beside: random(out, case.rows * case.columns, 4),
            scale: random(Dtype::F32, case.columns, 5),
        }
    }
}

fn run<T: Target>(target: &T, case: &Case, host: &Host) -> Result<Vec<f32>, TestCaseError> {
    let mut scratch = LinearScratch::new(target).map_err(failed)?;
    run_with(target, case, host, Dtype::F32, |layer| linear(target, &mut scratch, layer))
}

fn run_with<T: Target>(
    target: &T,
    case: &Case,
    host: &Host,
    bias_dtype: Dtype,
    work: impl FnOnce(&Linear<'_>) -> skillweld_gpu::Result<()>,
) -> Result<Vec<f32>, TestCaseError> {
    let upload = |dtype, values: &[f32]| -> Result<Array<T::Memory>, TestCaseError> {
        target.array_of(dtype, &bytes_of(dtype, values)).map_err(failed)
    };
    let [x_dtype, weight_dtype, out_dtype] = case.dtypes;
    let (x, weight) = (upload(x_dtype, &host.x)?, upload(weight_dtype, &host.weight)?);
    let (bias, scale) = (upload(bias_dtype, &host.bias)?, upload(Dtype::F32, &host.scale)?);
    let beside = upload(out_dtype, &host.beside)?;
    let mut out = target.array(out_dtype, case.rows * case.columns).map_err(failed)?;
    let then = match case.then {
        Then::Keep => LinearThen::Keep,
        Then::Gelu => LinearThen::Gelu,
        Then::Add => LinearThen::AddTo { residual: beside.view(), scale: None },
        Then::AddScaled => LinearThen::AddTo { residual: beside.view(), scale: Some(scale.view()) },
        Then::SiluGate => LinearThen::SiluGate(beside.view()),
        Then::Relu => LinearThen::Relu,
    };
    let layer = Linear {
        x: x.view(),
        weight: weight.view(),
        bias: case.bias.then(|| bias.view()),
        rows: case.rows,
        columns: case.columns,
        inner: case.inner,
        then,
        out: out.view_mut(),
    };
    work(&layer).map_err(failed)?;
    Ok(floats_of(out_dtype, &target.read(&out).map_err(failed)?))
}

fn within_roundings<T: Target>(target: &T, case: &Case) -> Result<(), TestCaseError> {
    let host = Host::new(case);
    let is = run(target, case, &host)?;
    check_roundings(case, &host, &is)
}

fn check_roundings(case: &Case, host: &Host, is: &[f32]) -> Result<(), TestCaseError> {
    for (i, &is) in is.iter().enumerate() {
        let (row, column) = (i / case.columns, i % case.columns);
        let (mut y, mut sizes) = (0.0, 0.0);
        for k in 0..case.inner {
            let product =
                f64::from(host.x[row * case.inner + k]) * f64::from(host.weight[column * case.inner + k]);
            y += product;
            sizes += product.abs();
        }
        if case.bias {
            y += f64::from(host.bias[column]);
            sizes += f64::from(host.bias[column]).abs();
        }
        // Every addition of an f32 sum rounds once, to at most the sum of the sizes.
        let y_error = (case.inner + 2) as f64 * F32_ROUNDING * sizes;
        let (beside, scale) = (f64::from(host.beside[i]), f64::from(host.scale[column]));
        // The exact result, how much steeper than y it can be, and what a few roundings of its parts come to.
        let (expected, slope, parts) = match case.then {
            Then::Keep => (y, 1.0, 0.0),
            Then::Gelu => (0.5 * y * (1.0 + erf(y / 2f64.sqrt())), 1.13, y.abs()),
            Then::Add => (beside + y, 1.0, beside.abs()),
            Then::AddScaled => (beside + scale * y, scale.abs(), beside.abs() + (scale * y).abs()),
            Then::SiluGate => {
                let silu = beside / (1.0 + (-beside).exp());
                (silu * y, silu.abs(), 4.0 * (silu * y).abs())
            }
            Then::Relu => (y.max(0.0), 1.0, 0.0),
        };
        let rounding = if case.dtypes[2] == Dtype::BF16 { BF16_ROUNDING } else { F32_ROUNDING };
        let before = slope * y_error + 4.0 * F32_ROUNDING * parts + 1e-30;
        let allowed = before + rounding * (expected.abs() + before);
        prop_assert!(
            (f64::from(is) - expected).abs() <= allowed,
            "row {row} column {column}: {is}, not {expected}, allowed {allowed:e}"
        );
    }
    Ok(())
}

/// erf by its series; beyond 4 it is 1 within 2e-8.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}
