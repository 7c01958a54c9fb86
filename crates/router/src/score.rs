use ndarray::{ArrayView2, Axis};

/// Score of one task: the mean over all its subspaces P of (mean over tokens ‖P h‖₂), so ½ (mean ‖P_a h_a‖ + mean
/// ‖P_t h_t‖) with one pair.
///
/// `subspaces` are pairs \[P_a, P_t\], rank × d each, of the projections of action-query tokens and of task tokens: the
/// values' (MergeVLA), the keys', or both pairs. `adapter_hidden` are the hidden states of the action-query tokens (without
/// the proprio token), `task_hidden` those of the task tokens, tokens × d, both at the depth that feeds the first block of
/// the expert head, from a forward under the task's own mask. Norms are summed in f64. A score is never negative; it is NaN
/// when a hidden state is, or when there is no subspace.
///
/// # Panics
/// When a subspace and its hidden states differ in d, or there are no tokens: whoever opens a checkpoint checks that.
pub fn score(
    subspaces: &[[ArrayView2<'_, f32>; 2]],
    adapter_hidden: &ArrayView2<'_, f32>,
    task_hidden: &ArrayView2<'_, f32>,
) -> f32 {
    let sums = subspaces.iter().map(|[adapter, task]| {
        mean_projected_norm(adapter, adapter_hidden) + mean_projected_norm(task, task_hidden)
    });
    (sums.sum::<f64>() / (2 * subspaces.len()) as f64) as f32
}

/// Mean over the rows h of `hidden` of ‖P h‖₂.
fn mean_projected_norm(subspace: &ArrayView2<'_, f32>, hidden: &ArrayView2<'_, f32>) -> f64 {
    assert!(hidden.nrows() > 0, "no tokens to score");
    let projected = hidden.dot(&subspace.t());
    let norm =
        |row: ndarray::ArrayView1<'_, f32>| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    projected.axis_iter(Axis(0)).map(norm).sum::<f64>() / hidden.nrows() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    /// One number at a time, in f64.
    fn reference(subspace: &Array2<f32>, hidden: &Array2<f32>) -> f64 {
        let mut sum = 0.0;
        for h in hidden.rows() {
            let mut square = 0.0;
            for p in subspace.rows() {
                let dot: f64 = p.iter().zip(h).map(|(p, h)| f64::from(*p) * f64::from(*h)).sum();
                square += dot * dot;
            }
            sum += square.sqrt();
        }
        sum / hidden.nrows() as f64
    }

    fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Array2<f32>> {
        proptest::collection::vec(-2.0f32..2.0, rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    }

    proptest! {
        #[test]
        fn score_equals_the_reference((pairs, ha, ht) in (1usize..4, 4usize..20, 1usize..3).prop_flat_map(|(rank, d, pairs)| {
            (proptest::collection::vec((matrix(rank, d), matrix(rank, d)), pairs), matrix(5, d), matrix(9, d))
        })) {
            let mut norms = Vec::new();
            for (pa, pt) in &pairs {
                norms.extend([reference(pa, &ha), reference(pt, &ht)]);
            }
            let expected = norms.iter().sum::<f64>() / norms.len() as f64;
            let views: Vec<_> = pairs.iter().map(|(pa, pt)| [pa.view(), pt.view()]).collect();
            let found = f64::from(score(&views, &ha.view(), &ht.view()));
            // f32 dot products of at most 20 terms below 4 each, two roundings a term.
            prop_assert!((found - expected).abs() <= 1e-5 * expected.max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn only_what_lies_in_the_subspace_counts() {
        let subspace = array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let inside = array![[3.0, 4.0, 7.0]];
        let outside = array![[0.0, 0.0, 7.0]];
        let pair = [subspace.view(), subspace.view()];
        assert_eq!(score(&[pair], &inside.view(), &outside.view()), 2.5);
    }
}
