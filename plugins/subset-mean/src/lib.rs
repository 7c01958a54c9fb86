//! The merge method `subset_mean`: a merge for those who mask it afterwards.

use skillweld_plugin_sdk::{
    Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws, vectorize,
};

export_methods!(merge: [SubsetMean]);

/// τ_i = the mean, by weights w, of the subset S of the τ_k,i for which (Σ_S w τ_k,i)² / Σ_S w is largest.
///
/// A masked policy has of each element either τ_i or nothing, whichever is nearer to its own τ_k,i (a TALL mask of λ = 1 decides so).
/// It then lacks Σ_k w_k min((τ_k,i − τ_i)², τ_k,i²) of its energy, and the value above is the one that makes this least: whoever is
/// served gets the mean, and to serve S instead of nobody gains exactly the quantity that is made largest. A best S is always one of the
/// same sign and of the largest magnitudes in it, so only as many subsets as experts have to be compared.
///
/// With `balance`, w_k = `weight`_k / ‖τ_k‖² over all tensors: an expert that moved little would otherwise be nobody's choice.
pub struct SubsetMean;

impl MergeMethod for SubsetMean {
    fn spec() -> Spec {
        Spec::new("subset_mean", "mean of the task vectors that masks can let see it with least loss")
            .param(
                Param::number("weight")
                    .default(1.0)
                    .at_least(0.0)
                    .per_expert()
                    .describe("how much the expert's loss counts; 0 leaves it out"),
            )
            .param(
                Param::boolean("balance")
                    .default(true)
                    .describe("count each expert's loss as a share of its own task vector"),
            )
            .param(Param::number("lambda").default(1.0).describe("factor of the merged task vector"))
            .task_vectors()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO)
    }

    /// With `balance` ‖τ_k‖² of each expert.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        if params.expert_numbers("weight").iter().all(|&weight| weight == 0.0) {
            return Err("every `weight` is zero: give at least one expert a larger one".into());
        }
        Ok(if params.boolean("balance") { Plan::global([params.experts()]) } else { Plan::default() })
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += sum_of_squares(block.expert(k));
        }
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let weights = relative(block.expert_numbers("weight"), block.totals());
        choose(out, &block.all_experts(), &weights);
        let factor = block.number("lambda") as f32;
        out.iter_mut().for_each(|out| *out *= factor);
        Ok(())
    }
}

/// w_k, the largest of them 1. `energies` is empty where nothing is balanced; an expert without energy has nothing to lose.
fn relative(weights: &[f64], energies: &[f64]) -> Vec<f32> {
    let energy = |k: usize| energies.get(k).copied().unwrap_or(1.0);
    let weights = weights.iter().enumerate();
    let weights: Vec<f64> = weights.map(|(k, w)| if energy(k) > 0.0 { w / energy(k) } else { 0.0 }).collect();
    let largest = weights.iter().copied().fold(0.0, f64::max);
    weights.into_iter().map(|weight| if largest > 0.0 { (weight / largest) as f32 } else { 0.0 }).collect()
}

/// Elements worked on at a time: their sums stay in the first cache.
const TILE: usize = 256;

