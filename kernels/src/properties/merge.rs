//! `merge` against what the plugins `linear`, `task_arithmetic`, `ties`, `dare_…` and `emr` compute, bit for bit.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::ops::{
    ExactThresholds, MergeRule, MergeTensor, MergeVotes, Merging, TaskVectors, Thin, Threshold, TrimScope,
    ZeroSum, merge,
};
use skillweld_gpu::{Array, Target};
use skillweld_plugin_sdk::Random;
use skillweld_tensor::Dtype;

use super::random::{bytes_of, dtype, floats_of, values};
use super::threshold::{agrees, by_sorting, density, entries};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "merge: equals the plugins bit for bit", check: equals_cpu }]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Nothing,
    Trim(TrimScope),
    Drop,
}

/// How vectors become one, as the reference sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Sum {
        divisor: f32,
    },
    /// `zero_sum`: `None` is the majority's.
    Consensus {
        mean: bool,
        zero_sum: Option<i8>,
    },
    Largest,
}

/// What is joined, and how.
#[derive(Debug, Clone)]
struct Case {
    lengths: Vec<usize>,
    dtype: Dtype,
    /// Density, weight and kind of values of each expert.
    experts: Vec<(f64, f32, u64)>,
    thinning: Kept,
    rule: Rule,
    lambda: f32,
    subtract_base: bool,
    add_base: bool,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let length = prop_oneof![0..40usize, 2040..2060usize, 1..40_000usize];
    let expert = || (density(), prop_oneof![Just(1.0f32), -1.0..2.0f32], any::<u64>());
    let experts = prop_oneof![
        3 => prop::collection::vec(expert(), 1..5),
        1 => prop::collection::vec(expert(), 5..17),
    ];
    let zero_sum = prop_oneof![Just(Some(1)), Just(Some(-1)), Just(Some(0)), Just(None)];
    let consensus = (any::<bool>(), zero_sum).prop_map(|(mean, zero_sum)| Rule::Consensus { mean, zero_sum });
    let sum = prop_oneof![Just(1.0f32), 0.5..4.0f32].prop_map(|divisor| Rule::Sum { divisor });
    let trim = prop_oneof![Just(TrimScope::Tensor), Just(TrimScope::Global)].prop_map(Kept::Trim);
    let thinned = prop_oneof![
        1 => (prop_oneof![Just(Kept::Nothing), Just(Kept::Drop)], sum),
        3 => (prop_oneof![1 => Just(Kept::Drop), 3 => trim], consensus),
        1 => Just((Kept::Nothing, Rule::Largest)),
    ];
    let lambda = prop_oneof![Just(1.0f32), -1.0..2.0f32];
    let tensors = (prop::collection::vec(length, 1..4), dtype(), any::<u64>());
    (tensors, experts, thinned, lambda, any::<(bool, bool)>()).prop_map(
        |((lengths, dtype, seed), experts, (thinning, rule), lambda, (subtract_base, add_base))| Case {
            lengths,
            dtype,
            experts,
            thinning,
            rule,
            lambda,
            subtract_base,
            add_base,
            seed,
        },
    )
}

fn equals_cpu<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    runner.run(&case(), |case| one_case(target, &case)).map_err(|error| error.to_string())
}

