//! The merge method `trimmed_mean`. [The author's guide](../../../docs/plugin-guide.md) goes through this file.

use skillweld_plugin_sdk::{
    Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws, vectorize,
};

export_methods!(merge: [TrimmedMean]);

/// τ = λ · mean of the τ_k of each element without its ⌊trim · N⌋ smallest and as many of its largest.
///
/// A statistician's answer to outliers (Yin et al., ICML 2018, arXiv 1803.01498, use it against faulty workers): one expert
/// that moved a weight far does not move the merge. `trim: 0` is the mean and `trim: 0.5` the median.
pub struct TrimmedMean;

impl MergeMethod for TrimmedMean {
    fn spec() -> Spec {
        Spec::new("trimmed_mean", "mean of the task vectors without the extremes of each element")
            .citation("Yin et al., Byzantine-robust distributed learning, ICML 2018, arXiv 1803.01498")
            .param(
                Param::number("trim").default(0.25).range(0.0..=0.5).describe(
                    "share of the experts left out at each end, rounded down; 0.5 gives the median",
                ),
            )
            .param(Param::number("lambda").default(1.0).describe("factor of the merged task vector"))
            .task_vectors()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS)
    }

    /// No passes over the data; for every element of a block room for the experts' values side by side.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(Plan::default().scratch_per_element(params.experts()))
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let rows = block.take_scratch();
        for (k, row) in rows.chunks_exact_mut(block.len().max(1)).enumerate() {
            row.copy_from_slice(block.expert(k));
        }
        sort_elements(rows, block.len(), block.experts());
        let left_out =
            ((block.number("trim") * block.experts() as f64) as usize).min((block.experts() - 1) / 2);
        let kept = left_out..block.experts() - left_out;
        let factor = (block.number("lambda") / kept.len() as f64) as f32;
        mean(out, &rows[kept.start * block.len()..kept.end * block.len()], factor);
        Ok(())
    }
}

vectorize! {
    /// Sorts the values of every element over the rows, smallest first: a network of exchanges, the same for all elements,
    /// so that a vector of them goes through it at once.
    fn sort_elements(rows: &mut [f32], len: usize, experts: usize) {
        for round in 0..experts {
            for k in (round % 2..experts.saturating_sub(1)).step_by(2) {
                let (low, high) = rows[k * len..(k + 2) * len].split_at_mut(len);
                for (low, high) in low.iter_mut().zip(high) {
                    (*low, *high) = if *high < *low { (*high, *low) } else { (*low, *high) };
                }
            }
        }
    }

    fn mean(out: &mut [f32], rows: &[f32], factor: f32) {
        out.fill(0.0);
        for row in rows.chunks_exact(out.len().max(1)) {
            for (out, value) in out.iter_mut().zip(row) {
                *out += value;
            }
        }
        for out in out {
            *out *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// The definition, element by element, in f64.
    fn reference(experts: &[Vec<f32>], trim: f64, lambda: f64) -> Vec<f64> {
        let element = |i: usize| {
            let mut values: Vec<f64> = experts.iter().map(|expert| f64::from(expert[i])).collect();
            values.sort_by(f64::total_cmp);
            let mut kept = &values[..];
            for _ in 0..(trim * values.len() as f64).floor() as usize {
                if let [_, inner @ .., _] = kept
                    && !inner.is_empty()
                {
                    kept = inner;
                }
            }
            lambda * kept.iter().sum::<f64>() / kept.len() as f64
        };
        (0..experts[0].len()).map(element).collect()
    }

    fn experts() -> impl Strategy<Value = Vec<Vec<f32>>> {
        (1usize..8, 1usize..100).prop_flat_map(|(experts, len)| {
            proptest::collection::vec(proptest::collection::vec(-1f32..1.0, len), experts)
        })
    }

    proptest! {
        #[test]
        fn equals_the_reference(experts in experts(), trim in 0.0f64..=0.5, lambda in -2f64..2.0) {
            let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
            let trial = Trial::of::<TrimmedMean>().experts(&slices).set("trim", trim).set("lambda", lambda);
            let merged = trial.block_len(24).merge();
            // At most N sums of values below 1, and a product; each rounds once.
            let bound = (experts.len() + 1) as f64 * f64::from(f32::EPSILON) * lambda.abs().max(1.0);
            for (merged, expected) in merged.iter().zip(reference(&experts, trim, lambda)) {
                prop_assert!((f64::from(*merged) - expected).abs() <= bound, "{merged} {expected}");
            }
        }
    }

    #[test]
    fn an_outlier_does_not_move_it() {
        let trial = |trim: f64| {
            Trial::of::<TrimmedMean>()
                .experts(&[&[1.0, -2.0], &[1.5, -2.0], &[0.5, -2.0], &[1000.0, 2.0]])
                .set("trim", trim)
                .merge()
        };
        assert_eq!(trial(0.25), [1.25, -2.0]);
        assert_eq!(trial(0.0), [250.75, -1.0]);
        assert_eq!(trial(0.5), [1.25, -2.0]);
    }
}
