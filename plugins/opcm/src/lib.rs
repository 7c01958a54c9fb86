//! OPCM: experts are merged one after the other, each moved out of the way of what is merged already.

use skillweld_plugin_sdk::linalg::ndarray::{Array2, ArrayView2, s};
use skillweld_plugin_sdk::linalg::thin_svd;
use skillweld_plugin_sdk::trim::Scope;
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws};

export_methods!(merge: [Opcm]);

/// Continual merging by orthogonal projection, in the recipe's order of experts:
///
/// ```text
/// A₁ = τ₁;   A_k = A_{k−1} + P_k(τ_k);   τ = A_N · (mean_k ‖τ_k‖) / ‖A_N‖
/// P_k(τ) = τ − U M V ᵀ,   A_{k−1} = U S Vᵀ,   M = Uᵀ τ V where both indices are below r or are equal, else 0
/// ```
///
/// r is the number of leading singular values whose sum is at most the share `alpha` of all: their subspace is closed to
/// later experts, and of the other pairs u_i v_iᵀ the part along the pair itself. The published code scales after every
/// step and undoes it before the next, which is the same but for rounding; it shuffles the experts unless told not to.
/// Norms are Frobenius norms over all tensors that are merged, or with `scope: tensor` of each tensor by itself, which
/// saves the pass that sums them up and with it half of the time.
///
/// Tensors of other than two dimensions and embeddings (keys with `embed` in them) are added up, P_k(τ) = τ, and scaled
/// with the rest, as the published code does with all that is no linear layer.
///
/// Two things differ. Singular vectors without a singular value above max(m, n) · 2⁻²³ of the largest span the null
/// space and are arbitrary: the published code projects along such pairs too, whatever the decomposition makes of them,
/// and this method does not, which matters where A has not full rank, as with LoRA. And where no singular value takes
/// the sum above `alpha`, as at `alpha: 1`, r is all of them; there it is none. Everything is f64, rounded once.
pub struct Opcm;

impl MergeMethod for Opcm {
    fn spec() -> Spec {
        Spec::new("opcm", "one expert after the other, each orthogonal to what is merged already")
            .citation(
                "Tang et al., Merging models on the fly without retraining, NeurIPS 2025, arXiv 2501.09522",
            )
            .param(
                Param::number("alpha")
                    .default(0.5)
                    .range(0.0..=1.0)
                    .describe("share of the singular values' sum whose subspace later experts leave alone"),
            )
            .param(
                Param::choice("scope", &["tensor", "global"])
                    .default("global")
                    .describe("over what norms are taken; `tensor` takes half the time"),
            )
            .task_vectors()
            .matrix()
            .any_shape()
            .laws(laws::IDENTITY | laws::HOMOGENEOUS | laws::ZERO)
    }

    /// Over all tensors: ‖τ_k‖² of each expert, then ‖A_N‖².
    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(match Scope::of(params) {
            Scope::Tensor => Plan::default(),
            Scope::Global => Plan::global([params.experts() + 1]),
        })
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        let squares = squares(block, &together(block)?);
        sums.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let together = together(block)?;
        let factor = match Scope::of(block) {
            Scope::Tensor => factor(&squares(block, &together)),
            Scope::Global => factor(block.totals()),
        };
        for (out, x) in out.iter_mut().zip(&together) {
            *out = (factor * x) as f32;
        }
        Ok(())
    }
}

/// The mean norm over the norm of A: 1 where nothing is merged.
fn factor(squares: &[f64]) -> f64 {
    let Some((together, experts)) = squares.split_last() else { return 1.0 };
    let mean = experts.iter().map(|square| square.sqrt()).sum::<f64>() / experts.len().max(1) as f64;
    if *together > 0.0 { mean / together.sqrt() } else { 1.0 }
}

/// ‖τ_k‖² of each expert, then ‖A‖².
fn squares(block: &Block<'_>, together: &Array2<f64>) -> Vec<f64> {
    let of_expert = |k: usize| block.expert(k).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let own = together.iter().map(|x| x * x).sum();
    (0..block.experts()).map(of_expert).chain([own]).collect()
}

/// A_N of a tensor: as it is shaped if it is projected, else as one row.
fn together(block: &Block<'_>) -> Result<Array2<f64>> {
    let projected = block.shape().len() == 2 && !block.key().contains("embed");
    let shape = match *block.shape() {
        [m, n] if projected => (m as usize, n as usize),
        _ => (1, block.len()),
    };
    let mut together = expert(block, 0, shape)?;
    for k in 1..block.experts() {
        block.check_cancelled()?;
        let next = expert(block, k, shape)?;
        together =
            if projected { project(&together, &next, block.number("alpha"))? } else { together + next };
    }
    Ok(together)
}

fn expert(block: &Block<'_>, k: usize, shape: (usize, usize)) -> Result<Array2<f64>> {
    let values = ArrayView2::from_shape(shape, block.expert(k)).map_err(|e| e.to_string())?;
    Ok(values.mapv(f64::from))
}

/// By how much of itself a sum of singular values may exceed its share for rounding: a tie is no excess.
const TIE: f64 = 1e-9;

