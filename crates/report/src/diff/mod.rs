//! Two checkpoints, key by key.

mod glob;
mod operand;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use skillweld_merged::Scratch;
use skillweld_merged::layout::BLOCK;
use skillweld_simd::vectorize;
use skillweld_store::Family;
use skillweld_tensor::Dtype;

pub use operand::Operand;

use crate::layers::Layer;
use crate::tensor::{Rows, Tensor, row_slabs};
use crate::{Control, ReportError};

/// What two checkpoints have in common and what not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// True when both have the same keys with the same dtypes, shapes and bytes.
    pub equal: bool,
    /// Keys that either has and the pattern takes.
    pub keys: u64,
    /// Keys that are the same in both.
    pub equal_keys: u64,
    /// All others: other shapes first, then by relative distance, the largest first, then those in one alone.
    pub differences: Vec<KeyDifference>,
    /// Sums by modality: vision, language, action, other.
    pub by_modality: BTreeMap<String, Group>,
    /// Sums by layer, and by tensor outside layers; only those with differences.
    pub by_layer: BTreeMap<String, Group>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyDifference {
    /// The key.
    pub key: String,
    /// What is different.
    #[serde(flatten)]
    pub difference: Difference,
}

/// How two tensors differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// B lacks the key.
    OnlyInA {
        /// Dtype in A.
        dtype: &'static str,
        /// Shape in A.
        shape: Vec<usize>,
    },
    /// A lacks the key.
    OnlyInB {
        /// Dtype in B.
        dtype: &'static str,
        /// Shape in B.
        shape: Vec<usize>,
    },
    /// Of other shapes.
    Shape {
        /// Shape in A.
        a: Vec<usize>,
        /// Shape in B.
        b: Vec<usize>,
    },
    /// Other bytes, in a dtype without arithmetic; or in two dtypes, one of them such.
    Bytes {
        /// Dtype in A.
        dtype_a: &'static str,
        /// Dtype in B.
        dtype_b: &'static str,
    },
    /// Other values, or the same in another dtype.
    Values {
        /// Dtype in A.
        dtype_a: &'static str,
        /// Dtype in B.
        dtype_b: &'static str,
        /// Elements that are not equal.
        elements: u64,
        /// Elements of the tensor.
        of: u64,
        /// max |a − b|.
        max_abs: f64,
        /// ‖a − b‖ / ½(‖a‖ + ‖b‖): 0 for equal tensors, about 1.4 for unrelated ones, 2 for opposite ones.
        relative_l2: f64,
        /// a·b / ‖a‖‖b‖; `null` where one is zero.
        cosine: f64,
    },
}

/// Sums over some keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Group {
    /// Keys.
    pub keys: u64,
    /// Those that are not the same in both.
    pub different: u64,
    /// max |a − b| over tensors of one shape.
    pub max_abs: f64,
    /// ‖a − b‖ / ½(‖a‖ + ‖b‖) over the keys whose values differ.
    pub relative_l2: f64,
    #[serde(skip)]
    sums: Sums,
}

/// Sums over two equally long vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    /// Σ a², Σ b², Σ a·b, Σ (a − b)².
    products: [f64; 4],
    max_abs: f64,
    different: u64,
}

vectorize! {
    /// Everything in f64, over eight interleaved partial sums. NaN counts as different from everything.
    fn sums(a: &[f32], b: &[f32]) -> Sums {
        let mut products = [[0.0f64; 8]; 4];
        let (mut largest, mut different) = ([0.0f64; 8], [0u64; 8]);
        for (a, b) in a.chunks(8).zip(b.chunks(8)) {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                different[i] += u64::from(a != b);
                let (a, b) = (f64::from(*a), f64::from(*b));
                let distance = a - b;
                products[0][i] += a * a;
                products[1][i] += b * b;
                products[2][i] += a * b;
                products[3][i] += distance * distance;
                largest[i] = largest[i].max(distance.abs());
            }
        }
        Sums {
            products: products.map(|partial| partial.iter().sum()),
            max_abs: largest.into_iter().fold(0.0, f64::max),
            different: different.iter().sum(),
        }
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.products.iter_mut().zip(other.products).for_each(|(mine, theirs)| *mine += theirs);
        self.max_abs = self.max_abs.max(other.max_abs);
        self.different += other.different;
    }

    fn relative_l2(&self) -> f64 {
        let [a, b, _, distance] = self.products;
        let norm = (a.sqrt() + b.sqrt()) / 2.0;
        if norm == 0.0 { 0.0 } else { distance.sqrt() / norm }
    }

    fn cosine(&self) -> f64 {
        let [a, b, product, _] = self.products;
        f64::clamp(product / (a * b).sqrt(), -1.0, 1.0)
    }
}

/// Two tensors whose values have to be read.
struct Read<'a> {
    key: &'a str,
    a: &'a Tensor<'a>,
    b: &'a Tensor<'a>,
}

