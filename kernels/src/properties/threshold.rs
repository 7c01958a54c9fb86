//! `threshold` against sorting, exactly.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::ops::{ExactThresholds, SearchCourse, TaskVectors, Threshold, TrimScope};
use skillweld_gpu::{Array, Target};
use skillweld_tensor::Dtype;

use super::random::{bytes_of, dtype, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "threshold: those that sorting gives", check: equals_sorting }]
}

pub(super) fn slow_properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "threshold: a sweep finds them of millions of entries", check: finds_in_one_sweep }]
}

/// Values of one expert of one tensor, as few or as close together as makes searches hard.
pub(super) fn entries(numel: usize, kind: u64, seed: u64) -> Vec<f32> {
    let values = values(numel, seed);
    let quarter = |v: &f32| (v * 4.0).round() / 4.0;
    match kind % 5 {
        // Few magnitudes: many equal the threshold.
        0 => values.iter().map(quarter).collect(),
        // Neighbours in the last bits of f32.
        1 => values.iter().map(|v| f32::from_bits(0x3f80_0000 + (v.abs() * 40.0) as u32)).collect(),
        // Sampled entries are small, the others large: the guess misses.
        2 => values.iter().enumerate().map(|(i, v)| if i / 8 % 3 == 0 { v * 1e-3 } else { *v }).collect(),
        _ => values,
    }
}

/// What an expert of these magnitudes keeps; the course of the search is not said.
pub(super) fn by_sorting(magnitudes: &[f32], density: f64, scope: TrimScope) -> Threshold {
    if density >= 1.0 {
        return Threshold { magnitude: -1.0, equal_below: None, course: SearchCourse::default() };
    }
    let share = (density * magnitudes.len() as f64).floor();
    let rank = if scope == TrimScope::Global { share + 1.0 } else { share.max(1.0) } as usize;
    if density == 0.0 || rank > magnitudes.len() {
        return Threshold { magnitude: f32::NAN, equal_below: None, course: SearchCourse::default() };
    }
    let mut sorted = magnitudes.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let magnitude = sorted[rank - 1];
    let above = sorted.iter().filter(|&&size| size > magnitude).count();
    let equal = sorted.iter().filter(|&&size| size == magnitude).count();
    let some = scope == TrimScope::Tensor && rank - above < equal;
    let equal_below = some.then(|| ((rank - above) as f64 / equal as f64 * 4_294_967_296.0) as u32);
    Threshold { magnitude, equal_below, course: SearchCourse::default() }
}

pub(super) fn density() -> impl Strategy<Value = f64> {
    prop_oneof![3 => 0.001..0.999f64, 1 => Just(0.2), 1 => Just(0.0), 1 => Just(1.0)]
}

fn equals_sorting<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let length = prop_oneof![4 => 0..40usize, 4 => 1..20_000usize, 1 => 131_000..140_000usize];
    let expert = (density(), any::<u64>());
    let cases = (
        prop::collection::vec(length, 1..4),
        prop::collection::vec(expert, 1..5),
        dtype(),
        any::<(bool, bool)>(),
        any::<u64>(),
    );
    let check = |(lengths, experts, dtype, (global, weights), seed): (Vec<_>, Vec<_>, _, _, _)| {
        let scope = if global { TrimScope::Global } else { TrimScope::Tensor };
        one_case(target, &lengths, &experts, dtype, (scope, weights), seed)
    };
    runner.run(&cases, check).map_err(|error| error.to_string())
}

