//! `della` and `della_linear`: what a random number says, and the law that follows from it.

use proptest::collection::vec;
use proptest::prelude::*;
use skillweld_plugin_sdk::Random;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_task_arithmetic::{Della, DellaLinear};

use super::{Rule, consensus, element, factor, sum, weights};

/// Rows of one tensor of three experts, `[expert][element]`.
fn experts() -> impl Strategy<Value = (usize, Vec<Vec<f32>>)> {
    let value = prop_oneof![
        3 => (-4i8..=4).prop_map(|x| f32::from(x) / 4.0),
        2 => -1f32..1.0,
        1 => -1e-6f32..1e-6,
    ];
    (1usize..12, 1usize..120).prop_flat_map(move |(rows, row)| {
        vec(vec(value.clone(), rows * row), 3).prop_map(move |experts| (row, experts))
    })
}

/// Density and ε of an expert.
fn shares() -> impl Strategy<Value = (f64, f64)> {
    let share = (0.02f64..0.98, 0f64..1.0)
        .prop_map(|(density, share)| (density, share * 0.99 * density.min(1.0 - density)));
    prop_oneof![1 => Just((1.0, 0.15)), 1 => Just((0.0, 0.15)), 6 => share]
}

/// Whether element i of a row is kept: its number lies below a bound, or names another element that is smaller.
fn keeps(row: &[f32], i: usize, number: u32, (density, epsilon): (f64, f64)) -> bool {
    if density == 1.0 || density == 0.0 {
        return density == 1.0;
    }
    let others: Vec<f32> = row[..i].iter().chain(&row[i + 1..]).map(|x| x.abs()).collect();
    let epsilon = if others.is_empty() { 0.0 } else { epsilon };
    let bound = |chance: f64| (chance * 2f64.powi(32)).floor() as u128;
    let (low, high) = (bound(density - epsilon), bound(density + epsilon));
    let number = u128::from(number);
    if number < low || number >= high {
        return number < low;
    }
    let shift = (others.len() as u64).leading_zeros();
    let place = (number - low) * (((others.len() as u128) << shift) / (high - low));
    let other = others[(place >> shift) as usize];
    let first_half = place % (1 << shift) < 1 << (shift - 1);
    row[i].abs() > other || (row[i].abs() == other && first_half)
}

/// The chance of each element of a row, from its rank among the sorted magnitudes; equal ones share theirs.
fn chances(row: &[f32], density: f64, epsilon: f64) -> Vec<f64> {
    let chance = |x: &f32| {
        let smaller = row.iter().filter(|y| y.abs() < x.abs()).count() as f64;
        let equal = row.iter().filter(|y| y.abs() == x.abs()).count() as f64;
        let share =
            if row.len() > 1 { (smaller + (equal - 1.0) / 2.0) / (row.len() - 1) as f64 } else { 0.5 };
        density - epsilon + 2.0 * epsilon * share
    };
    row.iter().map(chance).collect()
}

