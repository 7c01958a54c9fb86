//! Every method against a slow one that follows its definition, element by element.

mod breadcrumbs;
mod della;

use proptest::collection::vec;
use proptest::prelude::*;
use skillweld_plugin_sdk::Random;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_task_arithmetic::{DareLinear, DareTies, TaskArithmetic, Ties};

/// Task vectors `[tensor][expert][element]`.
type Tensors = Vec<Vec<Vec<f32>>>;

/// Two tensors, three experts. Few distinct values, so that sums cancel and magnitudes tie; some of any size.
fn tensors() -> impl Strategy<Value = Tensors> {
    let value = prop_oneof![
        3 => (-4i8..=4).prop_map(|x| f32::from(x) / 4.0),
        2 => -1f32..1.0,
        1 => -1e-6f32..1e-6,
    ];
    (1usize..700, 1usize..40).prop_flat_map(move |(first, second)| {
        let tensor = |len| vec(vec(value.clone(), len), 3);
        (tensor(first), tensor(second)).prop_map(|(a, b)| vec![a, b])
    })
}

fn trial_of<M: skillweld_plugin_sdk::export::Exported>(tensors: &Tensors) -> Trial {
    tensors.iter().fold(Trial::of::<M>(), |trial, experts| {
        trial.experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    })
}

/// The `count`-th largest magnitude.
fn threshold(values: &[f32], count: usize) -> f32 {
    let mut sorted: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    if count == 0 { f32::INFINITY } else { sorted[count - 1] }
}

/// Entries at least as large as the `count`-th.
fn keep_largest(values: &[f32], count: usize) -> Vec<f32> {
    let threshold = threshold(values, count);
    values.iter().map(|&x| if x.abs() >= threshold { x } else { 0.0 }).collect()
}

/// Whether each entry is larger than the `count`-th, or as large as it: those each with the chance that makes `count` the
/// mean.
fn about(values: &[f32], count: usize) -> Vec<bool> {
    let threshold = threshold(values, count);
    let larger = values.iter().filter(|x| x.abs() > threshold).count();
    let equal = values.iter().filter(|x| x.abs() == threshold).count();
    let below = (count - larger.min(count)) as f64 / equal as f64 * 2f64.powi(32);
    let all = larger + equal == count;
    let mut numbers = vec![0; values.len()];
    Random::new(0, 0).fill(0, &mut numbers);
    let among = |(&x, number): (&f32, u32)| {
        x.abs() > threshold || (x.abs() == threshold && (all || f64::from(number) < below.floor()))
    };
    values.iter().zip(numbers).map(among).collect()
}

/// Those of [`about`], and zeros.
fn keep_about(values: &[f32], count: usize) -> Vec<f32> {
    let keep = |(&x, keep)| if keep { x } else { 0.0 };
    values.iter().zip(about(values, count)).map(keep).collect()
}

/// The sum of thinned task vectors in element i.
fn sum(values: [f32; 3], rule: &Rule) -> f32 {
    let weighted = weighted(values, rule.weights, rule.factors);
    let total: f32 = rule.weights.iter().map(|&w| w as f32).sum();
    let divisor = if rule.normalize && total.abs() >= 1e-8 { total } else { 1.0 };
    (weighted[0] + weighted[1] + weighted[2]) / divisor * rule.lambda as f32
}

/// What scales the thinned vector back to the norm of the whole one.
fn factor<'a>(whole: impl Iterator<Item = &'a f32>, thinned: impl Iterator<Item = &'a f32>) -> f64 {
    let norm = |sum: f64, x: &f32| sum + f64::from(x.abs());
    let (whole, thinned) = (whole.fold(0.0, norm), thinned.fold(0.0, norm));
    if thinned == 0.0 { 1.0 } else { whole / thinned }
}

struct Rule {
    weights: [f64; 3],
    factors: [f64; 3],
    normalize: bool,
    lambda: f64,
    zero_sum: f32,
}

fn weighted(values: [f32; 3], weights: [f64; 3], factors: [f64; 3]) -> [f32; 3] {
    [0, 1, 2].map(|k| (weights[k] * factors[k]) as f32 * values[k])
}

