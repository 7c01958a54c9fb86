//! Both paths against Adam on the loss as the paper writes it, in f64, on random experts.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use proptest::prelude::*;
use skillweld_plugin_sdk::linalg::ndarray::Array2;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_wudi::Wudi;

type Matrix = Array2<f64>;

const STEPS: i32 = 20;
const LEARNING_RATE: f64 = 1e-3;

/// Adam over ∂/∂τ Σ ‖(τ − τ_k) τ_kᵀ‖² / ‖τ_k‖² = 2 Σ (τ − τ_k) τ_kᵀ τ_k / ‖τ_k‖².
fn reference(experts: &[Matrix]) -> Matrix {
    let mut values = experts[1..].iter().fold(experts[0].clone(), |sum, expert| sum + expert);
    let (mut first, mut second) = (Matrix::zeros(values.dim()), Matrix::zeros(values.dim()));
    for t in 1..=STEPS {
        let mut gradient = Matrix::zeros(values.dim());
        for expert in experts {
            let square: f64 = expert.iter().map(|x| x * x).sum();
            if square > 0.0 {
                gradient = gradient + (&values - expert).dot(&expert.t()).dot(expert) * (2.0 / square);
            }
        }
        first = first * 0.9 + &gradient * 0.1;
        second = second * 0.999 + &gradient * &gradient * 0.001;
        for ((value, first), second) in values.iter_mut().zip(&first).zip(&second) {
            let (first, second) = (first / (1.0 - 0.9f64.powi(t)), second / (1.0 - 0.999f64.powi(t)));
            *value -= LEARNING_RATE * first / (second.sqrt() + 1e-8);
        }
    }
    values
}

#[derive(Debug, Clone)]
struct Case {
    shape: (usize, usize),
    factors: Vec<(Array2<f32>, Array2<f32>)>,
}

fn cases() -> impl Strategy<Value = Case> {
    // More rows than are moved at once.
    (1..130usize, 1..16usize, 1..=4usize).prop_flat_map(|(m, n, experts)| {
        let entries = |len| proptest::collection::vec(-1f32..1.0, len);
        let zero = proptest::bool::weighted(0.1);
        let expert =
            (1..=4usize).prop_flat_map(move |rank| (Just(rank), entries(m * rank), entries(rank * n), zero));
        proptest::collection::vec(expert, experts).prop_map(move |experts| {
            let factors = experts.into_iter().map(|(rank, b, a, zero)| {
                let b = Array2::from_shape_vec((m, rank), b).unwrap();
                let b = if zero { b * 0.0 } else { b };
                (b, Array2::from_shape_vec((rank, n), a).unwrap())
            });
            Case { shape: (m, n), factors: factors.collect() }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wudi_is_adam_on_the_papers_loss(case in cases()) {
        let experts = |step: f64| -> Vec<Matrix> {
            let entry = |(i, x): (usize, f64)| x * (1.0 + if i % 3 == 0 { step } else { -step });
            let expert = |(b, a): &(Array2<f32>, Array2<f32>)| {
                let product = b.mapv(f64::from).dot(&a.mapv(f64::from));
                let values = product.iter().copied().enumerate().map(entry).collect();
                Array2::from_shape_vec(case.shape, values).unwrap()
            };
            case.factors.iter().map(expert).collect()
        };
        let expected = reference(&experts(0.0));
        let dense: Vec<Vec<f32>> =
            experts(0.0).iter().map(|expert| expert.iter().map(|&x| x as f32).collect()).collect();
        let slices: Vec<&[f32]> = dense.iter().map(Vec::as_slice).collect();
        let shape = [case.shape.0, case.shape.1];
        let trial = || {
            Trial::of::<Wudi>()
                .set("iterations", STEPS)
                .set("learning_rate", LEARNING_RATE)
                .experts(&slices)
                .shape(&shape)
        };
        let factored = case.factors.iter().enumerate().fold(trial(), |trial, (k, (b, a))| {
            trial.factors(k, b.as_slice().unwrap(), a.as_slice().unwrap(), b.ncols())
        });
        // A gradient near zero has the sign that rounding gives it: where that of the experts decides, it may move us.
        let step = f64::from(f32::EPSILON);
        let trembling = [step, -step].map(|step| &reference(&experts(step)) - &expected);
        for (trial, path) in [(trial(), "dense"), (factored, "factored")] {
            let (merged, took) = trial.merge_with_path();
            prop_assert_eq!(took.as_deref(), Some(path));
            for (i, (&ours, theirs)) in merged.iter().zip(&expected).enumerate() {
                let trembling = trembling.iter().map(|moved| moved.as_slice().unwrap()[i].abs()).sum::<f64>();
                let apart = (f64::from(ours) - theirs).abs();
                // At most what all steps together move, whatever decides about signs.
                let tolerance = 1e-5 * (1.0 + theirs.abs()) + (64.0 * trembling).min(2.0 * f64::from(STEPS) * LEARNING_RATE);
                prop_assert!(apart <= tolerance, "{path}, element {i}: {ours} and {theirs}, tolerance {tolerance:e}");
            }
        }
    }
}

#[test]
fn one_expert_stays_as_it_is_and_vocabularies_are_averaged() {
    let experts: [&[f32]; 2] = [&[1.0, -2.0, 3.0, 0.5, 0.0, 7.0], &[3.0, 2.0, 1.0, -0.5, 1.0, 1.0]];
    let one = Trial::of::<Wudi>().experts(&experts[..1]).shape(&[2, 3]).merge();
    assert_eq!(one, experts[0]);
    for key in ["model.embed_tokens.weight", "lm_head.weight"] {
        let mean = Trial::of::<Wudi>().key(key).experts(&experts).shape(&[2, 3]).merge();
        assert_eq!(mean, [2.0, 0.0, 2.0, 0.0, 0.5, 4.0]);
    }
    let zero: [&[f32]; 2] = [&[0.0; 6], &[0.0; 6]];
    assert_eq!(Trial::of::<Wudi>().experts(&zero).shape(&[2, 3]).merge(), [0.0; 6]);
}
