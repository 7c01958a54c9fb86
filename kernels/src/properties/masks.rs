//! `masks` against the definitions in f32 as the plugins `tall` and `emr` compute them, bit for bit.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::ops::{ExpertMask, MaskRule, MaskedVectors, count_masks, make_masks};
use skillweld_gpu::{Array, Target, View};
use skillweld_tensor::{BitMask, Dtype, count_both, count_ones};

use super::random::{bytes_of, dtype, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "masks: equal the plugins bit for bit", check: equals_cpu },
        Property { name: "masks: counts are exact", check: counts_exactly },
    ]
}

/// The rule in f32, operation by operation.
fn keeps(rule: &MaskRule, k: usize, expert: f32, merged: f32) -> bool {
    match rule {
        MaskRule::Tall { lambdas } => expert.abs() > lambdas[k] * (merged - expert).abs(),
        MaskRule::SameSign => (expert > 0.0 && merged > 0.0) || (expert < 0.0 && merged < 0.0),
    }
}

fn equals_cpu<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let lengths = prop::collection::vec(prop_oneof![0..40usize, 4000..4200usize, 1..12_000usize], 1..4);
    let cases = (lengths, 1..7usize, dtype(), any::<bool>(), any::<u64>());
    let check = |(lengths, experts, dtype, tall, seed): (Vec<usize>, _, _, _, _)| {
        let rule = match tall {
            true => MaskRule::Tall { lambdas: (0..experts).map(|k| 0.5 + 0.1 * k as f32).collect() },
            false => MaskRule::SameSign,
        };
        masks_case(target, &lengths, experts, dtype, &rule, seed)
    };
    runner.run(&cases, check).map_err(|error| error.to_string())
}

fn masks_case<T: Target>(
    target: &T,
    lengths: &[usize],
    experts: usize,
    dtype: Dtype,
    rule: &MaskRule,
    seed: u64,
) -> Result<(), TestCaseError> {
    // Per tensor: τ_1 … τ_N and their sum, rounded to the dtype.
    let mut host: Vec<Vec<Vec<u8>>> = Vec::new();
    for (i, &numel) in lengths.iter().enumerate() {
        let vectors: Vec<Vec<f32>> =
            (0..experts).map(|k| values(numel, seed ^ ((i * 16 + k) as u64) << 20)).collect();
        let sum = (0..numel).map(|e| vectors.iter().map(|vector| vector[e]).sum()).collect();
        host.push(vectors.iter().chain([&sum]).map(|values| bytes_of(dtype, values)).collect());
    }
    let upload = |bytes: &Vec<u8>| target.array_of(dtype, bytes);
    let uploaded = host.iter().map(|tensor| tensor.iter().map(upload).collect());
    let vectors: Vec<Vec<Array<T::Memory>>> = uploaded.collect::<Result<_, _>>().map_err(failed)?;
    let mut masks: Vec<Vec<Array<T::Memory>>> = lengths
        .iter()
        .map(|&n| (0..experts).map(|_| target.array(Dtype::U8, BitMask::byte_len(n))).collect())
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let tensors = vectors.iter().zip(&mut masks).map(|(vectors, masks)| {
        let experts = vectors.iter().zip(masks);
        let experts =
            experts.map(|(vector, mask)| ExpertMask { task_vector: vector.view(), mask: mask.view_mut() });
        MaskedVectors { merged: vectors[vectors.len() - 1].view(), experts: experts.collect() }
    });
    make_masks(target, tensors.collect(), rule).map_err(failed)?;
    for (tensor, masks) in host.iter().zip(&masks) {
        let merged = floats_of(dtype, &tensor[experts]);
        for (k, mask) in masks.iter().enumerate() {
            let expert = floats_of(dtype, &tensor[k]);
            let kept: Vec<bool> = expert.iter().zip(&merged).map(|(&e, &m)| keeps(rule, k, e, m)).collect();
            let is = target.read(mask).map_err(failed)?;
            let expected = BitMask::from_bools(&kept);
            prop_assert_eq!(is, expected.as_bytes(), "expert {} of {} elements", k, kept.len());
        }
    }
    Ok(())
}

fn counts_exactly<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let bytes = prop_oneof![0..70usize, 1..40_000usize];
    runner
        .run(&(bytes, 1..9usize, any::<u64>()), |(bytes, experts, seed)| {
            counts_case(target, bytes, experts, seed)
        })
        .map_err(|error| error.to_string())
}

fn counts_case<T: Target>(target: &T, bytes: usize, experts: usize, seed: u64) -> Result<(), TestCaseError> {
    let mask = |k: u64| -> Vec<u8> {
        values(bytes, seed ^ (k << 40)).iter().map(|v| (v * 1e6) as i32 as u8).collect()
    };
    let host: Vec<Vec<u8>> = (0..experts as u64).map(mask).collect();
    let arrays: Vec<_> =
        host.iter().map(|m| target.array_of(Dtype::U8, m)).collect::<Result<_, _>>().map_err(failed)?;
    let views: Vec<View<'_>> = arrays.iter().map(Array::view).collect();
    let counts = count_masks(target, &views).map_err(failed)?;
    let ones: Vec<u64> = host.iter().map(|mask| count_ones(mask) as u64).collect();
    prop_assert_eq!(counts.ones, ones);
    let pairs = (0..experts).flat_map(|i| (i + 1..experts).map(move |j| (i, j)));
    let both: Vec<u64> = pairs.map(|(i, j)| count_both(&host[i], &host[j]) as u64).collect();
    prop_assert_eq!(counts.both, both);
    let keepers = |byte: usize, bit: usize| host.iter().filter(|mask| mask[byte] >> bit & 1 == 1).count();
    let selfish = (0..bytes * 8).filter(|e| keepers(e / 8, e % 8) == 1).count();
    prop_assert_eq!(counts.selfish, selfish as u64);
    Ok(())
}
