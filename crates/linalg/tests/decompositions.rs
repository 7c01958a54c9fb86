//! Every decomposition is checked by what defines it: factors multiply back and are orthonormal, within rounding.
//! The same tests run for each backend (`--features lapack`).

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "views are passed as ndarray users do; a panic is a failed test"
)]

use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use skillweld_linalg::{
    LinalgError, cholesky, eigh, gemm, gram, multiply, multiply_f64, multiply_in_f64, qr,
    solve_positive_definite, thin_svd,
};

fn matrix(max: usize) -> impl Strategy<Value = Array2<f64>> {
    (1..max, 1..max).prop_flat_map(|(m, n)| {
        proptest::collection::vec(-1.0..1.0f64, m * n)
            .prop_map(move |v| Array2::from_shape_vec((m, n), v).unwrap())
    })
}

/// Largest absolute entry.
fn max_abs(a: ArrayView2<'_, f64>) -> f64 {
    a.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// Backward-stable algorithms err by a small multiple of max(m, n) · ε · ‖A‖.
fn tolerance(a: ArrayView2<'_, f64>) -> f64 {
    let (m, n) = a.dim();
    10.0 * m.max(n) as f64 * f64::EPSILON * (1.0 + max_abs(a) * m.max(n) as f64)
}

fn assert_orthonormal_columns(q: ArrayView2<'_, f64>, tolerance: f64) {
    let gram = q.t().dot(&q) - Array2::<f64>::eye(q.ncols());
    assert!(max_abs(gram.view()) <= tolerance, "QᵀQ − I = {gram}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn svd_multiplies_back(a in matrix(20)) {
        let svd = thin_svd(&a.view()).unwrap();
        let tolerance = tolerance(a.view());
        let product = (&svd.u * &svd.s).dot(&svd.vt);
        prop_assert!(max_abs((&product - &a).view()) <= tolerance);
        assert_orthonormal_columns(svd.u.view(), tolerance);
        assert_orthonormal_columns(svd.vt.t(), tolerance);
        prop_assert!(svd.s.windows(2).into_iter().all(|w| w[0] >= w[1]) && svd.s.iter().all(|&s| s >= 0.0));
    }

    #[test]
    fn qr_multiplies_back(a in matrix(20)) {
        let qr = qr(&a.view()).unwrap();
        let tolerance = tolerance(a.view());
        prop_assert!(max_abs((qr.q.dot(&qr.r) - &a).view()) <= tolerance);
        assert_orthonormal_columns(qr.q.view(), tolerance);
        for ((i, j), &r) in qr.r.indexed_iter() {
            prop_assert!(j >= i || r.abs() <= tolerance, "R[{i},{j}] = {r} below the diagonal");
        }
    }

    #[test]
    fn eigh_multiplies_back(a in matrix(16)) {
        let gram = a.t().dot(&a);
        let eigen = eigh(&gram.view()).unwrap();
        let tolerance = tolerance(gram.view());
        let product = (&eigen.vectors * &eigen.values).dot(&eigen.vectors.t());
        prop_assert!(max_abs((&product - &gram).view()) <= tolerance);
        assert_orthonormal_columns(eigen.vectors.view(), tolerance);
        prop_assert!(eigen.values.windows(2).into_iter().all(|w| w[0] <= w[1]));
    }

    #[test]
    fn a_solution_multiplies_back(a in matrix(16), columns in 0..5usize) {
        // Never singular: eigenvalues from 1 on.
        let positive = a.t().dot(&a) + Array2::<f64>::eye(a.ncols());
        let b = Array2::from_shape_fn((a.ncols(), columns), |(i, j)| ((i * 7 + j * 3) % 5) as f64 - 2.0);
        let x = solve_positive_definite(&positive.view(), &b.view()).unwrap();
        prop_assert!(max_abs((positive.dot(&x) - &b).view()) <= 10.0 * tolerance(positive.view()));
    }

    #[test]
    fn gemm_equals_the_triple_loop(a in matrix(24), n in 1..24usize, scale in -2.0..2.0f32) {
        let (m, k) = a.dim();
        let a: Vec<f32> = a.iter().map(|&x| x as f32).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 37 + 11) % 17) as f32 / 17.0 - 0.5).collect();
        let mut out = vec![f32::NAN; m * n];
        gemm(scale, &a, &b, &mut out, (m, k, n));
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
                let error = (f64::from(out[i * n + j]) - f64::from(scale) * exact).abs();
                prop_assert!(error <= (k + 2) as f64 * f64::from(f32::EPSILON) * 2.0);
            }
        }
    }
}

#[test]
fn known_singular_values() {
    let svd = thin_svd(&ndarray::array![[3.0f32, 0.0], [0.0, -2.0], [0.0, 0.0]].view()).unwrap();
    assert_eq!(svd.s.to_vec(), vec![3.0, 2.0]);
    assert_eq!((svd.u.dim(), svd.vt.dim()), ((3, 2), (2, 2)));
}

