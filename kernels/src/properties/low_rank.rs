//! `low_rank` against products in f64, within what roundings of f32 sums, left-out parts of factors and the result allow.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use skillweld_gpu::ops::{LowRank, LowRankExpert, LowRankMatrix};
use skillweld_gpu::{Array, Memory, Target};
use skillweld_tensor::{BitMask, Dtype};

use super::random::{bytes_of, dtype, floats_of, values};
use super::{Property, failed};

/// Half the distance between neighbouring f32 near 1.
const F32_ROUNDING: f64 = 1.0 / (1u32 << 24) as f64;

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "low_rank: bf16 factors are multiplied within f32 roundings", check: bf16_factors },
        Property { name: "low_rank: factors that stay are those of the matrix", check: wide_matrices },
        Property { name: "low_rank: wider factors lose no more than said", check: wider_factors },
    ]
}

/// What of Θ₀ + M ⊙ Σ there is.
#[derive(Debug, Clone, Copy)]
struct Form {
    base: bool,
    mask: bool,
}

/// Rank, dtype of both factors, scale.
type ExpertCase = (usize, Dtype, f32);

#[derive(Debug, Clone)]
struct MatrixCase {
    rows: usize,
    columns: usize,
    experts: Vec<ExpertCase>,
    form: Form,
}

fn matrix(
    rows: impl Strategy<Value = usize>,
    columns: impl Strategy<Value = usize>,
    rank: impl Strategy<Value = usize>,
    factors: impl Strategy<Value = Dtype>,
) -> impl Strategy<Value = MatrixCase> {
    let scale = prop_oneof![Just(1.0f32), Just(2.0), -3.0..3.0f32, Just(0.0), Just(1e-3)];
    let experts = prop::collection::vec((rank, factors, scale), 0..4);
    let form = (any::<bool>(), any::<bool>()).prop_map(|(base, mask)| Form { base, mask });
    (rows, columns, experts, form).prop_map(|(rows, columns, experts, form)| MatrixCase {
        rows,
        columns,
        experts,
        form,
    })
}

fn bf16_factors<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    // Mostly what is read as it is: ranks and columns that are multiples of 8.
    let side = prop_oneof![4 => (1..20usize).prop_map(|eighth| 8 * eighth), 1 => 1..150usize];
    let rank = prop_oneof![Just(64usize), Just(8), Just(32), Just(128), 1..100usize];
    let matrices = prop::collection::vec(matrix(side.clone(), side, rank, Just(Dtype::BF16)), 1..3);
    let done = runner.run(&(matrices, dtype(), any::<u64>()), |(matrices, out, seed)| {
        within_roundings(target, &matrices, out, seed)
    });
    done.map_err(|error| error.to_string())
}

fn wide_matrices<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let rank = prop_oneof![Just(16usize), Just(8), Just(80)];
    let matrices = prop::collection::vec(matrix(1..30usize, 500..1000usize, rank, Just(Dtype::BF16)), 3..5);
    let done = runner.run(&(matrices, dtype(), any::<u64>()), |(matrices, out, seed)| {
        within_roundings(target, &matrices, out, seed)
    });
    done.map_err(|error| error.to_string())
}

fn wider_factors<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let factors = prop_oneof![Just(Dtype::F32), Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)];
    let matrices = prop::collection::vec(matrix(1..100usize, 1..100usize, 1..20usize, factors), 1..3);
    let done = runner.run(&(matrices, dtype(), any::<u64>()), |(matrices, out, seed)| {
        within_roundings(target, &matrices, out, seed)
    });
    done.map_err(|error| error.to_string())
}

/// One matrix's operands; values as f32 that their dtypes hold exactly.
struct Host<'a> {
    case: &'a MatrixCase,
    base: Vec<f32>,
    mask: Vec<bool>,
    /// Left and right factor of every expert.
    factors: Vec<(Vec<f32>, Vec<f32>)>,
}

