//! `knots`: task vectors aligned by one SVD of all.

use skillweld_plugin_sdk::linalg::ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2, s};
use skillweld_plugin_sdk::linalg::{gram, matrix_mut, matrix_shape, mean, multiply, multiply_f64};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec};

use crate::join;
use crate::rank::{Rank, leading, other_side, spectrum};
use crate::stack::{Experts, Stack};
use crate::{scale, spec};

/// KnOTS. [τ_1 … τ_N] = U S [V_1ᵀ … V_Nᵀ]: the experts' parts S V_kᵀ lie in one basis, where a method that works entry by
/// entry joins them; U times what it gives is the merged task vector. Singular values of at most `min_singular_value` are
/// dropped, and so is what is beyond the numerical rank.
///
/// The method inside is TIES by default. The code published with MergeVLA adds the parts up, which without dropped
/// directions is the sum of the task vectors again.
pub struct Knots;

impl MergeMethod for Knots {
    fn spec() -> Spec {
        join::params(spec("knots", "align the experts by a common SVD, then merge them in that basis"))
            .citation("Stoica et al., Model Merging with SVD to Tie the KnOTS, ICLR 2025, arXiv 2410.19735")
            .param(
                Param::number("min_singular_value")
                    .default(1e-4)
                    .at_least(0.0)
                    .describe("smaller singular values of the concatenation are dropped"),
            )
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let Some(shape) = matrix_shape(block) else { return mean(block, out) };
        match Experts::of(block, shape, Rank::numerical(shape))? {
            Experts::Factored(stack, _) => factored(block, &stack, shape, out)?,
            Experts::Dense(experts) => dense(block, &experts, shape, out)?,
        }
        scale(out, block.number("lambda"));
        Ok(())
    }
}

/// How many singular values of the concatenation count.
fn count(block: &Block<'_>, s: &[f64], (m, n): (usize, usize)) -> usize {
    let Rank::Numerical(tolerance) = Rank::numerical((m, n * block.experts())) else { return s.len() };
    let floor = block.number("min_singular_value").max(s.first().map_or(0.0, |s| s * tolerance));
    s.iter().take_while(|&&s| s > floor).count()
}

fn factored(block: &Block<'_>, stack: &Stack, shape: (usize, usize), out: &mut [f32]) -> Result {
    let basis = stack.basis()?;
    // Σ (Qᵀτ_k)(Qᵀτ_k)ᵀ: of AAᵀ only what each expert has with itself.
    let mut own = Array2::zeros(stack.right().dim());
    for part in stack.experts() {
        own.slice_mut(s![part.clone(), part.clone()]).assign(&stack.right_of(part));
    }
    let core = multiply_f64(&basis.r.view(), &own.view())?;
    let (sizes, vectors) = spectrum(&multiply_f64(&core.view(), &basis.r.t())?.view())?;
    let vectors = leading(&vectors, count(block, &sizes, shape));
    let u = multiply_f64(&basis.t.view(), &vectors)?;
    // S V_kᵀ = Uᵀ τ_k.
    let all = multiply_f64(&vectors.t(), &basis.r.view())?;
    if join::inside(block).is_sum() {
        let mut weights = Array1::zeros(stack.len());
        for (part, &weight) in stack.experts().iter().zip(block.expert_numbers("weight")) {
            part.clone().for_each(|i| weights[i] = weight);
        }
        return stack.write(&u.view(), &(&all * &weights).view(), out);
    }
    let aligned = stack.experts().iter().map(|part| stack.rows_of(&all.slice(s![.., part.clone()]), part));
    let mut aligned = aligned.collect::<Result<Vec<_>>>()?;
    block.check_cancelled()?;
    let joined = join::join(block, &mut aligned)?;
    let u = stack.columns_of_b(&u.view())?;
    Ok(multiply(&u.view(), &joined.view(), &mut matrix_mut(out, shape)?)?)
}

fn dense(
    block: &Block<'_>,
    experts: &[CowArray<'_, f32, Ix2>],
    shape: (usize, usize),
    out: &mut [f32],
) -> Result {
    let u = left_vectors(block, experts, shape)?;
    let mut aligned = Vec::with_capacity(experts.len());
    for expert in experts {
        block.check_cancelled()?;
        let mut part = Array2::zeros((u.ncols(), shape.1));
        multiply(&u.t(), &expert.view(), &mut part.view_mut())?;
        aligned.push(part);
    }
    let joined = join::join(block, &mut aligned)?;
    Ok(multiply(&u.view(), &joined.view(), &mut matrix_mut(out, shape)?)?)
}

/// U of the concatenation, of its smaller side: m × k.
fn left_vectors(
    block: &Block<'_>,
    experts: &[CowArray<'_, f32, Ix2>],
    (m, n): (usize, usize),
) -> Result<Array2<f32>> {
    if m <= n * experts.len() {
        let mut sum = Array2::zeros((m, m));
        for expert in experts {
            block.check_cancelled()?;
            sum += &gram(&expert.t());
        }
        let (s, vectors) = spectrum(&sum.view())?;
        return Ok(leading(&vectors, count(block, &s, (m, n))).mapv(|x| x as f32));
    }
    let views: Vec<ArrayView2<'_, f32>> = experts.iter().map(|expert| expert.view()).collect();
    let all = crate::rank::beside(&views, m);
    let (mut s, vectors) = spectrum(&gram(&all.view()).view())?;
    s.truncate(count(block, &s, (m, n)));
    other_side(&all.view(), &leading(&vectors, s.len()), &s)
}
