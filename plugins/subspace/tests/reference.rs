//! Factored and dense paths against the papers' formulas in f64, on random experts.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use proptest::prelude::*;
use skillweld_plugin_sdk::Random;
use skillweld_plugin_sdk::export::Exported;
use skillweld_plugin_sdk::linalg::ndarray::{Array1, Array2, Axis, concatenate, s};
use skillweld_plugin_sdk::linalg::thin_svd;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_subspace::{IsoC, IsoCts, Knots, Tsv};

type Matrix = Array2<f64>;
/// Triplets as columns, values, rows.
type Triplets = (Matrix, Vec<f64>, Matrix);

#[derive(Debug, Clone)]
struct Case {
    shape: (usize, usize),
    /// B and A of each expert.
    factors: Vec<(Array2<f32>, Array2<f32>)>,
}

fn cases() -> impl Strategy<Value = Case> {
    (2..24usize, 2..24usize, 1..=4usize).prop_flat_map(|(m, n, experts)| {
        let entries = |len| proptest::collection::vec(-1f32..1.0, len);
        let expert =
            (1..=5usize).prop_flat_map(move |rank| (Just(rank), entries(m * rank), entries(rank * n)));
        proptest::collection::vec(expert, experts).prop_map(move |experts| {
            let factors = experts.into_iter().map(|(rank, b, a)| {
                (Array2::from_shape_vec((m, rank), b).unwrap(), Array2::from_shape_vec((rank, n), a).unwrap())
            });
            Case { shape: (m, n), factors: factors.collect() }
        })
    })
}

impl Case {
    fn experts(&self) -> Vec<Matrix> {
        let wide = |x: &Array2<f32>| x.mapv(f64::from);
        self.factors.iter().map(|(b, a)| wide(b).dot(&wide(a))).collect()
    }

    /// The experts with each entry off by four roundings of f32, up or down as `direction` draws.
    fn rounded(&self, direction: u64) -> Vec<Matrix> {
        let mut experts = self.experts();
        for (k, expert) in experts.iter_mut().enumerate() {
            let mut signs = vec![0; expert.len()];
            Random::new(direction, k as u32).fill(0, &mut signs);
            for (x, sign) in expert.iter_mut().zip(signs) {
                *x *= 1.0 + if sign % 2 == 0 { 1.0 } else { -1.0 } * 4.0 * f64::from(f32::EPSILON);
            }
        }
        experts
    }

    fn tolerance(&self) -> f64 {
        self.shape.0.max(self.shape.1) as f64 * f64::from(f32::EPSILON)
    }

    /// Both paths of `M` against `reference`.
    fn check<M: Exported>(
        &self,
        with: impl Fn(Trial) -> Trial,
        reference: impl Fn(&[Matrix]) -> Matrix,
    ) -> Result<(), TestCaseError> {
        let experts = self.experts();
        let expected = reference(&experts);
        // Where rounding of the experts moves the result, it moves ours, which rounds some dozens of times on its way. A single
        // direction may happen to move an ill-conditioned result hardly at all: several are tried.
        let moved = |direction| {
            let moved = reference(&self.rounded(direction)) - &expected;
            moved.iter().fold(0.0, |max, &x| f64::max(max, x.abs()))
        };
        let moved = 64.0 * (0..8).map(moved).fold(0.0, f64::max);
        let size: f64 = experts.iter().map(norm).sum();
        // Singular values that tie where some are left out, or that are zero but for rounding: the formula has no answer.
        prop_assume!(moved <= 2e-3 * size);
        let tolerance = 1e-5 * size + moved;
        let dense: Vec<Vec<f32>> =
            experts.iter().map(|expert| expert.iter().map(|&x| x as f32).collect()).collect();
        let slices: Vec<&[f32]> = dense.iter().map(Vec::as_slice).collect();
        let shape = [self.shape.0, self.shape.1];
        let dense = with(Trial::of::<M>()).experts(&slices).shape(&shape);
        let factored = with(Trial::of::<M>()).experts(&slices).shape(&shape);
        let factored = self.factors.iter().enumerate().fold(factored, |trial, (k, (b, a))| {
            trial.factors(k, b.as_slice().unwrap(), a.as_slice().unwrap(), b.ncols())
        });
        for (trial, expected_path) in [(dense, "dense"), (factored, "factored")] {
            let (merged, path) = trial.merge_with_path();
            prop_assert_eq!(path.as_deref(), Some(expected_path));
            for (i, (&ours, theirs)) in merged.iter().zip(&expected).enumerate() {
                let apart = (f64::from(ours) - theirs).abs();
                prop_assert!(
                    apart <= tolerance,
                    "{expected_path}, element {i}: {ours} and {theirs}, {tolerance:e}"
                );
            }
        }
        Ok(())
    }
}