fn one_case<T: Target>(target: &T, case: &Case) -> Result<(), TestCaseError> {
    let host: Vec<HostTensor> = (0..case.lengths.len()).map(|i| HostTensor::new(case, i)).collect();
    let upload = |bytes: &Vec<u8>| target.array_of(case.dtype, bytes).map_err(failed);
    let (mut bases, mut vectors, mut outs) = (Vec::new(), Vec::new(), Vec::new());
    for tensor in &host {
        bases.push(upload(&tensor.base)?);
        vectors.push(tensor.experts.iter().map(upload).collect::<Result<Vec<Array<_>>, _>>()?);
        outs.push(target.array(case.dtype, tensor.numel).map_err(failed)?);
    }
    let densities: Vec<f64> = case.experts.iter().map(|expert| expert.0).collect();
    let weights: Vec<f32> = case.experts.iter().map(|expert| expert.1).collect();
    let task_vectors: Vec<TaskVectors<'_>> = bases
        .iter()
        .zip(&vectors)
        .map(|(base, experts)| TaskVectors {
            base: case.subtract_base.then(|| base.view()),
            experts: experts.iter().map(Array::view).collect(),
        })
        .collect();
    // Where nothing is trimmed, thresholds that keep everything.
    let (scope, trimmed) = match case.thinning {
        Kept::Trim(scope) => (scope, densities.clone()),
        _ => (TrimScope::Global, vec![1.0; densities.len()]),
    };
    let thresholds = ExactThresholds::find(target, &task_vectors, &trimmed, scope).map_err(failed)?;
    let votes = MergeVotes::count(target, &task_vectors, &weights, &thresholds).map_err(failed)?;
    let rule = match case.rule {
        Rule::Sum { divisor } => MergeRule::Sum { divisor },
        Rule::Consensus { mean, zero_sum: Some(sign) } => {
            MergeRule::Consensus { mean, zero_sum: ZeroSum::Sign(sign) }
        }
        Rule::Consensus { mean, .. } => MergeRule::Consensus { mean, zero_sum: ZeroSum::Majority(&votes) },
        Rule::Largest => MergeRule::Largest,
    };
    let thinning = match (case.thinning, case.rule) {
        (Kept::Drop, _) => Thin::Drop { densities: &densities },
        (Kept::Nothing, Rule::Sum { .. } | Rule::Largest) => Thin::Nothing,
        (Kept::Nothing | Kept::Trim(_), _) => Thin::Trim(&thresholds),
    };
    let operands: Vec<MergeTensor<'_>> = task_vectors
        .iter()
        .zip(&bases)
        .zip(&mut outs)
        .zip(0u64..)
        .map(|(((vectors, base), out), i)| MergeTensor {
            vectors: vectors.clone(),
            base: case.add_base.then(|| base.view()),
            seed: case.seed.wrapping_add(i),
            out: out.view_mut(),
        })
        .collect();
    let how = Merging { weights: &weights, thinning, join: rule, lambda: case.lambda };
    merge(target, &operands, &how).map_err(failed)?;
    let counted = votes.read(target).map_err(failed)?;
    let found = thresholds.read(target).map_err(failed)?;
    let thresholds: Vec<Vec<Threshold>> = (0..host.len()).map(|i| thresholds_of(case, &host, i)).collect();
    if let Kept::Trim(scope) = case.thinning {
        for (s, found) in found.chunks(densities.len()).enumerate() {
            for (k, found) in found.iter().enumerate() {
                agrees(found, &magnitudes(case, &host, scope, (s, k)), densities[k], scope)?;
            }
        }
    }
    if case.thinning != Kept::Drop {
        prop_assert_eq!(&counted, &votes_of(case, &host, &thresholds, scope));
    }
    for (i, (tensor, out)) in host.iter().zip(&outs).enumerate() {
        let majority = counted[if scope == TrimScope::Tensor { i } else { 0 }].signum() as f32;
        let expected = tensor.expected(case, (&thresholds[i], majority), case.seed.wrapping_add(i as u64));
        let is = target.read(out).map_err(failed)?;
        let first = is.iter().zip(&expected).position(|(is, expected)| is != expected);
        prop_assert!(first.is_none(), "byte {:?} of tensor {} of {} elements", first, i, tensor.numel);
    }
    Ok(())
}

/// |x_k| of tensor `i`, or of all tensors.
fn magnitudes(case: &Case, host: &[HostTensor], scope: TrimScope, (i, k): (usize, usize)) -> Vec<f32> {
    let tensors = if scope == TrimScope::Tensor { &host[i..=i] } else { host };
    tensors.iter().flat_map(|tensor| tensor.vectors(case).swap_remove(k)).map(f32::abs).collect()
}

/// What the experts keep of tensor `i`.
fn thresholds_of(case: &Case, host: &[HostTensor], i: usize) -> Vec<Threshold> {
    let Kept::Trim(scope) = case.thinning else { return Vec::new() };
    let experts = case.experts.iter().enumerate();
    experts.map(|(k, expert)| by_sorting(&magnitudes(case, host, scope, (i, k)), expert.0, scope)).collect()
}

struct HostTensor {
    numel: usize,
    base: Vec<u8>,
    experts: Vec<Vec<u8>>,
}

impl HostTensor {
    fn new(case: &Case, i: usize) -> Self {
        let (numel, seed) = (case.lengths[i], case.seed ^ (i as u64) << 40);
        let base = values(numel, seed ^ 7);
        let expert = |(k, &(.., kind)): (u64, &(f64, f32, u64))| {
            let entries = entries(numel, kind, seed ^ k << 20);
            // Experts that stay near the base, as finetuned ones do: some of their entries cancel others'.
            let near = entries.iter().zip(&base).map(|(x, base)| base + x);
            let values: Vec<f32> = if case.subtract_base { near.collect() } else { entries };
            bytes_of(case.dtype, &values)
        };
        let experts = (0u64..).zip(&case.experts).map(expert).collect();
        Self { numel, base: bytes_of(case.dtype, &base), experts }
    }

