//! A LoRA expert may come as its factors B·A (arXiv 2106.09685); whoever accepts them must give what the multiplied-out
//! matrix gives, unless its result hangs on the last bits: which of two equal singular values comes first, whether a tiny
//! one counts. Nobody can ask two ways of computing to agree there. Factors of small whole numbers have an exact product, so only the method itself rounds.

use proptest::collection::vec;
use proptest::prelude::*;
use skillweld_plugin_host::{Kind, Method, flags};
use skillweld_tensor::LowRank;

use super::Law;
use crate::case::{Case, With};
use crate::parameters::{Parameters, Reach};
use crate::report::Outcome;
use crate::subject::{Finding, Subject, require};
use crate::tolerance::{close, of_element};
use crate::trial::{Setup, run};

pub(crate) const LAW: Law = Law {
    name: "low_rank",
    statement: "Experts as factors B·A give what the same experts give as matrices, within f32 rounding of them.",
    check,
};

fn check(subject: &Subject<'_>) -> Outcome {
    let method = subject.method;
    if !method.has(flags::LOW_RANK) {
        return Outcome::Skipped { reason: "does not take factors".into() };
    }
    subject.for_all(&cases(method), |With { case, extra: factors, .. }| {
        let dense = run(method, case, &Setup::default())?;
        let factored = run(method, case, &Setup { factors, ..Setup::default() })?;
        require(dense.masks == factored.masks, || "the masks differ".into())?;
        let trembling = tremble(method, case, &dense.values)?;
        // Inside a product of factors the terms may be larger than what is left of them.
        let terms = factors.iter().zip(&case.experts).map(|(factors, expert)| match factors {
            Some(factors) => product(&factors.b().mapv(f32::abs), &factors.a().mapv(f32::abs)),
            None => expert.clone(),
        });
        let terms = case.with_experts(terms.collect());
        for (i, (&a, &b)) in dense.values.iter().zip(&factored.values).enumerate() {
            // Ranks are at most 3, so a product of factors adds at most 4 roundings.
            require(close(a, b, 4.0 * of_element(method, &terms, i) + trembling), || {
                format!("element {i} is {a} from matrices and {b} from factors")
            })?;
        }
        Ok(())
    })
}

/// Room for what a change in the experts' last bits does to a method on whole matrices; none for others, which have no
/// such places.
fn tremble(method: &Method, case: &Case, values: &[f32]) -> Result<f64, Finding> {
    if !method.has(flags::MATRIX) {
        return Ok(0.0);
    }
    let mut largest = 0.0f64;
    for signs in [0b0110_1001u8, 0b1101_0010, 0b1011_1000] {
        let change = |(i, x): (usize, &f32)| {
            let step = if signs >> (i % 8) & 1 == 1 { f32::EPSILON } else { -f32::EPSILON };
            x * (1.0 + step)
        };
        let moved = case.experts.iter().map(|expert| expert.iter().enumerate().map(change).collect());
        let moved = run(method, &case.with_experts(moved.collect()), &Setup::default())?;
        let apart = values.iter().zip(&moved.values).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        largest = apart.fold(largest, f64::max);
    }
    Ok(TREMBLING * largest)
}

/// Roundings of f32 are some, and not in the direction that was tried.
const TREMBLING: f64 = 128.0;

fn product(b: &ndarray::Array2<f32>, a: &ndarray::Array2<f32>) -> Vec<f32> {
    b.dot(a).iter().copied().collect()
}

fn cases(method: &Method) -> impl Strategy<Value = With<Vec<Option<LowRank>>>> + use<> {
    let (min, method) = (method.min_experts(), method.clone());
    let max = method.max_experts().unwrap_or(usize::MAX).min(min.max(4));
    (1..=9usize, 1..=9usize, min..=max).prop_flat_map(move |(rows, columns, expert_count)| {
        let entries = |len| vec((-4..=4i8).prop_map(f32::from), len);
        let expert = (1..=3usize).prop_flat_map(move |rank| {
            (Just(rank), entries(rows * rank), entries(rank * columns), prop::bool::weighted(0.8))
        });
        let reach = prop_oneof![Just(Reach::Defaults), Just(Reach::Tame)];
        let parameters_of = method.clone();
        let parameters =
            reach.prop_flat_map(move |reach| Parameters::strategy(&parameters_of, expert_count, reach));
        let is_mask = method.kind() == Kind::Mask;
        (vec(expert, expert_count), parameters, entries(rows * columns), any::<u64>()).prop_filter_map(
            "shapes of factors",
            move |(experts, parameters, base, seed)| {
                let mut factors = Vec::new();
                let mut dense = Vec::new();
                for (rank, b, a, as_factors) in experts {
                    let b = ndarray::Array2::from_shape_vec((rows, rank), b).ok()?;
                    let a = ndarray::Array2::from_shape_vec((rank, columns), a).ok()?;
                    dense.push(product(&b, &a));
                    factors.push(if as_factors { Some(LowRank::new(b, a).ok()?) } else { None });
                }
                let merged = if is_mask { vec![0.0; rows * columns] } else { Vec::new() };
                let case = Case {
                    shape: vec![rows, columns],
                    experts: Vec::new(),
                    statistics: Vec::new(),
                    gram: false,
                    base,
                    merged,
                    parameters,
                    seed,
                };
                Some(With { case: case.with_experts(dense), what: "factors", extra: factors })
            },
        )
    })
}