fn one_case<T: Target>(
    target: &T,
    lengths: &[usize],
    experts: &[(f64, u64)],
    dtype: Dtype,
    (scope, weights): (TrimScope, bool),
    seed: u64,
) -> Result<(), TestCaseError> {
    let densities: Vec<f64> = experts.iter().map(|(density, _)| *density).collect();
    let mut magnitudes: Vec<Vec<Vec<f32>>> = Vec::new(); // by tensor and expert
    let mut uploaded = Vec::new();
    for (i, &numel) in lengths.iter().enumerate() {
        let base = weights.then(|| bytes_of(dtype, &values(numel, seed ^ i as u64)));
        let vectors: Vec<Vec<u8>> = (0u64..)
            .zip(experts)
            .map(|(k, (_, kind))| {
                bytes_of(dtype, &entries(numel, *kind, seed ^ (k << 20 | (i as u64) << 40)))
            })
            .collect();
        let theta = base.as_ref().map_or(vec![0.0; numel], |base| floats_of(dtype, base));
        let sizes = |vector: &Vec<u8>| {
            floats_of(dtype, vector).iter().zip(&theta).map(|(x, base)| (x - base).abs()).collect()
        };
        magnitudes.push(vectors.iter().map(sizes).collect());
        let upload = |bytes: &Vec<u8>| target.array_of(dtype, bytes).map_err(failed);
        uploaded.push((
            base.as_ref().map(upload).transpose()?,
            vectors.iter().map(upload).collect::<Result<Vec<Array<_>>, _>>()?,
        ));
    }
    let tensors: Vec<TaskVectors<'_>> = uploaded
        .iter()
        .map(|(base, experts)| TaskVectors {
            base: base.as_ref().map(Array::view),
            experts: experts.iter().map(Array::view).collect(),
        })
        .collect();
    let thresholds = ExactThresholds::find(target, &tensors, &densities, scope).map_err(failed)?;
    let found = thresholds.read(target).map_err(failed)?;
    let scopes: Vec<Vec<Vec<f32>>> = match scope {
        TrimScope::Tensor => magnitudes,
        TrimScope::Global => {
            let all = |k: usize| magnitudes.iter().flat_map(|tensor| tensor[k].clone()).collect();
            vec![(0..densities.len()).map(all).collect()]
        }
    };
    let expected = scopes.iter().flat_map(|of_experts| of_experts.iter().zip(experts));
    for (found, (sizes, (density, kind))) in found.iter().zip(expected) {
        agrees(found, sizes, *density, scope)?;
        // Many ordinary numbers of few magnitudes.
        let easy = dtype != Dtype::F32 && !weights && kind % 5 > 2;
        if easy && sizes.len() > 8000 && (0.2..0.7).contains(density) {
            prop_assert_eq!(found.course.passes, 1, "a guess that missed");
        }
    }
    Ok(())
}

/// Whether this is the threshold of these magnitudes, and its search went as it should.
pub(super) fn agrees(
    found: &Threshold,
    magnitudes: &[f32],
    density: f64,
    scope: TrimScope,
) -> Result<(), TestCaseError> {
    let expected = by_sorting(magnitudes, density, scope);
    // NaN, which nothing is at least, equals itself here.
    let same = found.magnitude.to_bits() == expected.magnitude.to_bits()
        && found.equal_below == expected.equal_below;
    prop_assert!(same, "{:?}, expected {:?} among {} entries", found, expected, magnitudes.len());
    // Few entries are all in the sample, which then cannot mislead.
    if found.course != SearchCourse::default() && magnitudes.len() < 100_000 {
        let SearchCourse { sampled, unguided, .. } = found.course;
        prop_assert_eq!((sampled, unguided), (magnitudes.len() as u64, 0));
    }
    Ok(())
}

fn finds_in_one_sweep<T: Target>(target: &T, _: &mut TestRunner) -> Result<(), String> {
    let numel = 2_000_003;
    let vectors: Vec<Vec<u8>> = (1..3).map(|seed| bytes_of(Dtype::BF16, &values(numel, seed))).collect();
    let find = || -> skillweld_gpu::Result<Vec<Threshold>> {
        let experts: Vec<Array<T::Memory>> =
            vectors.iter().map(|bytes| target.array_of(Dtype::BF16, bytes)).collect::<Result<_, _>>()?;
        let tensor = TaskVectors { base: None, experts: experts.iter().map(Array::view).collect() };
        ExactThresholds::find(target, &[tensor], &[0.2, 0.6], TrimScope::Global)?.read(target)
    };
    let found = find().map_err(|error| error.to_string())?;
    for ((found, bytes), density) in found.iter().zip(&vectors).zip([0.2, 0.6]) {
        let sizes: Vec<f32> = floats_of(Dtype::BF16, bytes).iter().map(|value| value.abs()).collect();
        agrees(found, &sizes, density, TrimScope::Global).map_err(|error| error.to_string())?;
        if found.course.passes != 1 || found.course.sampled > 200_000 {
            return Err(format!("{:?} for {numel} entries", found.course));
        }
    }
    Ok(())
}