fn consensus(values: [f32; 3], rule: &Rule) -> f32 {
    let weighted = weighted(values, rule.weights, rule.factors);
    let sum = weighted[0] + weighted[1] + weighted[2];
    let sign = if sum == 0.0 { rule.zero_sum } else { sum.signum() };
    let (mut merged, mut divisor) = (0.0, 0.0);
    for (value, weight) in weighted.into_iter().zip(rule.weights) {
        if value != 0.0 && value.signum() == sign {
            merged += value;
            divisor += weight as f32;
        }
    }
    if rule.normalize && divisor != 0.0 {
        merged /= divisor;
    }
    merged * rule.lambda as f32
}

/// Sum of the signs of the sums: which sign most elements have.
fn majority<'a>(elements: impl Iterator<Item = [f32; 3]> + 'a, weights: [f64; 3], factors: [f64; 3]) -> f32 {
    let sum = |v: [f32; 3]| weighted(v, weights, factors).into_iter().sum::<f32>();
    let votes: i32 = elements.map(sum).map(|s| i32::from(s > 0.0) - i32::from(s < 0.0)).sum();
    votes.signum() as f32
}

fn element(experts: &[Vec<f32>], i: usize) -> [f32; 3] {
    [experts[0][i], experts[1][i], experts[2][i]]
}

fn elements(experts: &[Vec<f32>]) -> impl Iterator<Item = [f32; 3]> + '_ {
    (0..experts[0].len()).map(|i| element(experts, i))
}

fn densities() -> impl Strategy<Value = [f64; 3]> {
    let density = prop_oneof![Just(1.0), Just(0.0), Just(0.2), 0.0f64..1.0];
    [density.clone(), density.clone(), density]
}

fn weights() -> impl Strategy<Value = [f64; 3]> {
    let weight = prop_oneof![3 => Just(1.0), 1 => -0.5f64..2.0];
    [weight.clone(), weight.clone(), weight]
}