fn norm(x: &Matrix) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The first `most` triplets above `floor` times σ₁, or above `floor` itself where there is a `scale`.
fn svd(x: &Matrix, most: usize, tolerance: f64, scale: Option<f64>) -> Triplets {
    let svd = thin_svd(&x.view()).unwrap();
    let floor = tolerance * scale.unwrap_or(svd.s[0]);
    let count = svd.s.iter().take(most).take_while(|&&s| s > floor).count();
    (
        svd.u.slice(s![.., ..count]).to_owned(),
        svd.s.iter().take(count).copied().collect(),
        svd.vt.slice(s![..count, ..]).to_owned(),
    )
}

/// U Vᵀ over the numerical rank.
fn polar(x: &Matrix, tolerance: f64) -> Matrix {
    if x.is_empty() {
        return x.clone();
    }
    let (u, _, vt) = svd(x, usize::MAX, tolerance, None);
    u.dot(&vt)
}

fn stacks(triplets: &[Triplets]) -> (Matrix, Vec<f64>, Matrix) {
    let u: Vec<_> = triplets.iter().map(|(u, ..)| u.view()).collect();
    let vt: Vec<_> = triplets.iter().map(|(.., vt)| vt.view()).collect();
    let s = triplets.iter().flat_map(|(_, s, _)| s.iter().copied()).collect();
    (concatenate(Axis(1), &u).unwrap(), s, concatenate(Axis(0), &vt).unwrap())
}

fn sum(experts: &[Matrix]) -> Matrix {
    experts[1..].iter().fold(experts[0].clone(), |sum, expert| sum + expert)
}

fn tsv(experts: &[Matrix], most: usize, tolerance: f64) -> Matrix {
    let triplets: Vec<_> = experts.iter().map(|expert| svd(expert, most, tolerance, None)).collect();
    let (u, s, vt) = stacks(&triplets);
    (polar(&u, tolerance) * &Array1::from(s)).dot(&polar(&vt, tolerance))
}

fn iso_c(experts: &[Matrix], tolerance: f64) -> Matrix {
    let (u, s, vt) = svd(&sum(experts), usize::MAX, tolerance, None);
    u.dot(&vt) * (s.iter().sum::<f64>() / s.len() as f64)
}

/// What Iso-CTS orthogonalises: each expert's triplets outside of the common space, and the common ones.
fn iso_cts_stacks(experts: &[Matrix], fraction: f64, tolerance: f64) -> (Matrix, Vec<f64>, Matrix) {
    let all = experts[0].nrows().min(experts[0].ncols());
    let outside = (all - (all as f64 * fraction) as usize) as f64;
    let each = ((outside / experts.len() as f64).round_ties_even() as usize).min(all / experts.len());
    let common = svd(&sum(experts), all - each * experts.len(), tolerance, None);
    let mut triplets: Vec<Triplets> = Vec::new();
    for expert in experts.iter().filter(|_| each > 0) {
        let rest = expert - &common.0.dot(&common.0.t().dot(expert));
        triplets.push(svd(&rest, each, tolerance, Some(norm(expert))));
    }
    triplets.push(common);
    stacks(&triplets)
}

fn iso_cts(experts: &[Matrix], fraction: f64, tolerance: f64) -> Matrix {
    let (u, s, vt) = iso_cts_stacks(experts, fraction, tolerance);
    let mean = if s.is_empty() { 0.0 } else { s.iter().sum::<f64>() / s.len() as f64 };
    polar(&u, tolerance).dot(&polar(&vt, tolerance)) * mean
}

/// σ_max / σ_min.
fn condition(x: &Matrix) -> f64 {
    let s = thin_svd(&x.view()).unwrap().s;
    s.first().map_or(1.0, |first| first / s[s.len() - 1])
}

