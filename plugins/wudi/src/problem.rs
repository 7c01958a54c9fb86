//! What the descent needs of the experts, out of factors or matrices.

use skillweld_plugin_sdk::linalg::ndarray::{Array2, ArrayView2, ArrayViewMut2, CowArray, Ix2, s};
use skillweld_plugin_sdk::linalg::{
    PackedWeight, dense_expert, factor_matrices, gram, matrix_mut, multiply, multiply_f64,
};
use skillweld_plugin_sdk::{Block, Result};

use crate::descent::{Descent, Gradient};

/// Experts of an m × n matrix.
pub(crate) struct Problem<'a> {
    shape: (usize, usize),
    experts: Experts<'a>,
}

enum Experts<'a> {
    Factored(Vec<(ArrayView2<'a, f32>, ArrayView2<'a, f32>)>),
    Dense(Vec<CowArray<'a, f32, Ix2>>),
}

impl<'a> Problem<'a> {
    /// As factors where all come so.
    pub(crate) fn of(block: &Block<'a>, shape: (usize, usize)) -> Result<Self> {
        let factors: Option<Vec<_>> = (0..block.experts()).map(|k| block.low_rank(k)).collect();
        let experts = match factors {
            Some(factors) => {
                block.path("factored");
                let factors = factors.into_iter().map(|factors| factor_matrices(factors, shape));
                Experts::Factored(factors.collect::<Result<_>>()?)
            }
            None => {
                block.path("dense");
                let experts = (0..block.experts()).map(|k| dense_expert(block, k, shape));
                Experts::Dense(experts.collect::<Result<_>>()?)
            }
        };
        Ok(Self { shape, experts })
    }

    /// Fills `out` with the solution.
    pub(crate) fn solve(&self, block: &Block<'_>, out: &mut [f32]) -> Result {
        let mut out = matrix_mut(out, self.shape)?;
        let descent = match &self.experts {
            Experts::Factored(factors) => factored(factors, self.shape, &mut out)?,
            Experts::Dense(experts) => dense(block, experts, self.shape, &mut out)?,
        };
        descent.run(block, &mut out)
    }
}

/// 1 / ‖τ_k‖², or nothing of an expert that is zero.
fn share(square: f64) -> f64 {
    if square > 0.0 { square.recip() } else { 0.0 }
}

/// out = Σ τ_k; gradients by way of y_k = (τ − τ_k) A_kᵀ, m × R: 2 Σ y_k (B_kᵀB_k / ‖τ_k‖²) A_k.
///
/// y starts as Σ_{j≠k} B_j (A_j A_kᵀ), not as a difference: where the experts have nothing to do with one another it is
/// zero, not rounding that Adam would blow up.
fn factored(
    factors: &[(ArrayView2<'_, f32>, ArrayView2<'_, f32>)],
    shape: (usize, usize),
    out: &mut ArrayViewMut2<'_, f32>,
) -> Result<Descent> {
    let (m, n) = shape;
    let ranks = factors.iter().map(|(b, _)| b.ncols());
    let starts: Vec<usize> = ranks
        .scan(0, |end, rank| {
            let start = *end;
            *end += rank;
            Some(start)
        })
        .collect();
    let all = factors.iter().map(|(b, _)| b.ncols()).sum();
    let (mut b, mut a) = (Array2::zeros((m, all)), Array2::zeros((all, n)));
    for ((own_b, own_a), &start) in factors.iter().zip(&starts) {
        b.slice_mut(s![.., start..start + own_b.ncols()]).assign(own_b);
        a.slice_mut(s![start..start + own_b.ncols(), ..]).assign(own_a);
    }
    multiply(&b.view(), &a.view(), out)?;
    let (left, right) = (gram(&b.view()), gram(&a.t()));
    let mut others = right.clone();
    let mut weighted = Array2::zeros((all, all));
    for ((own, _), &start) in factors.iter().zip(&starts) {
        let range = start..start + own.ncols();
        let place = s![range.clone(), range.clone()];
        let (left, right) = (left.slice(place), right.slice(place));
        let square = left.iter().zip(&right).map(|(left, right)| left * right).sum();
        weighted.slice_mut(place).assign(&(&left * (2.0 * share(square))));
        others.slice_mut(place).fill(0.0);
    }
    let mut state = Array2::zeros((m, all));
    multiply(&b.view(), &others.mapv(|x| x as f32).view(), &mut state.view_mut())?;
    let weighted = multiply_f64(&weighted.view(), &a.mapv(f64::from).view())?.mapv(|x| x as f32);
    let gradient = Gradient::Product(PackedWeight::from_f32(&weighted.t()));
    Ok(Descent { state, gradient, change: PackedWeight::from_f32(&a.view()) })
}

/// out = Σ τ_k; the state is the gradient itself, which a move u of τ changes by 2 u G, G = Σ G_k.
fn dense(
    block: &Block<'_>,
    experts: &[CowArray<'_, f32, Ix2>],
    (m, n): (usize, usize),
    out: &mut ArrayViewMut2<'_, f32>,
) -> Result<Descent> {
    out.fill(0.0);
    experts.iter().for_each(|expert| *out += expert);
    let mut state = Array2::zeros((m, n));
    let mut sum = Array2::zeros((n, n));
    for (k, expert) in experts.iter().enumerate() {
        block.check_cancelled()?;
        let square: f64 = expert.iter().map(|&x| f64::from(x).powi(2)).sum();
        let own = gram(&expert.view()) * (2.0 * share(square));
        let mut others = Array2::<f32>::zeros((m, n));
        for (_, other) in experts.iter().enumerate().filter(|(j, _)| *j != k) {
            others += other;
        }
        let mut part = Array2::zeros((m, n));
        multiply(&others.view(), &own.mapv(|x| x as f32).view(), &mut part.view_mut())?;
        state += &part;
        sum += &own;
    }
    let change = PackedWeight::from_f32(&sum.mapv(|x| x as f32).view());
    Ok(Descent { state, gradient: Gradient::State, change })
}
