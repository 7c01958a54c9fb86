//! `join` and `thresholds` against the plugins' arithmetic, element by element and thresholds by sorting; bit for bit.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::ops::{Join, JoinTensor, Thinning, ThresholdScope, Thresholds, elect, join};
use skillweld_gpu::{Array, Target, View};
use skillweld_plugin_sdk::Random;
use skillweld_tensor::Dtype;

use super::random::{bytes_of, dtype, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "join: equals the plugins bit for bit", check: equals_plugins },
        Property { name: "join: elects as the plugin emr, bit for bit", check: elects },
    ]
}

pub(super) fn slow_properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "thresholds: exact although the sample misleads", check: exact_without_luck }]
}

/// How task vectors are thinned, as the reference sees it.
#[derive(Debug, Clone)]
enum Thin {
    Nothing,
    Trim(Vec<f64>, ThresholdScope),
    Drop(Vec<f64>),
}

/// Task vectors of several tensors, rounded to a dtype.
struct Tensors {
    dtype: Dtype,
    /// By tensor, then by expert.
    vectors: Vec<Vec<Vec<f32>>>,
    bases: Vec<Vec<f32>>,
}

impl Tensors {
    fn new(dtype: Dtype, lengths: &[usize], experts: usize, seed: u64) -> Self {
        let rounded = |numel, seed| floats_of(dtype, &bytes_of(dtype, &values(numel, seed)));
        let vectors = lengths
            .iter()
            .zip(0u64..)
            .map(|(&n, i)| (0..experts as u64).map(|k| rounded(n, seed ^ (i << 40) ^ (k << 32))).collect());
        let bases = lengths.iter().zip(0u64..).map(|(&n, i)| rounded(n, !seed ^ (i << 40)));
        Self { dtype, vectors: vectors.collect(), bases: bases.collect() }
    }

    fn upload<T: Target>(&self, target: &T, values: &[f32]) -> Result<Array<T::Memory>, TestCaseError> {
        target.array_of(self.dtype, &bytes_of(self.dtype, values)).map_err(failed)
    }

    /// Every vector on the target, by tensor and expert.
    fn upload_all<T: Target>(&self, target: &T) -> Result<Vec<Vec<Array<T::Memory>>>, TestCaseError> {
        self.vectors.iter().map(|of| of.iter().map(|values| self.upload(target, values)).collect()).collect()
    }
}

/// Threshold by sorting, and how many random numbers of 2³² let an entry that equals it pass.
fn threshold(mut magnitudes: Vec<f32>, density: f64, scope: ThresholdScope) -> (f32, u64) {
    let share = (density * magnitudes.len() as f64).floor();
    if density >= 1.0 || magnitudes.is_empty() {
        return (0.0, 1 << 32);
    }
    if density == 0.0 {
        return (f32::INFINITY, 0);
    }
    let rank = if scope == ThresholdScope::Tensor { share.max(1.0) } else { share + 1.0 } as usize;
    magnitudes.sort_by(|a, b| b.total_cmp(a));
    let key = magnitudes[rank - 1];
    let larger = magnitudes.iter().filter(|&&m| m > key).count();
    let equal = magnitudes.iter().filter(|&&m| m == key).count();
    let room = rank - larger;
    let some = scope == ThresholdScope::Tensor && room < equal;
    (key, if some { u64::from((room as f64 / equal as f64 * 4_294_967_296.0) as u32) } else { 1 << 32 })
}

/// Which elements of expert `k` of tensor `t` are kept.
fn kept(tensors: &Tensors, thin: &Thin, t: usize, k: usize, seed: u64) -> Vec<bool> {
    let own = &tensors.vectors[t][k];
    let numbers = |random: Random| {
        let mut numbers = vec![0; own.len()];
        random.fill(0, &mut numbers);
        numbers
    };
    match thin {
        Thin::Nothing => vec![true; own.len()],
        Thin::Drop(densities) if densities[k] >= 1.0 => vec![true; own.len()],
        Thin::Drop(densities) => {
            let below = (densities[k] * 4_294_967_296.0) as u32;
            numbers(Random::new(seed, k as u32)).iter().map(|&number| number < below).collect()
        }
        Thin::Trim(densities, scope) => {
            let seen: Vec<f32> = match scope {
                ThresholdScope::Tensor => own.iter().map(|v| v.abs()).collect(),
                ThresholdScope::Global => {
                    tensors.vectors.iter().flat_map(|of| &of[k]).map(|v| v.abs()).collect()
                }
            };
            let (key, below) = threshold(seen, densities[k], *scope);
            let numbers = numbers(Random::new(0, 0));
            let keeps = |(v, &n): (&f32, &u32)| v.abs() > key || (v.abs() == key && u64::from(n) < below);
            own.iter().zip(&numbers).map(keeps).collect()
        }
    }
}

