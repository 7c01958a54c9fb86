//! `arcee_fusion`: takes over the entries whose change stands out.

use skillweld_plugin_sdk::{Block, MergeMethod, Params, Plan, Result, Spec, laws, vectorize};

/// Added to probabilities that are divided by and whose logarithm is taken.
const EPS: f64 = 1e-8;

/// The expert's entries whose importance is at least s₍½₎ + 1.5 (s₍¾₎ − s₍¼₎), the base's elsewhere.
///
/// The importance of entry i in row r (a vector along the last axis) is s = |τ_ri| · KL_r, with
///
/// ```text
/// KL_r = Σ_i (p_i + ε) ln((p_i + ε)/(q_i + ε)),  p = softmax(row r of the expert),  q = softmax(row r of the base)
/// ```
///
/// and ε = 10⁻⁸. s₍f₎ is the entry at place ⌊f (n−1)⌋ among the sorted importances of the whole tensor: no interpolation.
/// Tensors of one dimension are one row.
///
/// mergekit computes KL_r in f32. Where expert and base are close, as fine-tuned models are, KL_r is smaller than the
/// rounding of the probabilities it is made of, and which rows count there is chance: of models with entries of size 0.02
/// and changes a hundredth of that, every second entry differs. Here KL_r is computed in f64.
pub struct ArceeFusion;

impl MergeMethod for ArceeFusion {
    fn spec() -> Spec {
        Spec::new("arcee_fusion", "takes over the entries whose change stands out, by row and size")
            .citation("Arcee AI, Meet Mergekit v0.1: Arcee Fusion, 2025, https://www.arcee.ai/blog/meet-mergekit-v0-1-arcee-fusion-expanded-model-support-multi-gpu-acceleration")
            .task_vectors()
            .needs_base()
            .experts(1..=1)
            .laws(laws::ZERO | laws::SIGN_AGREEMENT)
            .propagates_non_finite()
    }

    fn plan(_: &Params<'_>) -> Result<Plan> {
        Ok(Plan::default().whole().scratch_per_element(1))
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        if block.is_empty() {
            return Ok(());
        }
        let (task_vector, base, scores) = (block.expert(0), block.base(), block.take_scratch());
        let len = block.shape().last().map_or(1, |&len| len as usize);
        let mut rows = Rows::new(len);
        for (r, scores) in scores.chunks_mut(len).enumerate() {
            block.check_cancelled()?;
            let row = r * len..(r + 1) * len;
            let divergence = rows.divergence(&base[row.clone()], &task_vector[row.clone()]);
            weigh(scores, &task_vector[row], divergence as f32);
        }
        // The output is free until the end: scores are sorted in it.
        out.copy_from_slice(scores);
        let threshold = threshold(out);
        take_over(out, task_vector, scores, threshold as f32);
        Ok(())
    }
}

/// Two rows of probabilities.
struct Rows {
    expert: Vec<f64>,
    base: Vec<f64>,
}

impl Rows {
    fn new(len: usize) -> Self {
        Self { expert: vec![0.0; len], base: vec![0.0; len] }
    }

    /// KL of one row.
    fn divergence(&mut self, base: &[f32], task_vector: &[f32]) -> f64 {
        for (((p, q), base), tau) in self.expert.iter_mut().zip(&mut self.base).zip(base).zip(task_vector) {
            (*p, *q) = (f64::from(*base) + f64::from(*tau), f64::from(*base));
        }
        softmax(&mut self.expert);
        softmax(&mut self.base);
        let term = |(p, q): (&f64, &f64)| (p + EPS) * ((p + EPS) / (q + EPS)).ln();
        let sum: f64 = self.expert.iter().zip(&self.base).map(term).sum();
        // Both sum to the same, so this is no less than zero but for rounding.
        if sum < 0.0 { 0.0 } else { sum }
    }
}

fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// From which importance on entries are taken over; `scores` come back in another order. A NaN is larger than everything.
fn threshold(scores: &mut [f32]) -> f64 {
    let last = scores.len() - 1;
    let mut at = |place| f64::from(*scores.select_nth_unstable_by(place, f32::total_cmp).1);
    let (low, median, high) = (at(last / 4), at(last / 2), at(last * 3 / 4));
    median + 1.5 * (high - low)
}