proptest! {
    #[test]
    fn ties_within_each_tensor(
        tensors in tensors(), density in densities(), weights in weights(), normalize: bool,
        rescale: bool, positive: bool, lambda in prop_oneof![Just(1.0), 0.1f64..2.0], block_len in 8usize..900,
    ) {
        let merged = trial_of::<Ties>(&tensors)
            .per_expert("density", &density)
            .per_expert("weight", &weights)
            .set("normalize", normalize)
            .set("rescale", rescale)
            .set("lambda", lambda)
            .set("zero_sum", if positive { "auto" } else { "majority" })
            .block_len(block_len)
            .merge_all();
        for (experts, merged) in tensors.iter().zip(merged) {
            let trim = |k: usize| {
                let len = experts[k].len();
                let count = match density[k] {
                    0.0 => 0,
                    density => ((density * len as f64) as usize).max(1),
                };
                keep_about(&experts[k], count)
            };
            let trimmed = [trim(0), trim(1), trim(2)];
            let factors = [0, 1, 2].map(|k| if rescale { factor(experts[k].iter(), trimmed[k].iter()) } else { 1.0 });
            let zero_sum = if positive { 1.0 } else { majority(elements(&trimmed), weights, factors) };
            let rule = Rule { weights, factors, normalize, lambda, zero_sum };
            for (i, merged) in merged.into_iter().enumerate() {
                prop_assert_eq!(merged, consensus(element(&trimmed, i), &rule), "element {}", i);
            }
        }
    }

    #[test]
    fn ties_over_the_whole_task_vector(
        tensors in tensors(), density in densities(), weights in weights(), normalize: bool,
        rescale: bool, block_len in 8usize..900,
    ) {
        let merged = trial_of::<Ties>(&tensors)
            .set("scope", "global")
            .set("rescale", rescale)
            .per_expert("density", &density)
            .per_expert("weight", &weights)
            .set("normalize", normalize)
            .block_len(block_len)
            .merge_all()
            .concat();
        let whole = |k: usize| -> Vec<f32> { tensors.iter().flat_map(|experts| experts[k].clone()).collect() };
        let trim = |k: usize| {
            let all = whole(k);
            let count = match density[k] {
                0.0 => 0,
                1.0 => all.len(),
                density => (density * all.len() as f64) as usize + 1,
            };
            keep_largest(&all, count)
        };
        let trimmed = [trim(0), trim(1), trim(2)];
        let factors = [0, 1, 2].map(|k| if rescale { factor(whole(k).iter(), trimmed[k].iter()) } else { 1.0 });
        let zero_sum = majority(elements(&trimmed), weights, factors);
        let rule = Rule { weights, factors, normalize, lambda: 1.0, zero_sum };
        for (i, merged) in merged.into_iter().enumerate() {
            prop_assert_eq!(merged, consensus(element(&trimmed, i), &rule), "element {}", i);
        }
    }

    #[test]
    fn dare_keeps_elements_whose_number_is_below_the_density(
        tensors in tensors(), density in densities(), weights in weights(), rescale: bool, by_norm: bool,
        seed: u64, normalize: bool, block_len in 8usize..900,
    ) {
        let seed = seed >> 1;
        macro_rules! run {
            ($method:ty) => {
                trial_of::<$method>(&tensors)
                    .per_expert("density", &density)
                    .per_expert("weight", &weights)
                    .set("rescale", rescale)
                    .set("rescale_by", if by_norm { "norm" } else { "density" })
                    .set("normalize", normalize)
                    .seed(seed)
                    .block_len(block_len)
                    .merge_all()
            };
        }
        let (linear, ties) = (run!(DareLinear), run!(DareTies));
        for (t, experts) in tensors.iter().enumerate() {
            let thinned = [0, 1, 2].map(|k| {
                let mut numbers = vec![0; experts[0].len()];
                Random::new(seed + t as u64, k as u32).fill(0, &mut numbers);
                let below = (density[k] * 2f64.powi(32)).floor();
                let keep = |(&x, number)| if density[k] == 1.0 || f64::from(number) < below { x } else { 0.0 };
                experts[k].iter().zip(numbers).map(keep).collect::<Vec<f32>>()
            });
            let factors = [0, 1, 2].map(|k| match (rescale, by_norm, density[k]) {
                (false, _, _) => 1.0,
                (true, true, _) => factor(experts[k].iter(), thinned[k].iter()),
                (true, false, density) => if density > 0.0 { 1.0 / density } else { 1.0 },
            });
            for i in 0..experts[0].len() {
                let weighted = weighted(element(&thinned, i), weights, factors);
                let total: f32 = weights.iter().map(|&w| w as f32).sum();
                let divisor = if normalize && total.abs() >= 1e-8 { total } else { 1.0 };
                prop_assert_eq!(linear[t][i], (weighted[0] + weighted[1] + weighted[2]) / divisor);
                let sign = if weighted[0] + weighted[1] + weighted[2] < 0.0 { -1.0 } else { 1.0 };
                let agrees = weighted.map(|v| v * sign > 0.0);
                let sum = (0..3).fold(0.0, |sum, k| if agrees[k] { sum + weighted[k] } else { sum });
                let share = (0..3).fold(0.0, |sum, k| if agrees[k] { sum + weights[k] as f32 } else { sum });
                prop_assert_eq!(ties[t][i], if normalize && share != 0.0 { sum / share } else { sum });
            }
        }
    }

    #[test]
    fn task_arithmetic_is_the_weighted_sum(tensors in tensors(), weights in weights(), lambda in 0.1f64..2.0) {
        let merged = trial_of::<TaskArithmetic>(&tensors).per_expert("weight", &weights).set("lambda", lambda).merge_all();
        for (experts, merged) in tensors.iter().zip(merged) {
            for (i, merged) in merged.into_iter().enumerate() {
                let sum = (0..3).fold(0.0, |sum, k| sum + weights[k] as f32 * experts[k][i]);
                prop_assert_eq!(merged, sum * lambda as f32);
            }
        }
    }
}