impl Comparison {
    /// Compares the keys that `pattern` takes (`*` for anything, `?` for one character; all without one).
    ///
    /// # Errors
    /// [`ReportError`]: a tensor that cannot be decoded, or the user's wish to stop.
    pub fn of(
        a: &Operand,
        b: &Operand,
        pattern: Option<&str>,
        control: &Control<'_>,
    ) -> Result<Self, ReportError> {
        let (a, b) = (a.tensors()?, b.tensors()?);
        let taken = |key: &&String| pattern.is_none_or(|pattern| glob::matches(pattern, key));
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).filter(taken).collect();
        let family = Family::detect(keys.iter().map(|key| key.as_str())).unwrap_or(Family::Llm);
        let mut found: BTreeMap<&str, Difference> = BTreeMap::new();
        let mut reads = Vec::new();
        for key in &keys {
            match (a.get(*key), b.get(*key)) {
                (Some(a), Some(b)) => match unread(a, b) {
                    Some(difference) => drop(found.insert(key, difference)),
                    None => reads.push(Read { key, a, b }),
                },
                (Some(a), None) => drop(found.insert(key, only(a, true))),
                (None, Some(b)) => drop(found.insert(key, only(b, false))),
                (None, None) => {}
            }
        }
        let sums = read(&reads, control)?;
        let mut comparison = Self {
            equal: true,
            keys: keys.len() as u64,
            equal_keys: 0,
            differences: Vec::new(),
            by_modality: BTreeMap::new(),
            by_layer: BTreeMap::new(),
        };
        let summed: BTreeMap<&str, Sums> =
            reads.iter().zip(&sums).map(|(read, sums)| (read.key, *sums)).collect();
        for (read, sums) in reads.iter().zip(&sums) {
            let (dtype_a, dtype_b) = (read.a.stored().dtype(), read.b.stored().dtype());
            // Equal values in other bits (zeros of two signs, NaN of two patterns) are told from equal bytes, where there are bytes.
            let same_bytes = match (read.a.bytes(), read.b.bytes()) {
                (Some(a), Some(b)) => a == b,
                _ => sums.different == 0,
            };
            if dtype_a != dtype_b || !same_bytes {
                let difference = Difference::Values {
                    dtype_a: dtype_a.name(),
                    dtype_b: dtype_b.name(),
                    elements: sums.different,
                    of: read.a.stored().numel() as u64,
                    max_abs: sums.max_abs,
                    relative_l2: sums.relative_l2(),
                    cosine: sums.cosine(),
                };
                found.insert(read.key, difference);
            }
        }
        for key in keys {
            let different = found.contains_key(key.as_str());
            let sums = summed.get(key.as_str()).filter(|_| different);
            // Parts of an action expert lie in files of their own.
            let action = ["action_head.", "proprio_projector.", "noisy_action_projector.", "action_expert/"];
            let modality = match action.iter().any(|prefix| key.starts_with(prefix)) {
                true => skillweld_store::Modality::Action,
                false => family.modality(key.rsplit_once('/').map_or(key, |(_, key)| key)),
            };
            comparison.by_modality.entry(modality.to_string()).or_default().count(different, sums);
            comparison.by_layer.entry(Layer::of(key).name()).or_default().count(different, sums);
            comparison.equal_keys += u64::from(!different);
        }
        comparison.by_layer.retain(|_, group| group.different > 0);
        comparison.equal = found.is_empty();
        let differences =
            found.into_iter().map(|(key, difference)| KeyDifference { key: key.to_owned(), difference });
        comparison.differences = differences.collect();
        comparison.differences.sort_by(|a, b| b.difference.rank().total_cmp(&a.difference.rank()));
        Ok(comparison)
    }
}

impl Difference {
    /// What comes first is worst.
    fn rank(&self) -> f64 {
        match self {
            Self::Shape { .. } => f64::INFINITY,
            Self::Bytes { .. } => f64::MAX,
            Self::Values { relative_l2, .. } if relative_l2.is_nan() => f64::MAX / 2.0,
            Self::Values { relative_l2, .. } => *relative_l2,
            // There may be many, and no number to rank them by.
            Self::OnlyInA { .. } => -1.0,
            Self::OnlyInB { .. } => -2.0,
        }
    }
}

impl Group {
    fn count(&mut self, different: bool, sums: Option<&Sums>) {
        self.keys += 1;
        self.different += u64::from(different);
        if let Some(sums) = sums {
            self.sums.add(sums);
            self.max_abs = self.sums.max_abs;
            self.relative_l2 = self.sums.relative_l2();
        }
    }
}

fn only(tensor: &Tensor<'_>, in_a: bool) -> Difference {
    let stored = tensor.stored();
    let (dtype, shape) = (stored.dtype().name(), stored.shape().to_vec());
    if in_a { Difference::OnlyInA { dtype, shape } } else { Difference::OnlyInB { dtype, shape } }
}

