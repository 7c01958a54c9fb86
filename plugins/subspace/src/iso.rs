//! `iso_c`, `iso_cts`: spectra made flat.

use std::ops::Range;

use skillweld_plugin_sdk::linalg::ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2, s};
use skillweld_plugin_sdk::linalg::{matrix_mut, matrix_shape, mean, multiply, multiply_f64};
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Result, Spec, laws};

use crate::rank::{Basis, Rank, Triplets, above, beside, leading, spectrum};
use crate::stack::{Coefficients, Experts, Stack};
use crate::{null_space, rank, scale, spec, tsv};

/// Iso-C. Σ τ_k = U S Vᵀ becomes s̄ · U Vᵀ, s̄ being the mean of the singular values: over the numerical rank, or with
/// `null_space: keep` over min(m, n) of them, as published.
pub struct IsoC;

impl MergeMethod for IsoC {
    fn spec() -> Spec {
        spec("iso_c", "the sum of the experts with every singular value at their mean")
            .citation(
                "Marczak et al., No Task Left Behind: Isotropic Model Merging, ICML 2025, arXiv 2502.04959",
            )
            .param(null_space())
            .laws(laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let Some(shape) = matrix_shape(block) else { return mean(block, out) };
        let rank = rank(block, shape);
        let lambda = block.number("lambda");
        match Experts::of(block, shape, rank)? {
            Experts::Factored(stack, tolerance) => {
                let Coefficients { left, s, right } =
                    stack.triplets_in(&stack.basis()?, &(0..stack.len()), tolerance, usize::MAX)?;
                // Coefficients are fewer than elements.
                stack.write(&(left * (average(&s) * lambda)).view(), &right.view(), out)
            }
            Experts::Dense(experts) => {
                let sum = sum(&experts, shape);
                block.check_cancelled()?;
                let Triplets { u, s, vt } = Triplets::of(&sum.view(), rank, usize::MAX, None)?;
                block.check_cancelled()?;
                multiply(&u.view(), &vt.view(), &mut matrix_mut(out, shape)?)?;
                scale(out, average(&s) * lambda);
                Ok(())
            }
        }
    }
}

/// Iso-CTS. The first c singular triplets of Σ τ_k span the common space, c being about `common_space_fraction` of
/// min(m, n); every expert adds the first (min(m, n) − c) / N triplets of what it has outside of it, τ_k − U_c U_cᵀ τ_k.
/// All are orthogonalised as in TSV and get the mean of their singular values.
///
/// Where the common space takes all directions that there are, as with few LoRA experts, nothing is left outside of it,
/// and the result is that of `iso_c`.
pub struct IsoCts;

impl MergeMethod for IsoCts {
    fn spec() -> Spec {
        spec("iso_cts", "a common space and what each expert has outside of it, with a flat spectrum")
            .citation(
                "Marczak et al., No Task Left Behind: Isotropic Model Merging, ICML 2025, arXiv 2502.04959",
            )
            .param(
                Param::number("common_space_fraction")
                    .default(0.8)
                    .range(0.0..=1.0)
                    .describe("share of min(m, n) singular vectors that the common space has"),
            )
            .param(null_space())
            .laws(laws::HOMOGENEOUS)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let Some(shape) = matrix_shape(block) else { return mean(block, out) };
        let (common, each) =
            sizes(shape.0.min(shape.1), block.experts(), block.number("common_space_fraction"));
        let rank = rank(block, shape);
        match Experts::of(block, shape, rank)? {
            Experts::Factored(stack, tolerance) => {
                factored(&stack, (common, each), tolerance, out)?;
            }
            Experts::Dense(experts) => dense(block, &experts, (common, each), rank, shape, out)?,
        }
        scale(out, block.number("lambda"));
        Ok(())
    }
}

/// Triplets of the common space and of each expert, of `all`: as the published code rounds them.
fn sizes(all: usize, experts: usize, fraction: f64) -> (usize, usize) {
    let outside = all - (all as f64 * fraction) as usize;
    // Halves to the even number, as Python's `round`.
    let each = (outside as f64 / experts as f64).round_ties_even() as usize;
    let each = each.min(all / experts);
    (all - each * experts, each)
}

fn average(s: &[f64]) -> f64 {
    if s.is_empty() { 0.0 } else { s.iter().sum::<f64>() / s.len() as f64 }
}

fn sum(experts: &[CowArray<'_, f32, Ix2>], shape: (usize, usize)) -> Array2<f32> {
    let mut sum = Array2::zeros(shape);
    experts.iter().for_each(|expert| sum += expert);
    sum
}

fn factored(stack: &Stack, (common, each): (usize, usize), tolerance: f64, out: &mut [f32]) -> Result {
    let basis = stack.basis()?;
    let all = stack.triplets_in(&basis, &(0..stack.len()), tolerance, common)?;
    // U_c in the coordinates of the basis: orthonormal columns.
    let shared = multiply_f64(&basis.r.view(), &all.left.view())?;
    let mut triplets = Vec::with_capacity(stack.experts().len() + 1);
    for part in stack.experts().iter().filter(|_| each > 0) {
        triplets.push(outside(stack, part, &basis, &shared.view(), each, tolerance)?);
    }
    triplets.push(all);
    let left: Vec<_> = triplets.iter().map(|part| part.left.view()).collect();
    let right: Vec<_> = triplets.iter().map(|part| part.right.view()).collect();
    let s: Vec<f64> = triplets.iter().flat_map(|part| part.s.iter().copied()).collect();
    let flat = Array1::from_elem(s.len(), average(&s));
    if triplets.iter().rev().skip(1).all(|part| part.s.is_empty()) {
        // The common space alone: orthonormal already.
        let all = &triplets[triplets.len() - 1];
        return stack.write(&(&all.left * &flat).view(), &all.right.view(), out);
    }
    let (left, right) = (beside(&left, stack.len()), above(&right, stack.len()));
    tsv::orthogonal(stack, (&left, &right), &flat, tolerance, out)
}

/// The first `each` triplets of an expert less what it has in the common space, if they are more than rounding of it.
fn outside(
    stack: &Stack,
    part: &Range<usize>,
    basis: &Basis,
    shared: &ArrayView2<'_, f64>,
    each: usize,
    tolerance: f64,
) -> Result<Coefficients> {
    // F = (I − U_c U_cᵀ) B_k in the basis, so that the task vector there is F · A_k.
    let own = basis.r.slice(s![.., part.clone()]);
    let rest = &own - &multiply_f64(shared, &multiply_f64(&shared.t(), &own)?.view())?;
    let rows = Basis::of(&stack.right_of(part))?;
    // F · A_k = (F · rᵀ) · Q: the squares of its singular values are those of the r × r matrix r FᵀF rᵀ.
    let image = multiply_f64(&rest.view(), &rows.r.t())?;
    let (mut s, vectors) = spectrum(&multiply_f64(&image.t(), &image.view())?.view())?;
    let floor = tolerance * stack.square(part).max(0.0).sqrt();
    s.truncate(s.iter().take(each).take_while(|&&s| s > floor).count());
    let vectors = leading(&vectors, s.len());
    let inverse = Array1::from_iter(s.iter().map(|s| s.recip()));
    let left = multiply_f64(&image.view(), &vectors)? * &inverse;
    let right = multiply_f64(&rows.t.view(), &vectors)?.reversed_axes();
    Ok(Coefficients {
        left: multiply_f64(&basis.t.view(), &left.view())?,
        s,
        right: stack.columns(&right, part),
    })
}

fn dense(
    block: &Block<'_>,
    experts: &[CowArray<'_, f32, Ix2>],
    (common, each): (usize, usize),
    rank: Rank,
    shape: (usize, usize),
    out: &mut [f32],
) -> Result {
    let all = Triplets::of(&sum(experts, shape).view(), rank, common, None)?;
    let mut triplets = Vec::with_capacity(experts.len() + 1);
    for (k, expert) in experts.iter().enumerate().filter(|_| each > 0) {
        block.check_cancelled()?;
        block.progress((k + 1) as f64 / (experts.len() + 3) as f64);
        let mut rest = Array2::zeros((all.s.len(), shape.1));
        multiply(&all.u.t(), &expert.view(), &mut rest.view_mut())?;
        let mut shared = Array2::zeros(shape);
        multiply(&all.u.view(), &rest.view(), &mut shared.view_mut())?;
        let rest = expert - &shared;
        let norm = expert.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        triplets.push(Triplets::of(&rest.view(), rank, each, Some(norm))?);
    }
    block.check_cancelled()?;
    triplets.push(all);
    let s: Vec<f64> = triplets.iter().flat_map(|part| part.s.iter().copied()).collect();
    let flat = Array1::from_elem(s.len(), average(&s));
    tsv::dense(&triplets, &flat, rank, shape, out)
}