vectorize! {
    /// The sign of a NaN must not decide where it is sorted.
    fn weigh(scores: &mut [f32], task_vector: &[f32], divergence: f32) {
        for (score, tau) in scores.iter_mut().zip(task_vector) {
            *score = (tau * divergence).abs();
        }
    }

    /// What is no number is not below the threshold: it stays visible.
    fn take_over(out: &mut [f32], task_vector: &[f32], scores: &[f32], threshold: f32) {
        for ((out, tau), score) in out.iter_mut().zip(task_vector).zip(scores) {
            *out = if *score < threshold { 0.0 } else { *tau };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// Importances and their threshold, row by row and sorted.
    fn reference(base: &[f32], task_vector: &[f32], len: usize) -> (Vec<f64>, f64) {
        let mut scores = Vec::new();
        for (base, tau) in base.chunks(len).zip(task_vector.chunks(len)) {
            let expert: Vec<f64> = base.iter().zip(tau).map(|(b, t)| f64::from(*b) + f64::from(*t)).collect();
            let base: Vec<f64> = base.iter().map(|&b| f64::from(b)).collect();
            let probability =
                |row: &[f64], i: usize| row[i].exp() / row.iter().map(|x| x.exp()).sum::<f64>() + 1e-8;
            let (p, q) = (|i| probability(&expert, i), |i| probability(&base, i));
            let divergence: f64 = (0..tau.len()).map(|i| p(i) * (p(i) / q(i)).ln()).sum();
            scores.extend(tau.iter().map(|&t| f64::from(t).abs() * divergence));
        }
        let mut sorted = scores.clone();
        sorted.sort_by(f64::total_cmp);
        let quantile = |f: f64| sorted[(f * (sorted.len() - 1) as f64).floor() as usize];
        (scores, quantile(0.5) + 1.5 * (quantile(0.75) - quantile(0.25)))
    }

    fn fuse(base: &[f32], task_vector: &[f32], shape: &[usize]) -> Vec<f32> {
        Trial::of::<ArceeFusion>().experts(&[task_vector]).base(base).shape(shape).merge()
    }

    proptest! {
        #[test]
        fn takes_over_what_stands_out(
            rows in 1..6usize,
            elements in proptest::collection::vec((-3f32..3.0, -3f32..3.0), 6..120),
        ) {
            let len = elements.len() / rows;
            let (base, task_vector): (Vec<f32>, Vec<f32>) = elements.into_iter().take(rows * len).unzip();
            let (scores, threshold) = reference(&base, &task_vector, len);
            let fused = fuse(&base, &task_vector, &[rows, len]);
            for ((fused, tau), score) in fused.into_iter().zip(task_vector).zip(scores) {
                // Importances are kept in f32.
                if (score - threshold).abs() > 4.0 * f64::from(f32::EPSILON) * threshold.abs() + 1e-14 {
                    prop_assert_eq!(fused, if score >= threshold { tau } else { 0.0 });
                }
            }
        }
    }

    /// As mergekit 0.1.5.
    #[test]
    fn known_values() {
        // Equal importances are all taken over, the zeros of a row that softmax does not see among them.
        assert_eq!(fuse(&[0.0; 4], &[1.0; 4], &[4]), [1.0; 4]);
        assert_eq!(fuse(&[0.0, 1.0], &[1.0, -1.0], &[2]), [1.0, -1.0]);
        assert_eq!(fuse(&[0.5], &[2.0], &[]), [2.0]);
        let mut one = [0.0; 8];
        one[0] = 1.0;
        assert_eq!(fuse(&[0.0; 8], &one, &[8]), one);
    }

    #[test]
    fn what_is_not_finite_stays_visible() {
        let mut task_vector = [0.125, -0.25, 0.5, 1.0, 0.25, 0.5, -1.0, 0.125];
        for bad in [f32::NAN, f32::INFINITY] {
            task_vector[5] = bad;
            assert!(!fuse(&[0.5; 8], &task_vector, &[2, 4])[5].is_finite());
        }
    }
}
