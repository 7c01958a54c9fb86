//! `tsv`: task singular vectors, decorrelated.

use skillweld_plugin_sdk::linalg::ndarray::{Array1, Array2, ArrayView2};
use skillweld_plugin_sdk::linalg::{matrix_mut, matrix_shape, mean, multiply, multiply_f64};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, laws};

use crate::rank::{Rank, Triplets, above, beside, inverse_root, polar};
use crate::stack::{Experts, Stack};
use crate::{null_space, rank, scale, spec};

/// TSV-Merge. Of every expert τ_k = U_k S_k V_kᵀ the first ⌊min(m, n) / N⌋ singular triplets (`rank: top`) or all of them
/// (`rank: lossless`) are taken; the stacks U = [U_1 … U_N] and V are replaced by the nearest matrices with orthonormal
/// columns, U (UᵀU)^{−1/2} and V (VᵀV)^{−1/2}, and multiplied back with S = diag(S_1, …, S_N).
///
/// As factors: U = B T and V = Aᵀ T' with coefficients T and T', and UᵀU = Tᵀ BᵀB T.
pub struct Tsv;

impl MergeMethod for Tsv {
    fn spec() -> Spec {
        spec("tsv", "decorrelate the experts' leading singular vectors, then sum")
            .citation("Gargiulo et al., Task Singular Vectors, CVPR 2025, arXiv 2412.00081")
            .param(
                Param::choice("rank", &["top", "lossless"])
                    .default("top")
                    .describe("singular triplets of each expert: the first min(m, n) / N, or all"),
            )
            .param(null_space())
            .laws(laws::HOMOGENEOUS)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let Some(shape) = matrix_shape(block) else { return mean(block, out) };
        let most = match block.choice("rank") {
            "top" => shape.0.min(shape.1) / block.experts(),
            _ => usize::MAX,
        };
        let rank = rank(block, shape);
        match Experts::of(block, shape, rank)? {
            Experts::Factored(stack, tolerance) => {
                let experts = stack.experts().iter().map(|part| stack.triplets(part, tolerance, most));
                let experts = experts.collect::<Result<Vec<_>>>()?;
                let left: Vec<_> = experts.iter().map(|expert| expert.left.view()).collect();
                let right: Vec<_> = experts.iter().map(|expert| expert.right.view()).collect();
                let (left, right) = (beside(&left, stack.len()), above(&right, stack.len()));
                let s = experts.iter().flat_map(|expert| expert.s.iter().copied()).collect();
                orthogonal(&stack, (&left, &right), &s, tolerance, out)?;
            }
            Experts::Dense(experts) => {
                let mut triplets = Vec::with_capacity(experts.len());
                for (k, expert) in experts.iter().enumerate() {
                    block.check_cancelled()?;
                    triplets.push(Triplets::of(&expert.view(), rank, most, None)?);
                    block.progress((k + 1) as f64 / (experts.len() + 2) as f64);
                }
                block.check_cancelled()?;
                let s = triplets.iter().flat_map(|expert| expert.s.iter().copied()).collect();
                dense(&triplets, &s, rank, shape, out)?;
            }
        }
        scale(out, block.number("lambda"));
        Ok(())
    }
}

/// out = U (UᵀU)^{−1/2} · S · (VVᵀ)^{−1/2} V for triplets given by coefficients.
pub(crate) fn orthogonal(
    stack: &Stack,
    (left, right): (&Array2<f64>, &Array2<f64>),
    s: &Array1<f64>,
    tolerance: f64,
    out: &mut [f32],
) -> Result {
    let gram = multiply_f64(&left.t(), &multiply_f64(&stack.left().view(), &left.view())?.view())?;
    let left = multiply_f64(&left.view(), &inverse_root(&gram.view(), tolerance)?.view())? * s;
    let gram = multiply_f64(&right.view(), &multiply_f64(&stack.right().view(), &right.t())?.view())?;
    let right = multiply_f64(&inverse_root(&gram.view(), tolerance)?.view(), &right.view())?;
    stack.write(&left.view(), &right.view(), out)
}

/// The same for triplets as matrices.
pub(crate) fn dense(
    triplets: &[Triplets],
    s: &Array1<f64>,
    rank: Rank,
    (m, n): (usize, usize),
    out: &mut [f32],
) -> Result {
    let u: Vec<ArrayView2<'_, f32>> = triplets.iter().map(|expert| expert.u.view()).collect();
    let vt: Vec<ArrayView2<'_, f32>> = triplets.iter().map(|expert| expert.vt.view()).collect();
    let (u, vt) = (beside(&u, m), above(&vt, n));
    let u = polar(&u.view(), rank)? * &s.mapv(|s| s as f32);
    Ok(multiply(&u.view(), &polar(&vt.view(), rank)?.view(), &mut matrix_mut(out, (m, n))?)?)
}