/// Entries joined as `inside` says, after random dropping with a density and a seed.
fn knots(experts: &[Matrix], inside: &str, dare: Option<(f64, u64)>) -> Matrix {
    let n = experts[0].ncols();
    let views: Vec<_> = experts.iter().map(|expert| expert.view()).collect();
    let all = concatenate(Axis(1), &views).unwrap();
    let decomposed = thin_svd(&all.view()).unwrap();
    let tolerance = all.nrows().max(all.ncols()) as f64 * f64::from(f32::EPSILON);
    let floor = f64::max(1e-4, tolerance * decomposed.s[0]);
    let count = decomposed.s.iter().take_while(|&&s| s > floor).count();
    let s = decomposed.s.slice(s![..count]).to_owned();
    let aligned = decomposed.vt.slice(s![..count, ..]).to_owned() * &s.insert_axis(Axis(1));
    let kept = |k: usize, place: usize| match dare {
        None => 1.0,
        Some((density, seed)) => {
            let mut number = [0];
            Random::new(seed, k as u32).fill(place as u64, &mut number);
            if f64::from(number[0]) < density * 2f64.powi(32) { 1.0 / density } else { 0.0 }
        }
    };
    let mut joined = Matrix::zeros((count, n));
    for ((i, j), out) in joined.indexed_iter_mut() {
        let entries: Vec<f64> =
            (0..experts.len()).map(|k| aligned[[i, k * n + j]] * kept(k, i * n + j)).collect();
        let sum: f64 = entries.iter().sum();
        let agree: Vec<f64> =
            entries.into_iter().filter(|&x| x != 0.0 && (x > 0.0) == (sum >= 0.0)).collect();
        *out = match inside {
            "ties" | "dare_ties" => agree.iter().sum::<f64>() / agree.len().max(1) as f64,
            _ => sum,
        };
    }
    decomposed.u.slice(s![.., ..count]).dot(&joined)
}

proptest! {
    // Some of the cases have no answer.
    #![proptest_config(ProptestConfig { max_global_rejects: 4096, ..ProptestConfig::default() })]

    #[test]
    fn tsv_is_what_the_paper_says(case in cases(), lossless in any::<bool>()) {
        let most = if lossless { usize::MAX } else { case.shape.0.min(case.shape.1) / case.factors.len() };
        let with = |trial: Trial| trial.set("rank", if lossless { "lossless" } else { "top" });
        case.check::<Tsv>(with, |experts| tsv(experts, most, case.tolerance()))?;
    }

    #[test]
    fn iso_c_is_what_the_paper_says(case in cases(), lambda in -2.0..2.0f64) {
        case.check::<IsoC>(|trial| trial.set("lambda", lambda), |experts| iso_c(experts, case.tolerance()) * lambda)?;
    }

    #[test]
    fn iso_cts_is_what_the_paper_says(case in cases(), fraction in 0.0..=1.0f64) {
        // What a single expert has outside of the common space is orthogonal to it on both sides: its formula is not moved by
        // turning the two against each other, what is computed is.
        prop_assume!(case.factors.len() > 1);
        // Vectors that depend on each other have no nearest orthonormal ones: the dense path's come from what rounding left.
        let (u, _, vt) = iso_cts_stacks(&case.experts(), fraction, case.tolerance());
        prop_assume!(condition(&u).max(condition(&vt.t().to_owned())) < 1e3);
        let with = |trial: Trial| trial.set("common_space_fraction", fraction);
        case.check::<IsoCts>(with, |experts| iso_cts(experts, fraction, case.tolerance()))?;
    }

    #[test]
    fn knots_is_what_the_paper_says(case in cases(), ties in any::<bool>()) {
        let inside = if ties { "ties" } else { "task_arithmetic" };
        case.check::<Knots>(|trial| trial.set("inside", inside), |experts| knots(experts, inside, None))?;
    }

    /// What is dropped at random are entries in the common basis: each by its own number.
    #[test]
    fn knots_thins_in_the_common_basis(case in cases(), ties in any::<bool>(), density in 0.1..1.0f64, seed in any::<u64>()) {
        let inside = if ties { "dare_ties" } else { "dare_linear" };
        let with = |trial: Trial| trial.set("inside", inside).set("density", density).seed(seed);
        case.check::<Knots>(with, |experts| knots(experts, inside, Some((density, seed))))?;
    }

    /// With the published null space, full-rank experts give what they give without it.
    #[test]
    fn without_a_null_space_keeping_it_changes_nothing(
        values in proptest::collection::vec(-1f32..1.0, 72), transposed in any::<bool>(),
    ) {
        let shape = if transposed { [9, 4] } else { [4, 9] };
        let experts: Vec<&[f32]> = values.chunks(36).collect();
        let trial = |method: fn() -> Trial, keep: bool| {
            method().set("null_space", if keep { "keep" } else { "drop" }).experts(&experts).shape(&shape).merge()
        };
        for method in [Trial::of::<Tsv>, Trial::of::<IsoC>, Trial::of::<IsoCts>] {
            let (dropped, kept) = (trial(method, false), trial(method, true));
            let scale = dropped.iter().fold(0f32, |max, x| max.max(x.abs()));
            // Random 4 × 9 matrices: σ₁/σ₄ rarely exceeds a thousand.
            prop_assert!(dropped.iter().zip(&kept).all(|(a, b)| (a - b).abs() <= 2e-3 * scale), "{dropped:?}\n{kept:?}");
        }
    }
}
