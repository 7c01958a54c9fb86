//! Random inputs: tensors that are awkward on purpose.

use core::fmt;

use proptest::prelude::*;
use skillweld_plugin_host::{Kind, Method, flags};

use crate::parameters::{Parameters, Reach};

/// One tensor of all experts, with what else a call needs.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) shape: Vec<usize>,
    /// Task vectors or weights, one an expert.
    pub(crate) experts: Vec<Vec<f32>>,
    /// One an expert for methods that need them: an element's importance, or with `MATRIX` a Gram matrix.
    pub(crate) statistics: Vec<Vec<f32>>,
    /// They are Gram matrices.
    pub(crate) gram: bool,
    /// Θ₀.
    pub(crate) base: Vec<f32>,
    /// Mask methods: the merged task vector τ = Σ τ_k.
    pub(crate) merged: Vec<f32>,
    pub(crate) parameters: Parameters,
    pub(crate) seed: u64,
}

/// What values to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Small integers times one power of two a tensor: sums and products with tame parameters are exact, zeros, ties
    /// in magnitude and opposite entries are common.
    Exact,
    /// Any mantissa, exponents from 2⁻²⁰ to 2²⁰.
    Rough,
}

impl Case {
    /// Cases for `method` with so many experts (cut to what it takes).
    pub(crate) fn strategy(
        method: &Method,
        experts: core::ops::RangeInclusive<usize>,
        values: Values,
        reach: Reach,
    ) -> BoxedStrategy<Self> {
        let min = (*experts.start()).max(method.min_experts());
        let max = method.max_experts().unwrap_or(usize::MAX).min((*experts.end()).max(min)).max(min);
        let method = method.clone();
        let matrix = method.has(flags::MATRIX);
        (if method.only_matrices() { matrix_shape().boxed() } else { shape().boxed() }, min..=max)
            .prop_flat_map(move |(shape, expert_count)| {
                let numel = shape.iter().product();
                let statistics = match method.has(flags::NEEDS_STATISTICS) {
                    true => proptest::collection::vec(statistics(&shape, matrix), expert_count).boxed(),
                    false => Just(Vec::new()).boxed(),
                };
                let tensor = || tensor(numel, values);
                let experts = proptest::collection::vec(tensor(), expert_count);
                let parameters = Parameters::strategy(&method, expert_count, reach);
                let is_mask = method.kind() == Kind::Mask;
                // One scale for all tensors of a case: different ones would make sums inexact.
                let scale = proptest::sample::select(vec![1.0, 2f32.powi(-20), 2f32.powi(20)]);
                let tensors = (experts, statistics, tensor());
                (Just(shape), tensors, parameters, any::<u64>(), scale).prop_map(
                    move |(shape, (experts, statistics, mut base), parameters, seed, scale)| {
                        let merged = if is_mask { sum(&experts, numel) } else { Vec::new() };
                        base.iter_mut().for_each(|x| *x *= scale);
                        Self { shape, experts, statistics, gram: matrix, base, merged, parameters, seed }
                            .map(|x| x * scale)
                    },
                )
            })
            .boxed()
    }

    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same case with `change` applied to every value of every expert (and of τ).
    pub(crate) fn map(&self, change: impl Fn(f32) -> f32) -> Self {
        let all = |values: &[f32]| values.iter().map(|&x| change(x)).collect();
        Self {
            experts: self.experts.iter().map(|expert| all(expert)).collect(),
            merged: all(&self.merged),
            ..self.clone()
        }
    }

    /// The same values over and over along the first axis, for at least `numel` elements; an empty case stays empty.
    pub(crate) fn tiled(&self, numel: usize) -> Self {
        let times = numel.div_ceil(self.numel().max(1));
        let mut shape = if self.shape.is_empty() { vec![1] } else { self.shape.clone() };
        shape[0] *= times;
        let experts = self.experts.iter().map(|expert| expert.repeat(times)).collect();
        // Of a matrix more rows come, whose inputs are those of the others.
        let repeated = |values: &Vec<f32>| if self.gram { values.clone() } else { values.repeat(times) };
        Self {
            shape,
            experts,
            statistics: self.statistics.iter().map(repeated).collect(),
            base: self.base.repeat(times),
            merged: self.merged.repeat(times),
            ..self.clone()
        }
    }

    /// One case in four longer than the tiles that methods compute in (512 or 1024 elements). Long ones are short ones
    /// over and over, so that they are drawn and shrunk as fast; few periods divide a tile.
    pub(crate) fn some_long(cases: BoxedStrategy<Self>) -> BoxedStrategy<Self> {
        const LONG_NUMEL: usize = 1100;
        let long = cases.clone().prop_map(|case| case.tiled(LONG_NUMEL));
        prop_oneof![3 => cases, 1 => long].boxed()
    }

    /// The same case with other experts, τ being their sum.
    pub(crate) fn with_experts(&self, experts: Vec<Vec<f32>>) -> Self {
        let merged = if self.merged.is_empty() { Vec::new() } else { sum(&experts, self.numel()) };
        Self { experts, merged, ..self.clone() }
    }
}