proptest! {
    #[test]
    fn numbers_and_rows_decide(
        (row, experts) in experts(), shares in [shares(), shares(), shares()], weights in weights(), seed: u64,
        by in prop_oneof![Just("none"), Just("norm"), Just("density")], normalize: bool, block_len in 8usize..900,
    ) {
        let seed = seed >> 1;
        let rows = experts[0].len() / row;
        macro_rules! run {
            ($method:ty) => {
                Trial::of::<$method>()
                    .experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
                    .shape(&[rows, row])
                    .per_expert("density", &shares.map(|(density, _)| density))
                    .per_expert("epsilon", &shares.map(|(_, epsilon)| epsilon))
                    .per_expert("weight", &weights)
                    .set("rescale", by != "none")
                    .set("rescale_by", if by == "norm" { "norm" } else { "density" })
                    .set("normalize", normalize)
                    .seed(seed)
                    .block_len(block_len)
                    .merge()
            };
        }
        let (linear, ties) = (run!(DellaLinear), run!(Della));
        let thinned = [0, 1, 2].map(|k| {
            let mut numbers = vec![0; experts[k].len()];
            Random::new(seed, k as u32).fill(0, &mut numbers);
            let thin = |i: usize| {
                let values = &experts[k][i / row * row..][..row];
                if keeps(values, i % row, numbers[i], shares[k]) { values[i % row] } else { 0.0 }
            };
            (0..experts[k].len()).map(thin).collect::<Vec<f32>>()
        });
        let factors = [0, 1, 2].map(|k| match by {
            "norm" => factor(experts[k].iter(), thinned[k].iter()),
            _ => 1.0,
        });
        for i in 0..experts[0].len() {
            // By density each element has a factor of its own.
            let own = [0, 1, 2].map(|k| {
                let (density, epsilon) = shares[k];
                let values = &experts[k][i / row * row..][..row];
                match by {
                    "density" if density > 0.0 && density < 1.0 => 1.0 / chances(values, density, epsilon)[i % row],
                    _ => factors[k],
                }
            });
            let rule = Rule { weights, factors: own, normalize, lambda: 1.0, zero_sum: 1.0 };
            let expected = [sum(element(&thinned, i), &rule), consensus(element(&thinned, i), &rule)];
            for (merged, expected) in [linear[i], ties[i]].into_iter().zip(expected) {
                // The chance is rounded in another order; what cancels has been as large as this.
                let size = (0..3).map(|k| (weights[k] * own[k]).abs() as f32 * thinned[k][i].abs()).sum::<f32>();
                let divided = if normalize { 1.0 / weights.iter().map(|w| w.abs() as f32).fold(1.0, f32::min) } else { 1.0 };
                let bound = if by == "density" { 8.0 * f32::EPSILON * size * divided } else { 0.0 };
                prop_assert!((merged - expected).abs() <= bound, "element {}: {} {}", i, merged, expected);
            }
        }
    }
}

/// Merges `rows` copies of one row; gives how often each of its elements is kept, and each two of them.
fn frequencies(row: &[f32], rows: usize, density: f64, epsilon: f64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let len = row.len();
    let merged = Trial::of::<DellaLinear>()
        .experts(&[&row.repeat(rows)])
        .shape(&[rows, len])
        .set("density", density)
        .set("epsilon", epsilon)
        .set("rescale", false)
        .seed(5)
        .merge();
    let mut pairs = vec![vec![0.0; len]; len];
    for row in merged.chunks(len) {
        for i in 0..len {
            for j in 0..len {
                pairs[i][j] += f64::from(u8::from(row[i] != 0.0 && row[j] != 0.0)) / rows as f64;
            }
        }
    }
    ((0..len).map(|i| pairs[i][i]).collect(), pairs)
}

const ROWS: usize = 100_000;

/// Five standard deviations of a frequency among [`ROWS`].
fn spread(chance: f64) -> f64 {
    5.0 * (chance * (1.0 - chance) / ROWS as f64).sqrt()
}