#[test]
fn bad_input_is_an_error() {
    let nan = Array2::from_elem((3, 2), f64::NAN);
    assert!(matches!(
        thin_svd(&nan.view()),
        Err(LinalgError::NoConvergence { operation: "SVD", rows: 3, cols: 2 })
    ));
    assert!(matches!(eigh(&Array2::<f32>::zeros((3, 2)).view()), Err(LinalgError::NotSquare { .. })));
    let empty = thin_svd(&Array2::<f32>::zeros((0, 4)).view()).unwrap();
    assert_eq!((empty.u.dim(), empty.s.len(), empty.vt.dim()), ((0, 0), 0, (0, 4)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cholesky_multiplies_back_and_inverts(a in matrix(16)) {
        let n = a.ncols();
        let positive = a.t().dot(&a) + Array2::<f64>::eye(n) * 0.1;
        let factor = cholesky(&positive.view()).unwrap().unwrap();
        let tolerance = tolerance(positive.view());
        prop_assert!(max_abs((factor.lower.dot(&factor.lower.t()) - &positive).view()) <= tolerance);
        let one = factor.lower.dot(&factor.inverse) - Array2::<f64>::eye(n);
        prop_assert!(max_abs(one.view()) <= tolerance * factor.condition());
        prop_assert!(factor.condition() >= n as f64 * (1.0 - 1e-12));
    }

    #[test]
    fn products_and_grams_equal_their_definitions(a in matrix(24), n in 1..24usize) {
        let (m, k) = a.dim();
        let b = Array2::from_shape_fn((k, n), |(i, j)| ((i * 37 + j * 11) % 17) as f64 / 17.0 - 0.5);
        let product = multiply_f64(&a.view(), &b.view()).unwrap();
        prop_assert!(max_abs((&product - &a.dot(&b)).view()) <= tolerance(a.view()));
        // Columns first, as a transpose has them.
        let transposed = multiply_f64(&b.t(), &a.t()).unwrap();
        prop_assert!(max_abs((&transposed.t() - &product).view()) <= tolerance(a.view()));
        let narrow = a.mapv(|x| x as f32);
        let wide = narrow.mapv(f64::from);
        for (gram, expected) in [
            (gram(&narrow.view()), wide.t().dot(&wide)),
            (gram(&narrow.t()), wide.dot(&wide.t())),
        ] {
            prop_assert!(max_abs((&gram - &expected).view()) <= tolerance(wide.view()));
            prop_assert_eq!(&gram, &gram.t());
        }
        let mut out = Array2::from_elem((m, n), f32::NAN);
        multiply(&narrow.view(), &b.mapv(|x| x as f32).view(), &mut out.view_mut()).unwrap();
        let apart = &out.mapv(f64::from) - &wide.dot(&b.mapv(|x| f64::from(x as f32)));
        prop_assert!(max_abs(apart.view()) <= k as f64 * f64::from(f32::EPSILON));
    }

    /// More rows than are widened at once, in either order of memory; columns that nearly cancel keep their precision.
    #[test]
    fn products_in_f64_round_once(a in matrix(24), transposed in any::<bool>()) {
        let (m, k) = a.dim();
        let rows = m * 16;
        let tall = Array2::from_shape_fn((rows, k), |(i, j)| 1.0 + (a[[i % m, j]] * 1e-3 + i as f64 * 1e-5) as f32);
        let b = Array2::from_shape_fn((k, 3), |(i, j)| if (i + j) % 2 == 0 { 1.0 } else { -1.0 });
        let expected = tall.mapv(f64::from).dot(&b);
        let ours = match transposed {
            true => multiply_in_f64(&tall.t().to_owned().t(), &b.view()).unwrap(),
            false => multiply_in_f64(&tall.view(), &b.view()).unwrap(),
        };
        for (&ours, &expected) in ours.iter().zip(&expected) {
            let tolerance = expected.abs() * f64::from(f32::EPSILON) + k as f64 * f64::EPSILON;
            prop_assert!((f64::from(ours) - expected).abs() <= tolerance, "{ours} and {expected}");
        }
    }
}

#[test]
fn what_is_not_positive_definite_has_no_cholesky() {
    let singular = ndarray::array![[1.0, 1.0], [1.0, 1.0]];
    let condition = cholesky(&singular.view()).unwrap().map(|factor| factor.condition());
    assert!(condition.is_none_or(|condition| condition > 1e7), "{condition:?}");
    assert!(cholesky(&ndarray::array![[1.0, 0.0], [0.0, -1.0]].view()).unwrap().is_none());
    let oblong = cholesky(&Array2::zeros((2, 3)).view());
    assert!(matches!(oblong, Err(LinalgError::NotSquare { .. })));
}

#[test]
fn what_is_not_positive_definite_has_no_solution() {
    let b = Array2::<f64>::ones((2, 1));
    let solve = |a: [[f64; 2]; 2]| solve_positive_definite(&ndarray::arr2(&a).view(), &b.view());
    for singular in [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]], [[f64::NAN, 0.0], [0.0, 1.0]]] {
        assert_eq!(solve(singular), Err(LinalgError::NotPositiveDefinite { rows: 2 }));
    }
    assert_eq!(solve([[4.0, 0.0], [0.0, 0.25]]).unwrap(), ndarray::arr2(&[[0.25], [4.0]]));
    let wide = Array2::<f64>::ones((2, 3));
    assert!(matches!(solve_positive_definite(&wide.view(), &b.view()), Err(LinalgError::NotSquare { .. })));
    let square = Array2::<f64>::eye(3);
    assert!(matches!(solve_positive_definite(&square.view(), &b.view()), Err(LinalgError::Shapes { .. })));
}