/// One element, as the plugins compute it.
fn joined(values: &[f32], weights: &[f32], rule: Join, lambda: f32) -> f32 {
    let mut sum = 0.0;
    values.iter().for_each(|v| sum += v);
    let mut merged = match rule {
        Join::Sum { divisor: 1.0 } => sum,
        Join::Sum { divisor } => sum / divisor,
        Join::Consensus { zero_sum, mean } => {
            let sign = if sum > 0.0 {
                1.0
            } else if sum < 0.0 {
                -1.0
            } else {
                zero_sum
            };
            let agree: Vec<usize> = (0..values.len()).filter(|&k| values[k] * sign > 0.0).collect();
            let (mut total, mut divisor) = (0.0, 0.0);
            agree.iter().for_each(|&k| total += values[k]);
            agree.iter().for_each(|&k| divisor += weights[k]);
            match mean {
                true => total / if divisor == 0.0 { 1.0 } else { divisor },
                false => total,
            }
        }
    };
    if lambda != 1.0 {
        merged *= lambda;
    }
    merged
}

fn equals_plugins<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let lengths = prop::collection::vec(prop_oneof![0..40usize, 8000..8400usize, 1..10_000usize], 1..4);
    let cases = (lengths, 1..8usize, dtype(), 0..4usize, 0..3usize, any::<bool>(), any::<u64>());
    let check = |(lengths, experts, dtype, thin, rule, based, seed): (Vec<usize>, usize, _, _, _, _, u64)| {
        let densities = (0..experts).map(|k| [0.2, 1.0, 0.7, 0.0][(k + seed as usize % 4) % 4]).collect();
        let thin = match thin {
            0 => Thin::Nothing,
            1 => Thin::Trim(densities, ThresholdScope::Tensor),
            2 => Thin::Trim(densities, ThresholdScope::Global),
            _ => Thin::Drop(densities),
        };
        let rule = match rule {
            0 if !matches!(thin, Thin::Trim(..)) => Join::Sum { divisor: if based { 1.0 } else { 1.7 } },
            0 | 1 => Join::Consensus { zero_sum: -1.0, mean: false },
            _ => Join::Consensus { zero_sum: 1.0, mean: true },
        };
        join_case(target, &Tensors::new(dtype, &lengths, experts, seed), &thin, rule, based, seed)
    };
    runner.run(&cases, check).map_err(|error| error.to_string())
}