/// A + P(τ).
fn project(together: &Array2<f64>, next: &Array2<f64>, alpha: f64) -> Result<Array2<f64>> {
    let svd = thin_svd(&together.view()).map_err(|e| e.to_string())?;
    let (m, n) = together.dim();
    let smallest = svd.s.first().map_or(0.0, |s| s * m.max(n) as f64 * f64::from(f32::EPSILON));
    let rank = svd.s.iter().take_while(|&&s| s > smallest).count();
    let most = alpha * svd.s.sum() * (1.0 + TIE);
    let mut sum = 0.0;
    let leading = svd.s.iter().take(rank).take_while(|&&s| {
        sum += s;
        sum <= most
    });
    let leading = leading.count();
    let (u, vt) = (svd.u.slice(s![.., ..rank]), svd.vt.slice(s![..rank, ..]));
    let mut taken = u.t().dot(next).dot(&vt.t());
    for ((i, j), x) in taken.indexed_iter_mut() {
        if i != j && i.max(j) >= leading {
            *x = 0.0;
        }
    }
    Ok(together + next - u.dot(&taken).dot(&vt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::linalg::eigh;
    use skillweld_plugin_sdk::trial::Trial;

    /// One entry of the definition at a time, singular vectors from the eigenvectors of AᵀA.
    fn reference(experts: &[Vec<f32>], (m, n): (usize, usize), alpha: f64) -> Vec<f64> {
        let matrix = |values: &[f32]| Array2::from_shape_fn((m, n), |(i, j)| f64::from(values[i * n + j]));
        let mut a = matrix(&experts[0]);
        for expert in &experts[1..] {
            let eigen = eigh(&a.t().dot(&a).view()).unwrap();
            let count = m.min(n);
            let v = |i: usize| eigen.vectors.column(n - 1 - i).to_owned();
            let singular: Vec<f64> = (0..count).map(|i| eigen.values[n - 1 - i].max(0.0).sqrt()).collect();
            let u = |i: usize| a.dot(&v(i)) / singular[i];
            let total: f64 = singular.iter().sum();
            let leading =
                (0..count).find(|&i| singular[..=i].iter().sum::<f64>() > alpha * total).unwrap_or(count);
            let tau = matrix(expert);
            let mut next = tau.clone();
            for i in 0..count {
                for j in (0..count).filter(|&j| i == j || i.max(j) < leading) {
                    let along = u(i).dot(&tau.dot(&v(j)));
                    for ((row, column), x) in next.indexed_iter_mut() {
                        *x -= along * u(i)[row] * v(j)[column];
                    }
                }
            }
            a = a + next;
        }
        a.into_iter().collect()
    }

    fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
        values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_definition_entry_by_entry(
            (m, n, experts, bias) in (1usize..6, 1usize..6).prop_flat_map(|(m, n)| {
                (Just(m), Just(n), vec(vec(-1f32..1.0, m * n), 3), vec(vec(-1f32..1.0, n), 3))
            }),
            alpha in 0.05f64..0.95, global: bool,
        ) {
            let merged = Trial::of::<Opcm>()
                .experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>()).shape(&[m, n])
                .experts(&bias.iter().map(Vec::as_slice).collect::<Vec<_>>())
                .set("alpha", alpha).set("scope", if global { "global" } else { "tensor" })
                .merge_all();
            let matrix = reference(&experts, (m, n), alpha);
            let vector: Vec<f64> = (0..n).map(|i| bias.iter().map(|b| f64::from(b[i])).sum()).collect();
            let of = |k: usize, with: [bool; 2]| {
                let both = [&experts[k], &bias[k]].into_iter().zip(with).filter(|(_, with)| *with);
                norm(both.flat_map(|(values, _)| values.iter().map(|&x| f64::from(x))))
            };
            for (t, together) in [&matrix, &vector].into_iter().enumerate() {
                let with = if global { [true; 2] } else { [t == 0, t == 1] };
                let all = [&matrix, &vector].into_iter().zip(with).filter(|(_, with)| *with);
                let own = norm(all.flat_map(|(values, _)| values.iter().copied()));
                let factor = (0..3).map(|k| of(k, with)).sum::<f64>() / 3.0 / own;
                // Eigenvectors of AᵀA lose half of f64's digits where singular values are small against the largest.
                for (merged, expected) in merged[t].iter().zip(together) {
                    let expected = factor * expected;
                    prop_assert!((f64::from(*merged) - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{merged} {expected}");
                }
            }
        }
    }

    #[test]
    fn known_values() {
        let trial = |first: &[f32], second: &[f32]| {
            Trial::of::<Opcm>().experts(&[first, second]).shape(&[2, 2]).set("scope", "tensor").merge()
        };
        // Orthogonal already: the sum, brought back to the norm of one.
        let merged = trial(&[3.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 3.0]);
        let half = (3.0 / 2f64.sqrt()) as f32;
        assert_eq!(merged, [half, 0.0, 0.0, half]);
        // Nothing new: the second lies in the first's subspace.
        assert_eq!(trial(&[3.0, 0.0, 0.0, 0.0], &[5.0, 0.0, 0.0, 0.0]), [4.0, 0.0, 0.0, 0.0]);
        assert_eq!(trial(&[0.0; 4], &[0.0; 4]), [0.0; 4]);
        // Later experts change what earlier ones left.
        assert_ne!(
            trial(&[2.0, 0.0, 0.0, 1.0], &[1.0, 1.0, 0.0, 0.0]),
            trial(&[1.0, 1.0, 0.0, 0.0], &[2.0, 0.0, 0.0, 1.0])
        );
    }
}