/// What is different without reading values; `None` where they have to be read, or are equal byte by byte.
fn unread(a: &Tensor<'_>, b: &Tensor<'_>) -> Option<Difference> {
    let (view_a, view_b) = (a.stored(), b.stored());
    if view_a.shape() != view_b.shape() {
        return Some(Difference::Shape { a: view_a.shape().to_vec(), b: view_b.shape().to_vec() });
    }
    let computable = |dtype: Dtype| dtype.is_computable();
    let (dtype_a, dtype_b) = (view_a.dtype(), view_b.dtype());
    if !(computable(dtype_a) && computable(dtype_b)) {
        let equal = dtype_a == dtype_b && a.bytes() == b.bytes();
        return (!equal).then(|| Difference::Bytes { dtype_a: dtype_a.name(), dtype_b: dtype_b.name() });
    }
    None
}

/// True when a look at the bytes is enough.
fn same(read: &Read<'_>) -> bool {
    let (a, b) = (read.a.stored(), read.b.stored());
    let bytes = read.a.bytes().is_some_and(|a| read.b.bytes() == Some(a));
    (a.dtype() == b.dtype() && bytes) || !a.dtype().is_computable()
}

/// Sums of every pair, in order, by all threads; zeros where bytes are equal.
fn read(reads: &[Read<'_>], control: &Control<'_>) -> Result<Vec<Sums>, ReportError> {
    (control.start)(reads.iter().map(|read| read.a.stored().numel() as u64).sum());
    let equal: Vec<Mutex<bool>> = reads.iter().map(|_| Mutex::default()).collect();
    control.threads.for_each(
        reads.len(),
        || (),
        |(), index| {
            control.check()?;
            if same(&reads[index]) {
                *equal[index].lock().unwrap_or_else(PoisonError::into_inner) = true;
                (control.advance)(reads[index].a.stored().numel() as u64);
            }
            Ok::<_, ReportError>(())
        },
    )?;
    let mut slabs: Vec<(usize, Rows)> = Vec::new();
    for (index, (read, equal)) in reads.iter().zip(equal).enumerate() {
        if !equal.into_inner().unwrap_or_else(PoisonError::into_inner) {
            slabs.extend(row_slabs(read.a.stored().shape()).into_iter().map(|rows| (index, rows)));
        }
    }
    let results: Vec<Mutex<Sums>> = slabs.iter().map(|_| Mutex::default()).collect();
    let buffers = || (Vec::new(), Vec::new(), Scratch::default());
    control.threads.for_each(slabs.len(), buffers, |(a, b, scratch), slab| {
        control.check()?;
        let (index, rows) = &slabs[slab];
        let fail = ReportError::tensor(reads[*index].key);
        reads[*index].a.decode(rows, a, scratch).map_err(&fail)?;
        reads[*index].b.decode(rows, b, scratch).map_err(&fail)?;
        let mut all = Sums::default();
        a.chunks(BLOCK).zip(b.chunks(BLOCK)).for_each(|(a, b)| all.add(&sums(a, b)));
        *results[slab].lock().unwrap_or_else(PoisonError::into_inner) = all;
        (control.advance)(rows.elements().len() as u64);
        Ok::<_, ReportError>(())
    })?;
    let mut all = vec![Sums::default(); reads.len()];
    for ((index, _), result) in slabs.iter().zip(results) {
        all[*index].add(&result.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_equal_their_definitions(values in proptest::collection::vec((-3f32..3.0, -3f32..3.0), 1..60)) {
            let (a, b): (Vec<f32>, Vec<f32>) = values.iter().copied().unzip();
            let ours = sums(&a, &b);
            let of = |f: &dyn Fn(f64, f64) -> f64| values.iter().map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum::<f64>();
            let norm = |squares: f64| squares.sqrt();
            let (aa, bb, ab, dd) = (of(&|a, _| a * a), of(&|_, b| b * b), of(&|a, b| a * b), of(&|a, b| (a - b) * (a - b)));
            prop_assert!((ours.relative_l2() - norm(dd) / ((norm(aa) + norm(bb)) / 2.0)).abs() < 1e-12);
            prop_assert!((ours.cosine() - ab / (norm(aa) * norm(bb))).abs() < 1e-12);
            let largest = values.iter().map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max);
            prop_assert_eq!(ours.max_abs, largest);
            prop_assert_eq!(ours.different, values.iter().filter(|(a, b)| a != b).count() as u64);
        }
    }

    #[test]
    fn distances_have_their_landmarks() {
        let distance = |a: &[f32], b: &[f32]| sums(a, b).relative_l2();
        assert_eq!(distance(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(distance(&[3.0, 4.0], &[-3.0, -4.0]), 2.0);
        assert_eq!(distance(&[1.0, 0.0], &[0.0, 1.0]), 2f64.sqrt());
        assert_eq!(distance(&[0.0], &[0.0]), 0.0);
        assert!(sums(&[f32::NAN], &[f32::NAN]).relative_l2().is_nan());
        assert_eq!(sums(&[f32::NAN], &[f32::NAN]).different, 1);
    }
}