#[test]
fn values_that_mergekit_gives() {
    let (a, b) = ([1.0, -2.0, 3.0, 0.0, 5.0, 1.0, 1.0, 1.0], [-1.0, 1.0, 3.0, 4.0, -5.0, 1.0, -1.0, 0.0]);
    let ties = |wa, wb| Trial::of::<Ties>().experts(&[&a, &b]).per_expert("weight", &[wa, wb]).merge();
    // The divisor is the sum of the agreeing weights, negative ones too; where it is zero there is none.
    assert_eq!(ties(1.0, -1.0), [2.0, -3.0, 3.0, 4.0, 10.0, 1.0, 2.0, 1.0]);
    assert_eq!(ties(1.0, -3.0), [-2.0, 2.5, 3.0, 4.0, -10.0, 1.0, -2.0, 1.0]);
    // Entries that cancel take the sign +.
    assert_eq!(ties(1.0, 1.0)[..2], [1.0, -2.0]);
    // Trimming keeps ⌊density · n⌋, but at least one.
    let ramp: Vec<f32> = (1..=16).map(|x| x as f32 / 16.0).collect();
    let kept = |density: f64| {
        let merged = Trial::of::<Ties>().experts(&[&ramp]).set("density", density).merge();
        merged.iter().filter(|&&x| x != 0.0).count()
    };
    assert_eq!([0.0, 0.01, 0.3, 0.5, 1.0].map(kept), [0, 1, 4, 8, 16]);
}

/// Task vectors of bf16 weights: a fine-tune moves a weight by a few steps of its own, so that few magnitudes occur.
#[test]
fn ties_keeps_its_density_of_bf16_fine_tunes() {
    let mut numbers = vec![0; 3 << 16];
    Random::new(1, 0).fill(0, &mut numbers);
    let bf16 = |x: f32| f32::from_bits((x.to_bits() + 0x8000) & 0xffff_0000);
    let unit = |number: u32| (f64::from(number) / 2f64.powi(32)) as f32 - 0.5;
    let tau: Vec<f32> = numbers
        .as_chunks::<3>()
        .0
        .iter()
        .map(|&[weight, up, down]| {
            let weight = bf16(0.04 * unit(weight));
            bf16(weight + 2e-4 * (unit(up) + unit(down))) - weight
        })
        .collect();
    let count = tau.len() / 5;
    assert!(
        keep_largest(&tau, count).iter().filter(|&&x| x != 0.0).count() > count * 11 / 10,
        "no equals to choose from"
    );
    let kept = |tau: &[f32]| Trial::of::<Ties>().experts(&[tau]).set("density", 0.2).merge();
    let merged = kept(&tau);
    // One standard deviation of the number of equals kept is √(n/4) at most.
    let spread = (tau.len() as f64 / 4.0).sqrt() as usize;
    let found = merged.iter().filter(|&&x| x != 0.0).count();
    assert!(found.abs_diff(count) < 5 * spread, "{found} instead of {count}");
    // The first half is no better off than the second.
    let first = merged[..tau.len() / 2].iter().filter(|&&x| x != 0.0).count();
    assert!((2 * first).abs_diff(found) < 10 * spread, "{first} of {found}");
}

#[test]
fn dare_keeps_about_its_density() {
    let ones = vec![1.0; 1 << 16];
    let trial = || Trial::of::<DareLinear>().experts(&[&ones]).set("density", 0.25);
    let merged = trial().merge();
    let kept = merged.iter().filter(|&&x| x == 4.0).count();
    assert_eq!(merged.iter().filter(|&&x| x == 0.0).count(), merged.len() - kept);
    // One standard deviation of the count is √(n · ¼ · ¾) = 111.
    assert!(kept.abs_diff(1 << 14) < 5 * 111, "{kept}");
    // The norm stays exactly what it was only when told.
    let norm: f64 = trial().set("rescale_by", "norm").merge().into_iter().map(f64::from).sum();
    assert!((norm / ones.len() as f64 - 1.0).abs() < 1e-6, "{norm}");
}
