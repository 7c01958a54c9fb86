//! `regmean`: the linear layer that answers all experts' inputs most like the experts.

use skillweld_plugin_sdk::linalg::ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};
use skillweld_plugin_sdk::linalg::solve_positive_definite;
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, laws};

/// τ = (Σ τ_k G̃_k) (Σ G̃_k)⁻¹ minimises Σ_k ‖(τ − τ_k) X_k‖² for inputs X_k, of which G_k = X_k X_kᵀ is all that is needed.
/// G̃_k is G_k with its off-diagonal entries times `reduce_non_diag`, as the paper regularises.
///
/// A key's weights are m × n (outputs × inputs) and its statistics n × n, a sum or a mean over samples; means weigh all
/// experts alike. An input that no expert ever sees (a zero on every diagonal) takes the plain mean of its column, where
/// the published code inverts a singular matrix. Everything is f64. Keys without statistics, and those that are no
/// matrices, are averaged by the host, as in the paper.
pub struct RegMean;

impl MergeMethod for RegMean {
    fn spec() -> Spec {
        Spec::new("regmean", "linear layers closest to the experts' on the experts' inputs")
            .citation("Jin et al., Dataless knowledge fusion by merging weights of language models, ICLR 2023, arXiv 2212.09849")
            .param(
                Param::number("reduce_non_diag")
                    .default(0.9)
                    .range(0.0..=1.0)
                    .describe("factor of the Gram matrices' off-diagonal entries; 0 weighs each input by itself"),
            )
            .task_vectors()
            .matrix()
            .needs_statistics()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::LINEAR | laws::HOMOGENEOUS)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let &[m, n] = block.shape() else { return Err("regmean merges matrices alone".into()) };
        let (m, n) = (m as usize, n as usize);
        let reduce = block.number("reduce_non_diag");
        let mut sum = Array2::zeros((n, n));
        let mut weighed = Array2::zeros((m, n));
        let mut mean = Array2::zeros((m, n));
        for k in 0..block.experts() {
            block.check_cancelled()?;
            let gram = view(block.statistics(k)?, (n, n))?;
            check_gram(&gram, k, block.experts())?;
            let gram = Array2::from_shape_fn((n, n), |(i, j)| {
                f64::from(gram[[i, j]]) * if i == j { 1.0 } else { reduce }
            });
            let expert = view(block.expert(k), (m, n))?.mapv(f64::from);
            weighed += &expert.dot(&gram);
            sum += &gram;
            mean += &expert;
        }
        mean /= block.experts() as f64;
        let unseen: Vec<usize> = (0..n).filter(|&j| sum[[j, j]] == 0.0).collect();
        for j in unseen {
            sum.row_mut(j).fill(0.0);
            sum.column_mut(j).fill(0.0);
            sum[[j, j]] = 1.0;
            weighed.column_mut(j).assign(&mean.column(j));
        }
        block.check_cancelled()?;
        // (Σ G̃) is symmetric, so the transposed system has the transposed answer.
        let merged = solve_positive_definite(&sum.view(), &weighed.t()).map_err(|_| {
            let remedy =
                if reduce < 1.0 { "lower `reduce_non_diag`" } else { "set `reduce_non_diag` below 1" };
            format!("the sum of the Gram matrices is singular: {remedy}, or measure on more inputs")
        })?;
        let mut out = ArrayViewMut2::from_shape((m, n), out).map_err(|e| e.to_string())?;
        Zip::from(&mut out).and(merged.t()).for_each(|out, &x| *out = x as f32);
        Ok(())
    }
}

fn view(values: &[f32], shape: (usize, usize)) -> Result<ArrayView2<'_, f32>> {
    Ok(ArrayView2::from_shape(shape, values).map_err(|e| e.to_string())?)
}

/// Part of the geometric mean of two diagonal entries by which rounding to bf16 may break a law of Gram matrices.
const SLACK: f64 = 0.02;

