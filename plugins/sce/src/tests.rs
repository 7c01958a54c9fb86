use proptest::collection::vec;
use proptest::prelude::*;
use skillweld_plugin_sdk::Random;
use skillweld_plugin_sdk::trial::Trial;

use super::Sce;

/// Task vectors `[expert][element]`: few distinct values, so that variances tie and sums cancel, and some of any size.
fn experts() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let value = prop_oneof![
        3 => (-4i8..=4).prop_map(|x| f32::from(x) / 4.0),
        2 => -1f32..1.0,
        1 => -1e-4f32..1e-4,
    ];
    (1usize..1200, 1usize..5).prop_flat_map(move |(len, count)| vec(vec(value.clone(), len), count))
}

/// N² times the variance, element by element.
fn spread(values: &[f32]) -> f32 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for value in values {
        let distance = value - values[0];
        sum += distance;
        squares += distance * distance;
    }
    values.len() as f32 * squares - sum * sum
}

/// Whether each element is among the ⌊share · n⌋ of largest spread, n counting those that are not zero.
fn selected(spreads: &[f32], share: f64) -> Vec<bool> {
    if share == 1.0 {
        return vec![true; spreads.len()];
    }
    let mut sorted: Vec<f32> = spreads.iter().copied().filter(|&x| x != 0.0).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let count = (share * sorted.len() as f64).floor() as usize;
    if count == 0 {
        return vec![false; spreads.len()];
    }
    let threshold = sorted[count - 1];
    let larger = sorted.iter().filter(|&&x| x > threshold).count();
    let equal = sorted.iter().filter(|&&x| x == threshold).count();
    let below = ((count - larger) as f64 / equal as f64 * 2f64.powi(32)).floor();
    let mut numbers = vec![0; spreads.len()];
    Random::new(0, 0).fill(0, &mut numbers);
    let keep = |(&x, number): (&f32, u32)| x > threshold || (x == threshold && f64::from(number) < below);
    spreads.iter().zip(numbers).map(keep).collect()
}

fn reference(experts: &[Vec<f32>], share: f64, epsilon: f64) -> Vec<f64> {
    let element = |i: usize| experts.iter().map(|expert| expert[i]).collect::<Vec<f32>>();
    let len = experts[0].len();
    let kept = selected(&(0..len).map(|i| spread(&element(i))).collect::<Vec<_>>(), share);
    let energy = |expert: &Vec<f32>| {
        let squares = expert.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(x, _)| f64::from(*x).powi(2));
        squares.sum::<f64>() / len as f64
    };
    let energies: Vec<f64> = experts.iter().map(energy).collect();
    let total: f64 = energies.iter().sum();
    let equal = total == 0.0 || total < epsilon;
    let coefficient = |k: usize| if equal { 1.0 / experts.len() as f64 } else { energies[k] / total };
    let merge = |i: usize| {
        let values = element(i);
        let sign = if values.iter().sum::<f32>() < 0.0 { -1.0 } else { 1.0 };
        let agrees: Vec<usize> = (0..values.len()).filter(|&k| kept[i] && values[k] * sign > 0.0).collect();
        let sum: f64 = agrees.iter().map(|&k| coefficient(k) * f64::from(values[k])).sum();
        let divisor: f64 = agrees.iter().map(|&k| coefficient(k)).sum();
        if divisor.max(epsilon) == 0.0 { sum } else { sum / divisor.max(epsilon) }
    };
    (0..len).map(merge).collect()
}

proptest! {
    #[test]
    fn equals_the_definition(
        experts in experts(),
        share in prop_oneof![Just(1.0), Just(0.0), Just(0.5), 0f64..1.0],
        epsilon in prop_oneof![Just(1e-6), Just(0.0), Just(0.3)],
    ) {
        let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
        let merged = Trial::of::<Sce>()
            .experts(&slices)
            .set("select_topk", share)
            .set("epsilon", epsilon)
            .block_len(96)
            .merge();
        for (i, (&merged, expected)) in merged.iter().zip(reference(&experts, share, epsilon)).enumerate() {
            // What is added up has one sign; each of some ten roundings is half of f32's ε, or 1e-45 where that is less.
            let bound = 8.0 * f64::from(f32::EPSILON) * expected.abs() + 1e-38;
            prop_assert!((f64::from(merged) - expected).abs() <= bound, "element {}: {} {}", i, merged, expected);
        }
    }
}

/// Numbers that mergekit 0.1.5 printed.
#[test]
fn values_that_mergekit_gives() {
    let sce = |experts: &[&[f32]]| Trial::of::<Sce>().experts(experts);
    let close = |merged: &[f32], expected: &[f32]| {
        assert!(
            merged.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()),
            "{merged:?} {expected:?}"
        );
    };
    // Coefficients by energy; of opposite signs the larger side; + where they cancel.
    close(
        &sce(&[&[1.0, 2.0, 1.0, 0.0], &[2.0, 3.0, -1.0, 1.0]]).merge(),
        &[1.714_285_7, 2.714_285_6, 1.0, 1.0],
    );
    close(&sce(&[&[1.0, -1.0, 2.0, 0.0], &[-1.0, 1.0, -2.0, 1.0]]).merge(), &[1.0, 1.0, 2.0, 1.0]);
    // Task vectors as small as this all weigh the same, unless the paper is followed.
    let small = [&[1e-4, 2e-4, 1e-4, 0.0][..], &[2e-4, 3e-4, -1e-4, 1e-4]];
    close(&sce(&small).merge(), &[1.5e-4, 2.5e-4, 1e-4, 1e-4]);
    close(&sce(&small).set("epsilon", 0.0).merge(), &[1.714_285_7e-4, 2.714_285_6e-4, 1e-4, 1e-4]);
    // The divisor is no less than 1e-6, however small the coefficients.
    close(&sce(&[&[1.0, 1.0, 1.0, 0.0], &[0.0, 0.0, 0.0, 1e-4]]).merge(), &[1.0, 1.0, 1.0, 3.333_333_3e-7]);
    // One expert has no variance to select by.
    let one = [&[1.0, -1.0, 2.0, 0.0][..]];
    assert_eq!(sce(&one).merge(), [1.0, -1.0, 2.0, 0.0]);
    assert_eq!(sce(&one).set("select_topk", 0.5).merge(), [0.0; 4]);
    // Zero variances do not count: of the three that are not zero, half is one.
    let some = [&[1.0, 2.0, 3.0, 4.0, 4.0, 4.0][..], &[0.0, 0.0, 0.0, 4.0, 4.0, 4.0]];
    assert_eq!(sce(&some).set("select_topk", 0.5).merge(), [0.0, 0.0, 3.0, 0.0, 0.0, 0.0]);
}