impl<'a> Host<'a> {
    fn new(case: &'a MatrixCase, out: Dtype, seed: u64) -> Self {
        let random = |dtype, numel, salt: u64| {
            floats_of(
                dtype,
                &bytes_of(dtype, &values(numel, seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            )
        };
        let numel = case.rows * case.columns;
        let factors = case.experts.iter().zip(0u64..).map(|(&(rank, dtype, _), i)| {
            (random(dtype, case.rows * rank, 2 * i + 10), random(dtype, rank * case.columns, 2 * i + 11))
        });
        Self {
            case,
            base: random(out, numel, 1),
            mask: values(numel, seed ^ 2).iter().map(|&value| value > 0.0).collect(),
            factors: factors.collect(),
        }
    }

    fn upload<T: Target>(&self, target: &T, out: Dtype) -> skillweld_gpu::Result<OnDevice<T::Memory>> {
        let array = |dtype, values: &[f32]| target.array_of(dtype, &bytes_of(dtype, values));
        let experts = self.case.experts.iter().zip(&self.factors);
        let factors = experts
            .map(|(&(_, dtype, _), (left, right))| Ok((array(dtype, left)?, array(dtype, right)?)))
            .collect::<skillweld_gpu::Result<_>>()?;
        Ok(OnDevice {
            base: array(out, &self.base)?,
            mask: target.array_of(Dtype::U8, BitMask::from_bools(&self.mask).as_bytes())?,
            factors,
            out: target.array(out, self.case.rows * self.case.columns)?,
        })
    }

    /// The result's element, and how far from it a kernel may end.
    fn expected(&self, row: usize, column: usize, out: Dtype) -> (f64, f64) {
        let columns = self.case.columns;
        let at = row * columns + column;
        let weight = if self.case.form.base { f64::from(self.base[at]) } else { 0.0 };
        if self.case.form.mask && !self.mask[at] {
            return (weight, 0.0);
        }
        let (mut sum, mut error, mut sizes, mut length) = (0.0, 0.0, 0.0, 0);
        for (&(rank, dtype, scale), (left, right)) in self.case.experts.iter().zip(&self.factors) {
            let mut size = 0.0;
            for k in 0..rank {
                let product = f64::from(left[row * rank + k]) * f64::from(right[k * columns + column]);
                sum += f64::from(scale) * product;
                size += (f64::from(scale) * product).abs();
            }
            // What parts are left out of the products; bf16 is not split, f16 to the last bit for all but bf16 results.
            error += size
                * match (dtype, out) {
                    (Dtype::BF16, _) => 0.0,
                    (_, Dtype::BF16) => 2f64.powi(-14),
                    (_, _) => 2f64.powi(-22),
                };
            sizes += size;
            length += 6 * rank + 1;
        }
        // Every addition rounds once, to at most the sum of the sizes; so does every scaling of the sums.
        error += (length + 2) as f64 * F32_ROUNDING * (sizes + weight.abs());
        let (rounding, least) = match out {
            Dtype::BF16 => (2f64.powi(-8), 0.0),
            Dtype::F16 => (2f64.powi(-11), 2f64.powi(-25)),
            _ => (F32_ROUNDING, 0.0),
        };
        let expected = weight + sum;
        (expected, error + rounding * (expected.abs() + error) + least)
    }
}

struct OnDevice<M> {
    base: Array<M>,
    mask: Array<M>,
    factors: Vec<(Array<M>, Array<M>)>,
    out: Array<M>,
}

impl<M: Memory> OnDevice<M> {
    fn operand(&mut self, case: &MatrixCase) -> LowRankMatrix<'_> {
        let experts = case.experts.iter().zip(&self.factors).map(|(&(rank, _, scale), (left, right))| {
            LowRankExpert { left: left.view(), right: right.view(), rank, scale }
        });
        LowRankMatrix {
            base: case.form.base.then(|| self.base.view()),
            mask: case.form.mask.then(|| self.mask.view()),
            experts: experts.collect(),
            rows: case.rows,
            columns: case.columns,
            out: self.out.view_mut(),
        }
    }
}

fn within_roundings<T: Target>(
    target: &T,
    cases: &[MatrixCase],
    out: Dtype,
    seed: u64,
) -> Result<(), TestCaseError> {
    let hosts: Vec<Host<'_>> =
        cases.iter().zip(0u64..).map(|(case, i)| Host::new(case, out, seed ^ (i << 40))).collect();
    let mut devices = Vec::new();
    for host in &hosts {
        devices.push(host.upload(target, out).map_err(failed)?);
    }
    let matrices = devices.iter_mut().zip(cases).map(|(device, case)| device.operand(case)).collect();
    LowRank::new(target, matrices).and_then(|mut merge| merge.run(target)).map_err(failed)?;
    for (host, device) in hosts.iter().zip(&devices) {
        let values = floats_of(out, &target.read(&device.out).map_err(failed)?);
        for (i, &is) in values.iter().enumerate() {
            let (row, column) = (i / host.case.columns, i % host.case.columns);
            let (expected, allowed) = host.expected(row, column, out);
            let beyond_f16 = out == Dtype::F16 && expected.abs() > 6e4;
            prop_assert!(
                beyond_f16 || (f64::from(is) - expected).abs() <= allowed,
                "row {row} column {column}: {is}, not {expected}, allowed {allowed:e}"
            );
        }
    }
    Ok(())
}