/// Refuses what cannot be X Xᵀ: a negative diagonal, or an entry that is not its mirror image or larger than Cauchy and
/// Schwarz allow.
fn check_gram(gram: &ArrayView2<'_, f32>, k: usize, experts: usize) -> Result {
    let at = |i: usize, j: usize| f64::from(gram[[i, j]]);
    let refuse = |i: usize, j: usize, problem: &str| {
        Err(format!(
            "the statistics of expert {} of {experts} are no Gram matrix of inputs: entry [{i}, {j}] is {}, {problem}",
            k + 1,
            gram[[i, j]]
        )
        .into())
    };
    for i in 0..gram.nrows() {
        if at(i, i) < 0.0 {
            return refuse(i, i, "and a sum of squares is not negative");
        }
        for j in 0..i {
            let most = (at(i, i) * at(j, j)).sqrt();
            if (at(i, j) - at(j, i)).abs() > SLACK * most {
                return refuse(i, j, &format!("its mirror image {}", gram[[j, i]]));
            }
            if at(i, j).abs() > (1.0 + SLACK) * most {
                return refuse(i, j, "more than its diagonal allows");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    /// X Xᵀ for inputs given one after the other.
    fn gram(inputs: &[f32], n: usize) -> Vec<f32> {
        let entry = |i: usize| inputs.chunks_exact(n).map(|x| x[i / n] * x[i % n]).sum();
        (0..n * n).map(entry).collect()
    }

    /// Gauss–Jordan elimination on one row of the answer at a time: x Σ G̃ = Σ τ_k G̃_k.
    fn reference(experts: &[Vec<f32>], grams: &[Vec<f32>], n: usize, reduce: f64) -> Vec<f64> {
        let scaled = |g: &[f32], i: usize| f64::from(g[i]) * if i / n == i % n { 1.0 } else { reduce };
        let rows = experts[0].len() / n;
        let mut out = Vec::new();
        for row in 0..rows {
            let mut system: Vec<Vec<f64>> = (0..n)
                .map(|i| {
                    let mut line: Vec<f64> =
                        (0..n).map(|j| grams.iter().map(|g| scaled(g, j * n + i)).sum()).collect();
                    let right = |(e, g): (&Vec<f32>, &Vec<f32>)| -> f64 {
                        (0..n).map(|j| f64::from(e[row * n + j]) * scaled(g, j * n + i)).sum()
                    };
                    line.push(experts.iter().zip(grams).map(right).sum());
                    line
                })
                .collect();
            for i in 0..n {
                let pivot =
                    (i..n).max_by(|&a, &b| system[a][i].abs().total_cmp(&system[b][i].abs())).unwrap();
                system.swap(i, pivot);
                let line = system[i].clone();
                for other in (0..n).filter(|&other| other != i) {
                    let factor = system[other][i] / line[i];
                    system[other].iter_mut().zip(&line).for_each(|(x, pivot)| *x -= factor * pivot);
                }
            }
            out.extend((0..n).map(|i| system[i][n] / system[i][i]));
        }
        out
    }

    proptest! {
        #[test]
        fn equals_elimination_row_by_row(
            (n, inputs, experts) in (1usize..7, 1usize..5).prop_flat_map(|(n, m)| {
                (Just(n), vec(vec(-2f32..2.0, 2 * n * n), 3), vec(vec(-1f32..1.0, m * n), 3))
            }),
            reduce in 0.0f64..=1.0,
        ) {
            let grams: Vec<Vec<f32>> = inputs.iter().map(|inputs| gram(inputs, n)).collect();
            let merged = Trial::of::<RegMean>()
                .experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
                .shape(&[experts[0].len() / n, n])
                .statistics(&grams.iter().map(Vec::as_slice).collect::<Vec<_>>())
                .set("reduce_non_diag", reduce)
                .merge();
            for (merged, expected) in merged.iter().zip(reference(&experts, &grams, n, reduce)) {
                // Rounded once; what f64 loses to an ill-conditioned sum of random Gram matrices is far less than f32's ε.
                prop_assert!((f64::from(*merged) - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{merged} {expected}");
            }
        }
    }

    fn trial() -> Trial {
        Trial::of::<RegMean>().experts(&[&[1.0, 1.0], &[3.0, 5.0]]).shape(&[1, 2])
    }

    #[test]
    fn known_values() {
        // Diagonal: each input is weighed by itself, three to one for the second expert in the first.
        let diagonal = trial().statistics(&[&[1.0, 0.0, 0.0, 2.0], &[3.0, 0.0, 0.0, 2.0]]).merge();
        assert_eq!(diagonal, [2.5, 3.0]);
        // Nobody ever saw the second input.
        let dead = trial().statistics(&[&[1.0, 0.0, 0.0, 0.0], &[1.0, 0.0, 0.0, 0.0]]).merge();
        assert_eq!(dead, [2.0, 3.0]);
        // [1 1] [2 1; 1 2] + [3 5] [2 −1; −1 2] = [4 10], times (4 I)⁻¹.
        let trial = || trial().set("reduce_non_diag", 1.0);
        let full = trial().statistics(&[&[2.0, 1.0, 1.0, 2.0], &[2.0, -1.0, -1.0, 2.0]]).merge();
        assert_eq!(full, [1.0, 2.5]);
    }

    #[test]
    fn what_is_no_gram_matrix_is_refused() {
        let message = |gram: [f32; 4]| {
            trial()
                .statistics(&[&[1.0, 0.0, 0.0, 1.0], &gram])
                .set("reduce_non_diag", 1.0)
                .try_merge_all()
                .unwrap_err()
        };
        assert!(message([1.0, 0.0, 0.0, -1.0]).ends_with("expert 2 of 2 are no Gram matrix of inputs: entry [1, 1] is -1, and a sum of squares is not negative"));
        assert!(message([1.0, 0.5, 0.0, 1.0]).contains("entry [1, 0] is 0, its mirror image 0.5"));
        assert!(message([1.0, 3.0, 3.0, 1.0]).contains("more than its diagonal allows"));
        let singular =
            trial().statistics(&[&[1.0; 4], &[1.0; 4]]).set("reduce_non_diag", 1.0).try_merge_all();
        assert!(singular.unwrap_err().ends_with(
            "the sum of the Gram matrices is singular: set `reduce_non_diag` below 1, or measure on more inputs"
        ));
    }
}
