use proptest::collection::vec;
use proptest::prelude::*;
use skillweld_plugin_sdk::trial::Trial;

use super::{Ram, RamPlusTl};

/// Task vectors `[expert][element]`, as reinforcement leaves them: most entries are unchanged, or as good as.
fn experts() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let value = prop_oneof![4 => Just(0.0), 1 => Just(1e-5), 1 => -2e-5f32..2e-5, 4 => -1f32..1.0];
    (1usize..1200, 1usize..5).prop_flat_map(move |(len, count)| vec(vec(value.clone(), len), count))
}

/// Those who changed element i.
fn changers(experts: &[Vec<f32>], i: usize, epsilon: f32) -> Vec<usize> {
    (0..experts.len()).filter(|&k| experts[k][i].abs() > epsilon).collect()
}

/// Entries that expert k shares with others, and those that it does not.
fn shared_and_own(experts: &[Vec<f32>], k: usize, epsilon: f32) -> [f64; 2] {
    let among = |i: &usize| changers(experts, *i, epsilon);
    let changed = (0..experts[k].len()).filter(|i| among(i).contains(&k));
    let (own, shared): (Vec<usize>, Vec<usize>) = changed.partition(|i| among(i).len() == 1);
    [shared.len() as f64, own.len() as f64]
}

/// One element at a time, in f64; and the size of what was added up.
fn reference(experts: &[Vec<f32>], factors: &[f64], epsilon: f32) -> Vec<(f64, f64)> {
    let element = |i: usize| {
        let changers = changers(experts, i, epsilon);
        let value =
            |&k: &usize| f64::from(experts[k][i]) * if changers.len() == 1 { factors[k] } else { 1.0 };
        let count = changers.len().max(1) as f64;
        let sum = |of: fn(f64) -> f64| changers.iter().map(|k| of(value(k))).sum::<f64>() / count;
        (sum(|x| x), sum(f64::abs))
    };
    (0..experts[0].len()).map(element).collect()
}

fn compare(merged: &[f32], expected: &[(f64, f64)]) -> Result<(), TestCaseError> {
    for (i, (&merged, &(expected, size))) in merged.iter().zip(expected).enumerate() {
        // A factor, four sums and a quotient are rounded, each to half of f32's ε of the size.
        let bound = 8.0 * f64::from(f32::EPSILON) * size;
        prop_assert!((f64::from(merged) - expected).abs() <= bound, "element {}: {} {}", i, merged, expected);
    }
    Ok(())
}

fn trial_of<M: skillweld_plugin_sdk::export::Exported>(experts: &[Vec<f32>]) -> Trial {
    Trial::of::<M>().experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn entries_are_averaged_over_those_who_changed_them(experts in experts(), epsilon in 0f32..3e-5) {
        let merged = trial_of::<Ram>(&experts).set("epsilon", f64::from(epsilon)).block_len(64).merge();
        compare(&merged, &reference(&experts, &vec![1.0; experts.len()], epsilon))?;
    }

    #[test]
    fn lone_entries_count_more(
        experts in experts(), epsilon in 0f32..3e-5, r in -1f64..2.0, alpha in 0f64..3.0, global: bool,
    ) {
        let tensors = [experts.clone(), experts.iter().map(|expert| expert[..expert.len() / 2].to_vec()).collect()];
        let slices = |experts: &Vec<Vec<f32>>| experts.clone();
        let trial = tensors.iter().map(slices).fold(Trial::of::<RamPlusTl>(), |trial, experts| {
            trial.experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
        });
        let merged = trial
            .set("epsilon", f64::from(epsilon))
            .set("r", r)
            .set("alpha", alpha)
            .set("scope", if global { "global" } else { "tensor" })
            .block_len(64)
            .merge_all();
        for (experts, merged) in tensors.iter().zip(merged) {
            let factor = |k: usize| {
                let counted: Vec<[f64; 2]> =
                    tensors.iter().map(|experts| shared_and_own(experts, k, epsilon)).collect();
                let [shared, own] = match global {
                    true => [0, 1].map(|i| counted.iter().map(|counts| counts[i]).sum()),
                    false => shared_and_own(experts, k, epsilon),
                };
                1.0 + r * (shared / f64::max(own, 1e-5)).min(alpha)
            };
            let factors: Vec<f64> = (0..experts.len()).map(factor).collect();
            compare(&merged, &reference(experts, &factors, epsilon))?;
        }
    }
}

/// Numbers that mergekit 0.1.5 printed.
#[test]
fn values_that_mergekit_gives() {
    let a = [1.0, 0.0, 2.0, 0.0, 1e-5, 2e-5];
    let b = [2.0, 3.0, 0.0, 0.0, 1e-5, 1e-6];
    let c = [4.0, 0.0, 0.0, 1.0, 0.0, -5e-6];
    #[track_caller]
    fn assert_close(merged: &[f32], expected: &[f32]) {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2.0 * f32::EPSILON * b.abs();
        assert!(merged.iter().zip(expected).all(close), "{merged:?} {expected:?}");
    }
    let ram = |epsilon: f64| Trial::of::<Ram>().experts(&[&a, &b, &c]).set("epsilon", epsilon).merge();
    assert_close(&ram(1e-5), &[7.0 / 3.0, 3.0, 2.0, 1.0, 0.0, 2e-5]);
    assert_close(&ram(1.5), &[3.0, 3.0, 2.0, 0.0, 0.0, 0.0]);
    assert_close(&ram(0.0), &[7.0 / 3.0, 3.0, 2.0, 1.0, 1e-5, 16e-6 / 3.0]);
    let plus = |r: f64, alpha: f64| {
        Trial::of::<RamPlusTl>().experts(&[&a, &b, &c]).set("r", r).set("alpha", alpha).merge()
    };
    assert_close(&plus(0.1, 0.2), &[7.0 / 3.0, 3.06, 2.04, 1.02, 0.0, 2.04e-5]);
    assert_close(&plus(1.0, 10.0), &[7.0 / 3.0, 6.0, 3.0, 2.0, 0.0, 3e-5]);
    assert_close(&plus(-0.5, 1.0), &[7.0 / 3.0, 1.5, 1.5, 0.5, 0.0, 1.5e-5]);
    // Opposite changes cancel; equal ones stay.
    let signs = Trial::of::<Ram>().experts(&[&[1.0, 1.0, 1.0], &[-1.0, -2.0, 1.0]]).merge();
    assert_eq!(signs, [0.0, -0.5, 1.0]);
}