/// The frequencies that mergekit 0.1.5 has over 200 000 rows, by rank.
#[test]
fn the_law_is_mergekits() {
    let cases: [(f64, f64, &[f64]); 4] = [
        (0.5, 0.1, &[0.398, 0.5994]),
        (0.5, 0.2, &[0.3003, 0.4001, 0.5006, 0.6001, 0.6997]),
        (0.3, 0.2, &[0.1005, 0.1569, 0.2143, 0.2719, 0.3283, 0.384, 0.4427, 0.5006]),
        (0.7, 0.05, &[0.6499, 0.6622, 0.6745, 0.6872, 0.6998, 0.7121, 0.7239, 0.7372, 0.7494]),
    ];
    for (density, epsilon, theirs) in cases {
        let len = theirs.len();
        // Ranks in another order than places.
        let step = if len == 5 { 3 } else { 5 };
        let rank = |i: usize| if len == 2 { 1 - i } else { i * step % len };
        let row: Vec<f32> =
            (0..len).map(|i| (rank(i) + 1) as f32 * if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let (ours, pairs) = frequencies(&row, ROWS, density, epsilon);
        let chances = chances(&row, density, epsilon);
        for i in 0..len {
            assert!((ours[i] - chances[i]).abs() < spread(chances[i]), "rank {}: {}", rank(i), ours[i]);
            // Theirs have a spread of their own.
            let bound = 2.0 * spread(chances[i]);
            assert!(
                (ours[i] - theirs[rank(i)]).abs() < bound,
                "rank {}: {} {}",
                rank(i),
                ours[i],
                theirs[rank(i)]
            );
            for j in (0..len).filter(|&j| j != i) {
                let both = chances[i] * chances[j];
                assert!((pairs[i][j] - both).abs() < spread(both), "elements {i} and {j}: {}", pairs[i][j]);
            }
        }
    }
}

#[test]
fn equal_entries_have_equal_chances() {
    let row = [1.0, -1.0, 1.0, 2.0, -3.0, 3.0];
    let (ours, _) = frequencies(&row, ROWS, 0.6, 0.3);
    for (i, (ours, chance)) in ours.into_iter().zip(chances(&row, 0.6, 0.3)).enumerate() {
        assert!((ours - chance).abs() < spread(chance), "element {i}: {ours} {chance}");
    }
}

/// A vector is one row, an entry by itself has the chance of the density, and what lies under one index of the first axis
/// is one row whatever its axes.
#[test]
fn rows_of_other_tensors() {
    let ramp: Vec<f32> = (0..ROWS).map(|i| (i + 1) as f32).collect();
    let trial = |values: &[f32]| {
        let trial = Trial::of::<DellaLinear>().experts(&[values]).set("density", 0.5).set("epsilon", 0.4);
        trial.set("rescale", false).seed(3)
    };
    let kept = |merged: &[f32]| merged.iter().filter(|&&x| x != 0.0).count() as f64 / merged.len() as f64;
    let vector = trial(&ramp).merge();
    let tenth = ROWS / 10;
    // Of the smallest tenth 0.1 to 0.18 are kept, of the largest 0.82 to 0.9.
    assert!((kept(&vector[..tenth]) - 0.14).abs() < spread(0.14) * 10f64.sqrt());
    assert!((kept(&vector[9 * tenth..]) - 0.86).abs() < spread(0.14) * 10f64.sqrt());
    let single = trial(&ramp).shape(&[ROWS, 1]).merge();
    assert!((kept(&single[..tenth]) - 0.5).abs() < spread(0.5) * 10f64.sqrt());
    let [matrix, cube] = [&[1000, 100][..], &[1000, 10, 10]].map(|shape| trial(&ramp).shape(shape).merge());
    assert_eq!(matrix, cube);
    assert!(matrix != vector && kept(&matrix[..1000]) > 0.4, "rows of a matrix are ranked by themselves");
}

#[test]
fn norms_stay_or_chances_make_up() {
    let row: Vec<f32> = (1..=64).map(|i| i as f32 / 64.0).collect();
    let values = row.repeat(2000);
    let trial = || {
        let trial = Trial::of::<DellaLinear>().experts(&[&values]).shape(&[2000, 64]).seed(1);
        trial.set("density", 0.4).set("epsilon", 0.3)
    };
    let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x.abs())).sum::<f64>();
    // By default each tensor keeps its norm, as in mergekit.
    assert!((sum(&trial().merge()) / sum(&values) - 1.0).abs() < 1e-6);
    // By density each element keeps its mean.
    let merged = trial().set("rescale_by", "density").merge();
    for (i, &value) in row.iter().enumerate() {
        let mean = merged.iter().skip(i).step_by(64).map(|&x| f64::from(x)).sum::<f64>() / 2000.0;
        let chance = 0.1 + 0.6 * i as f64 / 63.0;
        // One standard deviation of the mean of x / p with chance p is x √((1 − p) / p / n).
        let bound = 5.0 * f64::from(value) * ((1.0 - chance) / chance / 2000.0).sqrt();
        assert!((mean - f64::from(value)).abs() < bound, "element {i}: {mean} {value}");
    }
}

#[test]
fn chances_beyond_one_are_refused() {
    for (density, epsilon) in [(0.9, 0.15), (0.1, 0.15), (0.85, 0.15), (0.5, 0.5)] {
        let trial =
            Trial::of::<Della>().experts(&[&[1.0, 2.0]]).set("density", density).set("epsilon", epsilon);
        let message = trial.try_merge_all().unwrap_err();
        assert!(
            message.contains("expert 0: density") && message.contains("choose an epsilon below"),
            "{message}"
        );
    }
}