    /// x_k of every expert.
    fn vectors(&self, case: &Case) -> Vec<Vec<f32>> {
        let base = floats_of(case.dtype, &self.base);
        let vector = |expert: &Vec<u8>| {
            let stored = floats_of(case.dtype, expert).into_iter();
            stored.zip(&base).map(|(x, base)| if case.subtract_base { x - base } else { x }).collect()
        };
        self.experts.iter().map(vector).collect()
    }

    /// v_k of every expert, element by element.
    fn values(&self, case: &Case, thresholds: &[Threshold], seed: u64) -> Vec<Vec<f32>> {
        let numbers = |random: Random| {
            let mut numbers = vec![0; self.numel];
            random.fill(0, &mut numbers);
            numbers
        };
        let among_equals = numbers(Random::new(0, 0));
        let of_expert = |(k, vector): (usize, &Vec<f32>)| {
            let (density, weight, _) = case.experts[k];
            let own = numbers(Random::new(seed, k as u32));
            let kept = |e: usize, x: f32| match case.thinning {
                Kept::Nothing => true,
                Kept::Trim(_) => {
                    let Threshold { magnitude, equal_below, .. } = thresholds[k];
                    let equals = || equal_below.is_none_or(|below| among_equals[e] < below);
                    x.abs() > magnitude || (x.abs() == magnitude && equals())
                }
                Kept::Drop => density >= 1.0 || own[e] < (density * 4_294_967_296.0) as u32,
            };
            vector.iter().enumerate().map(|(e, &x)| if kept(e, x) { weight * x } else { 0.0 }).collect()
        };
        self.vectors(case).iter().enumerate().map(of_expert).collect()
    }

    fn expected(&self, case: &Case, (thresholds, majority): (&[Threshold], f32), seed: u64) -> Vec<u8> {
        let (values, base) = (self.values(case, thresholds, seed), floats_of(case.dtype, &self.base));
        let weights: Vec<f32> = case.experts.iter().map(|expert| expert.1).collect();
        let joined = |e: usize| {
            let values: Vec<f32> = values.iter().map(|values| values[e]).collect();
            let joined = joined(case.rule, &values, &weights, majority) * case.lambda;
            if case.add_base { joined + base[e] } else { joined }
        };
        bytes_of(case.dtype, &(0..self.numel).map(joined).collect::<Vec<_>>())
    }
}

/// Elements with a positive sum less those with a negative one, of each scope.
fn votes_of(case: &Case, host: &[HostTensor], thresholds: &[Vec<Threshold>], scope: TrimScope) -> Vec<i64> {
    let of_tensor = |(tensor, thresholds): (&HostTensor, &Vec<Threshold>)| -> i64 {
        let values = tensor.values(case, thresholds, 0);
        let sum = |e: usize| values.iter().fold(0.0f32, |sum, values| sum + values[e]);
        (0..tensor.numel).map(|e| i64::from(sum(e) > 0.0) - i64::from(sum(e) < 0.0)).sum()
    };
    let votes = host.iter().zip(thresholds).map(of_tensor);
    if scope == TrimScope::Tensor { votes.collect() } else { vec![votes.sum()] }
}

/// One element.
fn joined(rule: Rule, values: &[f32], weights: &[f32], majority: f32) -> f32 {
    let sum = values.iter().fold(0.0f32, |sum, value| sum + value);
    match rule {
        Rule::Sum { divisor } => sum / divisor,
        Rule::Consensus { mean, zero_sum } => {
            let sign = match sum {
                sum if sum > 0.0 => 1.0,
                sum if sum < 0.0 => -1.0,
                _ => zero_sum.map_or(majority, f32::from),
            };
            let agreeing = || values.iter().zip(weights).filter(|(value, _)| **value * sign > 0.0);
            let total = agreeing().fold(0.0f32, |total, (value, _)| total + value);
            let divisor = agreeing().fold(0.0f32, |total, (_, weight)| total + weight);
            if mean && divisor != 0.0 { total / divisor } else { total }
        }
        Rule::Largest => {
            let agreeing = values.iter().filter(|value| **value * sum.signum() > 0.0 && sum != 0.0);
            agreeing.fold(0.0f32, |largest, value| if value.abs() > largest.abs() { *value } else { largest })
        }
    }
}