vectorize! {
    /// In 16 running sums, so that the loop vectorises without reordering.
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0; 16];
        for values in values.chunks(16) {
            for (sum, &x) in sums.iter_mut().zip(values) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        sums.iter().sum()
    }

    /// For each expert as the smallest of a subset: the sums over those of its sign that are no smaller. What is compared is the
    /// root of the gain, |Σ w τ| / √Σ w, which neither overflows nor vanishes.
    fn choose(out: &mut [f32], experts: &[&[f32]], weights: &[f32]) {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let part = tile * TILE..tile * TILE + out.len();
            out.fill(0.0);
            let mut best = [0f32; TILE];
            for (least, _) in experts.iter().zip(weights).filter(|(_, weight)| **weight > 0.0) {
                let least = &least[part.clone()];
                let (mut sums, mut counts) = ([0f32; TILE], [0f32; TILE]);
                for (expert, &weight) in experts.iter().zip(weights) {
                    let sums = sums.iter_mut().zip(&mut counts);
                    for ((sum, count), (&x, &least)) in sums.zip(expert[part.clone()].iter().zip(least)) {
                        let up = (least > 0.0) & (x >= least);
                        let down = (least < 0.0) & (x <= least);
                        let own = if up | down { weight } else { 0.0 };
                        *sum += own * x;
                        *count += own;
                    }
                }
                for ((out, best), (&sum, &count)) in out.iter_mut().zip(&mut best).zip(sums.iter().zip(&counts)) {
                    let (gain, mean) = (sum.abs() / count.sqrt(), sum / count);
                    // Of equal ones the larger, whatever the order of the experts. Nobody of no sign: 0 / 0 is not greater.
                    let better = (gain > *best) | ((gain == *best) & (mean > *out));
                    *best = if better { gain } else { *best };
                    *out = if better { mean } else { *out };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// Over all subsets, in f64: the largest gain, and what every expert of a masked policy lacks at a value.
    fn largest_gain(values: &[f64], weights: &[f64]) -> f64 {
        (1..1usize << values.len())
            .map(|subset| {
                let chosen = (0..values.len()).filter(|k| subset >> k & 1 == 1);
                let (sum, count) =
                    chosen.fold((0.0, 0.0), |(s, c), k| (s + weights[k] * values[k], c + weights[k]));
                if count > 0.0 { sum * sum / count } else { 0.0 }
            })
            .fold(0.0, f64::max)
    }

    fn lacking(value: f64, values: &[f64], weights: &[f64]) -> f64 {
        values.iter().zip(weights).map(|(x, w)| w * ((x - value).powi(2)).min(x * x)).sum()
    }

    fn elements() -> impl Strategy<Value = Vec<[f32; 4]>> {
        proptest::collection::vec(prop::array::uniform4(-2f32..2.0), 1..700)
    }

    proptest! {
        #[test]
        fn no_value_lets_masked_experts_lack_less(
            elements in elements(), weights in prop::array::uniform4(0.1f64..4.0), other in -2f64..2.0, balance: bool,
        ) {
            let experts = [0, 1, 2, 3].map(|k| elements.iter().map(|e| e[k]).collect::<Vec<f32>>());
            let merged = Trial::of::<SubsetMean>()
                .experts(&experts.each_ref().map(Vec::as_slice))
                .per_expert("weight", &weights)
                .set("balance", balance)
                .block_len(96)
                .merge();
            let energy = |k: usize| experts[k].iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            let weights: Vec<f64> =
                (0..4).map(|k| if balance { weights[k] / energy(k) } else { weights[k] }).collect();
            for (element, &merged) in elements.iter().zip(&merged) {
                let values = element.map(f64::from);
                let whole: f64 = values.iter().zip(&weights).map(|(x, w)| w * x * x).sum();
                let least = whole - largest_gain(&values, &weights);
                let found = lacking(merged.into(), &values, &weights);
                // Sums of four products in f32, a root, a quotient, squared.
                let rounding = 64.0 * f64::from(f32::EPSILON) * whole;
                prop_assert!((found - least).abs() <= rounding, "{element:?} {merged}: {found} {least}");
                prop_assert!(lacking(other, &values, &weights) >= found - rounding);
            }
        }
    }

    fn merge(experts: &[&[f32]]) -> Vec<f32> {
        Trial::of::<SubsetMean>().experts(experts).set("balance", false).merge()
    }

    #[test]
    fn near_ones_are_averaged_and_far_ones_left_to_their_masks() {
        // 3 and 4 serve both; 1 beside 4 would spoil it; of 4 and −5 the larger; equal ones: the positive.
        assert_eq!(
            merge(&[&[3.0, 1.0, 4.0, -2.0, 0.0], &[4.0, 4.0, -5.0, 2.0, 0.0]]),
            [3.5, 4.0, -5.0, 2.0, 0.0]
        );
    }

    #[test]
    fn small_numbers_do_not_vanish_and_large_ones_do_not_overflow() {
        for scale in [1e-30f32, 1e30] {
            assert_eq!(merge(&[&[3.0 * scale], &[-4.0 * scale]]), [-4.0 * scale]);
        }
    }

    #[test]
    fn who_moved_little_counts_as_much() {
        let experts: [&[f32]; 2] = [&[0.1, 0.0], &[-0.2, 4.0]];
        assert_eq!(merge(&experts)[0], -0.2);
        let balanced = Trial::of::<SubsetMean>().experts(&experts).merge();
        assert!((balanced[0] - 0.1).abs() < 1e-6, "{balanced:?}");
    }

    #[test]
    fn weights_of_nothing_are_refused() {
        let trial = Trial::of::<SubsetMean>().experts(&[&[1.0], &[2.0]]).per_expert("weight", &[0.0, 0.0]);
        assert!(trial.try_merge_all().unwrap_err().contains("every `weight` is zero"));
    }
}