fn sum(experts: &[Vec<f32>], numel: usize) -> Vec<f32> {
    (0..numel).map(|i| experts.iter().map(|expert| expert[i]).sum()).collect()
}

/// A case and what a law does with it.
#[derive(Debug, Clone)]
pub(crate) struct With<T> {
    pub(crate) case: Case,
    /// What `extra` is, for the message.
    pub(crate) what: &'static str,
    pub(crate) extra: T,
}

impl<T: fmt::Debug> fmt::Display for With<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}: {:?}", self.case, self.what, self.extra)
    }
}

/// Up to about 200 elements: more than a vector register, with tails of every length, and at times none.
fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => Just(vec![]),
        6 => (0..=40usize).prop_map(|n| vec![n]),
        2 => (100..=200usize).prop_map(|n| vec![n]),
        6 => (1..=12usize, 1..=12usize).prop_map(|(m, n)| vec![m, n]),
        2 => (1..=4usize, 1..=5usize, 1..=6usize).prop_map(|(l, m, n)| vec![l, m, n]),
    ]
}

fn matrix_shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => (0..=2usize, 0..=2usize).prop_map(|(m, n)| vec![m, n]),
        9 => (1..=12usize, 1..=12usize).prop_map(|(m, n)| vec![m, n]),
    ]
}

/// What one expert's owner may have measured: means of squares, often zero; or XᵀX of a few inputs X.
fn statistics(shape: &[usize], matrix: bool) -> BoxedStrategy<Vec<f32>> {
    if !matrix {
        let square = prop_oneof![1 => Just(0.0), 4 => (0..=8i32).prop_map(|exponent| 2f32.powi(-exponent))];
        return proptest::collection::vec(square, shape.iter().product::<usize>()).boxed();
    }
    let columns = shape.last().copied().unwrap_or_default();
    let input = proptest::collection::vec((-2..=2i8).prop_map(f32::from), columns);
    let gram = move |inputs: Vec<Vec<f32>>| {
        let entry = |i: usize| inputs.iter().map(|input| input[i / columns] * input[i % columns]).sum();
        (0..columns * columns).map(entry).collect()
    };
    proptest::collection::vec(input, 1..=2 * columns.max(1)).prop_map(gram).boxed()
}

fn tensor(numel: usize, values: Values) -> BoxedStrategy<Vec<f32>> {
    let elements = |element: BoxedStrategy<f32>| proptest::collection::vec(element, numel);
    match values {
        Values::Exact => {
            let integer = prop_oneof![2 => Just(0i8), 5 => -3..=3i8, 2 => -64..=64i8].prop_map(f32::from);
            elements(integer.boxed()).boxed()
        }
        Values::Rough => {
            let float =
                (-1f32..1.0, -20..=20i32).prop_map(|(mantissa, exponent)| mantissa * 2f32.powi(exponent));
            elements(prop_oneof![1 => Just(0.0), 9 => float].boxed()).boxed()
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shape {:?}, {} experts, seed {}", self.shape, self.experts.len(), self.seed)?;
        write!(f, "parameters: {}", self.parameters)?;
        for (k, expert) in self.experts.iter().enumerate() {
            write!(f, "\nexpert {k}: {}", shortened(expert))?;
        }
        for (k, statistics) in self.statistics.iter().take(self.experts.len()).enumerate() {
            write!(f, "\nstatistics of expert {k}: {}", shortened(statistics))?;
        }
        if self.merged.is_empty() { Ok(()) } else { write!(f, "\nmerged: {}", shortened(&self.merged)) }
    }
}

/// All values of a short tensor, the first few nonzero ones of a long one: shrinking turns what does not matter to zero.
fn shortened(values: &[f32]) -> String {
    const SHOWN: usize = 16;
    if values.len() <= SHOWN {
        return format!("{values:?}");
    }
    let nonzero: Vec<String> = (values.iter().enumerate().filter(|(_, x)| **x != 0.0))
        .map(|(i, x)| format!("[{i}] = {x:?}"))
        .collect();
    if nonzero.is_empty() {
        return format!("{} zeros", values.len());
    }
    let more =
        if nonzero.len() > SHOWN { format!(", and {} more", nonzero.len() - SHOWN) } else { String::new() };
    format!("zero but for {}{more}", nonzero[..nonzero.len().min(SHOWN)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tensors_are_shown_by_what_is_not_zero() {
        assert_eq!(shortened(&[0.0, 1.5]), "[0.0, 1.5]");
        let mut long = vec![0.0; 100];
        assert_eq!(shortened(&long), "100 zeros");
        long[7] = -2.0;
        assert_eq!(shortened(&long), "zero but for [7] = -2.0");
        long[20..40].fill(1.0);
        assert!(shortened(&long).ends_with("[34] = 1.0, and 5 more"), "{}", shortened(&long));
    }
}
