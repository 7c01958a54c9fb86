//! `magnitude`: the large entries of each expert.

use skillweld_plugin_sdk::trim::{self, AMONG_EQUALS, Scope, Threshold};
use skillweld_plugin_sdk::{
    Block, MaskMethod, Masks, Param, Params, Plan, Result, Spec, laws, pack_bits, vectorize,
};

/// M_k keeps the share `density` of largest |τ_k|, over each tensor or over the whole task vector. Thresholds are exact.
///
/// The baseline that task masks are measured against (Wang et al., arXiv 2405.07813). Of entries that equal the threshold
/// `tensor` keeps as many as the density asks for, chosen at random by their place, and `global` all, as `ties` does:
/// masks of one density and scope keep what `ties` keeps of an expert.
pub struct Magnitude;

impl MaskMethod for Magnitude {
    fn spec() -> Spec {
        Spec::new("magnitude", "keeps the largest entries of each expert's task vector")
            .citation(crate::CITATION)
            .param(
                Param::number("density")
                    .default(0.2)
                    .range(0.0..=1.0)
                    .per_expert()
                    .describe("share of the entries kept, the largest ones"),
            )
            .param(
                Param::choice("scope", &["tensor", "global"])
                    .default("tensor")
                    .describe("over what the threshold is taken"),
            )
            .task_vectors()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(Scope::of(params).plan(trim::sums_len(params.experts())).sample(0, trim::SAMPLE))
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        trim::observe(block, Scope::of(block), pass, sums)
    }

    fn run(block: &Block<'_>, masks: &mut Masks<'_>) -> Result {
        let mut numbers = Vec::new();
        for k in 0..block.experts() {
            let (bits, expert) = (masks.expert(k), block.expert(k));
            match trim::threshold(block, Scope::of(block), k)? {
                None => keep_from(bits, expert, 0.0),
                Some(Threshold { magnitude, equal_below: None }) => keep_from(bits, expert, magnitude),
                Some(Threshold { magnitude, equal_below: Some(below) }) => {
                    if numbers.is_empty() {
                        // By their place alone: all experts take the same.
                        numbers.resize(block.len(), 0);
                        AMONG_EQUALS.fill(block.offset(), &mut numbers);
                    }
                    keep_some(bits, expert, magnitude, &numbers, below);
                }
            }
        }
        Ok(())
    }
}

vectorize! {
    fn keep_from(bits: &mut [u8], expert: &[f32], threshold: f32) {
        for (bits, expert) in bits.chunks_mut(8).zip(expert.chunks(64)) {
            let mut kept = [false; 64];
            for (kept, expert) in kept.iter_mut().zip(expert) {
                *kept = expert.abs() >= threshold;
            }
            pack_bits(&kept[..expert.len()], bits);
        }
    }

    /// As `keep_from`, but of the entries equal to the threshold only those whose number is below `below`.
    fn keep_some(bits: &mut [u8], expert: &[f32], threshold: f32, numbers: &[u32], below: u32) {
        for ((bits, expert), numbers) in bits.chunks_mut(8).zip(expert.chunks(64)).zip(numbers.chunks(64)) {
            let mut kept = [false; 64];
            for ((kept, expert), &number) in kept.iter_mut().zip(expert).zip(numbers) {
                let magnitude = expert.abs();
                *kept = (magnitude > threshold) | ((magnitude == threshold) & (number < below));
            }
            pack_bits(&kept[..expert.len()], bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// ⌊density · n⌋ and at least one, as `ties` counts in a tensor.
    fn wanted(density: f64, len: usize) -> usize {
        ((density * len as f64).floor() as usize).max(1)
    }

    proptest! {
        #[test]
        fn a_tensor_keeps_as_many_as_asked_for_and_none_that_is_smaller_than_one_left_out(
            values in proptest::collection::vec(any::<i16>(), 1..3000), density in 0.01f64..0.99, block_len in 8usize..4000,
        ) {
            // All different: the place breaks ties of the random part.
            let values: Vec<f32> = values.iter().enumerate().map(|(i, &x)| f32::from(x) + i as f32 / 4096.0).collect();
            let mut sorted: Vec<f32> = values.iter().map(|x| x.abs()).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let threshold = sorted[wanted(density, values.len()) - 1];
            prop_assume!(sorted.windows(2).all(|pair| pair[0] != pair[1]));
            let masks = Trial::of::<Magnitude>()
                .experts(&[&values])
                .merged(&values)
                .set("density", density)
                .block_len(block_len)
                .masks();
            for (i, &kept) in masks[0].iter().enumerate() {
                prop_assert_eq!(kept, values[i].abs() >= threshold, "element {}", i);
            }
        }

        #[test]
        fn over_all_tensors_the_threshold_is_that_of_all_entries_together(
            values in proptest::collection::vec(-9i8..=9, 2..1000), cut in 0f64..1.0, density in 0.01f64..0.99,
        ) {
            let values: Vec<f32> = values.iter().copied().map(f32::from).collect();
            let (first, second) = values.split_at((cut * values.len() as f64) as usize);
            let mut sorted: Vec<f32> = values.iter().map(|x| x.abs()).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let threshold = sorted[(density * values.len() as f64).floor() as usize];
            // The trial gives the masks of the first tensor.
            let masks = Trial::of::<Magnitude>()
                .experts(&[first]).merged(first).experts(&[second]).merged(second)
                .set("density", density).set("scope", "global")
                .masks();
            let expected: Vec<bool> = first.iter().map(|x| x.abs() >= threshold).collect();
            prop_assert_eq!(&masks[0], &expected);
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        let masks = |density: f64| {
            Trial::of::<Magnitude>()
                .experts(&[&[0.0, -3.0, 2.0]])
                .merged(&[0.0; 3])
                .set("density", density)
                .masks()
        };
        assert_eq!(masks(1.0), [[true; 3]]);
        assert_eq!(masks(0.0), [[false; 3]]);
        assert_eq!(masks(0.4), [[false, true, false]]);
        assert_eq!(masks(0.7), [[false, true, true]]);
    }

    #[test]
    fn of_many_equal_entries_a_random_share_is_kept() {
        let ones = vec![1.0f32; 40_000];
        let masks = Trial::of::<Magnitude>().experts(&[&ones, &ones]).merged(&ones).masks();
        assert_eq!(masks[0], masks[1]);
        let kept = masks[0].iter().filter(|&&bit| bit).count() as f64;
        // Five standard deviations of a binomial share of 0.2.
        assert!((kept - 8000.0).abs() < 5.0 * (40_000.0f64 * 0.2 * 0.8).sqrt(), "{kept}");
    }
}
