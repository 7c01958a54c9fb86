//! The truncated decomposition against the whole one.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::num::NonZeroUsize;

use ndarray::{Array2, Axis, s};
use proptest::prelude::*;
use skillweld_linalg::{LinalgError, Svd, Threads, thin_svd, truncated_svd};

/// Values between −1 and 1 without structure.
fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn norm(a: &Array2<f32>) -> f64 {
    a.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

fn product(svd: &Svd<f32>) -> Array2<f32> {
    (&svd.u * &svd.s).dot(&svd.vt)
}

/// ‖A − A_rank‖ of the best A_rank there is: the root of the squares of the singular values left out.
fn least_residual(a: &Array2<f32>, rank: usize) -> f64 {
    let s = thin_svd(&a.mapv(f64::from).view()).unwrap().s;
    s.iter().skip(rank).map(|s| s * s).sum::<f64>().sqrt()
}

fn assert_orthonormal(columns: &Array2<f32>) {
    let gram = columns.t().dot(columns) - Array2::<f32>::eye(columns.ncols());
    let largest = gram.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(largest <= 1e-5 * columns.nrows() as f32, "{largest}");
}

fn check(a: &Array2<f32>, rank: usize) {
    let svd = truncated_svd(&a.view(), rank, Threads::ONE).unwrap();
    let rank = rank.min(a.nrows()).min(a.ncols());
    assert_eq!((svd.u.dim(), svd.s.len(), svd.vt.dim()), ((a.nrows(), rank), rank, (rank, a.ncols())));
    assert_orthonormal(&svd.u);
    assert_orthonormal(&svd.vt.t().to_owned());
    assert!(svd.s.windows(2).into_iter().all(|w| w[0] >= w[1]));
    let residual = norm(&(a - &product(&svd)));
    let (least, rounding) = (least_residual(a, rank), 1e-5 * norm(a));
    assert!(residual <= 1.005 * least + rounding, "{residual}, and {least} is possible");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn as_good_as_the_whole_decomposition(
        (m, n) in (1..160usize, 1..160usize), rank in 1..24usize, decay in 0.8..1.0f32, seed in any::<u64>(),
    ) {
        // From a flat spectrum (decay 1) to one that falls off quickly.
        let k = m.min(n);
        let scales = Array2::from_shape_fn((1, k), |(_, j)| decay.powi(j as i32));
        check(&(noise(m, k, seed) * scales).dot(&noise(k, n, !seed)), rank);
    }

    #[test]
    fn a_matrix_of_low_rank_is_met_exactly((m, n) in (40..160usize, 40..160usize), rank in 1..8usize, seed in any::<u64>()) {
        let a = noise(m, rank, seed).dot(&noise(rank, n, !seed));
        for asked in [rank, rank + 3] {
            let svd = truncated_svd(&a.view(), asked, Threads::ONE).unwrap();
            let residual = norm(&(&a - &product(&svd)));
            prop_assert!(residual <= 1e-5 * norm(&a), "{residual} of {}", norm(&a));
        }
        let whole = thin_svd(&a.view()).unwrap();
        let svd = truncated_svd(&a.view(), rank, Threads::ONE).unwrap();
        for (got, expected) in svd.s.iter().zip(&whole.s) {
            prop_assert!((got - expected).abs() <= 1e-5 * whole.s[0]);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let a = noise(300, 200, 7);
    let run = |threads: usize| {
        let svd = truncated_svd(&a.view(), 10, Threads::new(NonZeroUsize::new(threads).unwrap())).unwrap();
        [svd.u, svd.vt, svd.s.insert_axis(Axis(0))].map(|part| part.mapv(f32::to_bits))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn edges() {
    let zeros = truncated_svd(&Array2::zeros((90, 80)).view(), 3, Threads::ONE).unwrap();
    assert_eq!(zeros.s.to_vec(), [0.0; 3]);
    let none = truncated_svd(&Array2::zeros((0, 4)).view(), 3, Threads::ONE).unwrap();
    assert_eq!((none.u.dim(), none.vt.dim()), ((0, 0), (0, 4)));
    // Views with any strides.
    let a = noise(100, 120, 3);
    let (turned, straight) = (a.t(), a.t().as_standard_layout().into_owned());
    let [one, other] = [turned, straight.view()].map(|a| truncated_svd(&a, 5, Threads::ONE).unwrap());
    assert!(norm(&(product(&one) - product(&other))) <= 1e-5 * norm(&a));
    let mut nan = noise(100, 90, 1);
    nan.slice_mut(s![50, 50]).fill(f32::NAN);
    let error = truncated_svd(&nan.view(), 5, Threads::ONE).unwrap_err();
    assert_eq!(error, LinalgError::NoConvergence { operation: "SVD", rows: 100, cols: 90 });
}