fn join_case<T: Target>(
    target: &T,
    tensors: &Tensors,
    thin: &Thin,
    rule: Join,
    based: bool,
    seed: u64,
) -> Result<(), TestCaseError> {
    let experts = tensors.vectors[0].len();
    let weights: Vec<f32> = (0..experts).map(|k| 0.5 + 0.3 * k as f32).collect();
    let lambda = if seed.is_multiple_of(2) { 1.0 } else { 0.8 };
    let vectors = tensors.upload_all(target)?;
    let views: Vec<Vec<View<'_>>> = vectors.iter().map(|of| of.iter().map(Array::view).collect()).collect();
    let bases: Vec<_> =
        tensors.bases.iter().map(|base| tensors.upload(target, base)).collect::<Result<_, _>>()?;
    let outs = tensors.bases.iter().map(|base| target.array(tensors.dtype, base.len()));
    let mut outs: Vec<_> = outs.collect::<Result<_, _>>().map_err(failed)?;
    let thresholds = match thin {
        Thin::Trim(densities, scope) => {
            Some(Thresholds::find(target, &views, densities, *scope).map_err(failed)?)
        }
        _ => None,
    };
    let thinning = match (thin, &thresholds) {
        (Thin::Drop(densities), _) => Thinning::Drop { densities },
        (_, Some(thresholds)) => Thinning::Trim(thresholds),
        _ => Thinning::Nothing,
    };
    let operands =
        views.iter().zip(&bases).zip(&mut outs).zip(0u64..).map(|(((views, base), out), t)| JoinTensor {
            base: based.then(|| base.view()),
            experts: views.clone(),
            out: out.view_mut(),
            seed: seed ^ t,
        });
    join(target, &operands.collect::<Vec<_>>(), (&weights, lambda), rule, &thinning).map_err(failed)?;
    for (t, out) in outs.iter().enumerate() {
        let kept: Vec<Vec<bool>> = (0..experts).map(|k| kept(tensors, thin, t, k, seed ^ t as u64)).collect();
        let element = |e: usize| {
            let value = |k: usize| if kept[k][e] { weights[k] * tensors.vectors[t][k][e] } else { 0.0 };
            let merged = joined(&(0..experts).map(value).collect::<Vec<_>>(), &weights, rule, lambda);
            if based { merged + tensors.bases[t][e] } else { merged }
        };
        let expected: Vec<f32> = (0..tensors.bases[t].len()).map(element).collect();
        prop_assert_eq!(
            target.read(out).map_err(failed)?,
            bytes_of(tensors.dtype, &expected),
            "tensor {}",
            t
        );
    }
    Ok(())
}

fn elects<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let cases = (prop::collection::vec(0..9000usize, 1..3), 1..9usize, dtype(), any::<u64>());
    let check = |(lengths, experts, dtype, seed): (Vec<usize>, usize, _, _)| {
        let tensors = Tensors::new(dtype, &lengths, experts, seed);
        let vectors = tensors.upload_all(target)?;
        let outs = lengths.iter().map(|&n| target.array(dtype, n));
        let mut outs: Vec<_> = outs.collect::<Result<_, _>>().map_err(failed)?;
        let operands = vectors.iter().zip(&mut outs).map(|(of, out)| JoinTensor {
            base: None,
            experts: of.iter().map(Array::view).collect(),
            out: out.view_mut(),
            seed: 0,
        });
        elect(target, &operands.collect::<Vec<_>>()).map_err(failed)?;
        for (of, out) in tensors.vectors.iter().zip(&outs) {
            let element = |e: usize| {
                let mut sum = 0.0f32;
                of.iter().for_each(|vector| sum += vector[e]);
                let agree = of
                    .iter()
                    .map(|vector| vector[e])
                    .filter(|v| v * sum > 0.0 || v.signum() * sum.signum() > 0.0);
                let largest = agree.fold(0.0f32, |a, v| if v.abs() > a.abs() { v } else { a });
                if sum == 0.0 { 0.0 } else { largest }
            };
            let expected: Vec<f32> = (0..out.numel()).map(element).collect();
            prop_assert_eq!(floats_of(dtype, &target.read(out).map_err(failed)?), expected);
        }
        Ok(())
    };
    runner.run(&cases, check).map_err(|error| error.to_string())
}

/// The chunks that the sample looks at hold small magnitudes, or large ones, alone.
fn exact_without_luck<T: Target>(target: &T, _: &mut TestRunner) -> Result<(), String> {
    const CHUNK: usize = 8192;
    let numel = 257 * CHUNK + 5;
    for (dtype, sampled) in [(Dtype::BF16, 1e-3), (Dtype::F32, 1e3)] {
        let mut tensors = Tensors::new(dtype, &[numel], 2, 7);
        for vector in &mut tensors.vectors[0] {
            vector.chunks_mut(CHUNK).step_by(64).flatten().for_each(|value| *value *= sampled);
            *vector = floats_of(dtype, &bytes_of(dtype, vector));
        }
        let thin = Thin::Trim(vec![0.3, 0.6], ThresholdScope::Global);
        let rule = Join::Consensus { zero_sum: 1.0, mean: true };
        join_case(target, &tensors, &thin, rule, true, 2).map_err(|error| error.to_string())?;
    }
    Ok(())
}
