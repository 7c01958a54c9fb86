//! Merged task vectors under their masks: how long they are, how much they point the same way.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use skillweld_merged::layout::BLOCK;
use skillweld_merged::{Mask, MergedCheckpoint, TaskVector, Weight};
use skillweld_simd::vectorize;
use skillweld_store::Checkpoint;
use skillweld_tensor::{BitMask, TensorView, count_both, count_ones};

use crate::experts::ExpertSums;
use crate::layers::{Layer, by_layer, cosines, pairs, place};
use crate::masks::Counts;
use crate::tensor::{Model, Rows, row_slabs};
use crate::{Control, ReportError};

/// Merged task vectors of all tasks, M_k ⊙ τ times the task's rescaler; τ itself where there are no masks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskVectors {
    /// Elements of τ.
    pub elements: u64,
    /// ‖τ‖.
    pub norm: f64,
    /// ‖τ‖ / ‖Θ₀‖ over the same tensors.
    pub relative_norm: f64,
    /// ‖M_k ⊙ τ‖ for each task; empty without masks.
    pub norms: Vec<f64>,
    /// Cosines between the tasks' masked τ, tasks × tasks; empty without masks. `null` for a vector of length zero.
    pub cosines: Vec<Vec<f64>>,
    /// The same by layer.
    pub layers: Vec<LayerVectors>,
}

/// Task vectors of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerVectors {
    /// Such as `language_model.model.layers.3`, or the tensor's key outside layers.
    pub layer: String,
    /// What stands before the layer's number; the key outside layers.
    pub stack: String,
    /// The layer's number.
    pub index: Option<usize>,
    /// ‖τ‖.
    pub norm: f64,
    /// ‖τ‖ / ‖Θ₀‖ over the same tensors.
    pub relative_norm: f64,
    /// ‖M_k ⊙ τ‖ for each task.
    pub norms: Vec<f64>,
    /// Mean of the cosines between two different tasks; `None` where there is none.
    pub mean_cosine: Option<f64>,
}

/// Everything that is added up over a tensor in one reading of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    /// Σ Θ₀².
    base: f64,
    /// Σ τ².
    vector: f64,
    /// Σ τ² where both tasks' masks are one, in the order of [`pairs`].
    masked: Vec<f64>,
    pub(crate) counts: Counts,
    pub(crate) experts: ExpertSums,
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Self) {
        self.base += other.base;
        self.vector += other.vector;
        add_all(&mut self.masked, &other.masked);
        self.counts.add(&other.counts);
        self.experts.add(&other.experts);
    }
}

/// mine\[i\] += theirs\[i\], growing to theirs.
pub(crate) fn add_all<T: Copy + Default + std::ops::AddAssign>(mine: &mut Vec<T>, theirs: &[T]) {
    mine.resize(mine.len().max(theirs.len()), T::default());
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += *theirs);
}

vectorize! {
    /// Σ x² over the elements whose bit is one, in f64, over eight interleaved partial sums.
    fn masked_squares(values: &[f32], bits: &[u8]) -> f64 {
        let mut sums = [0.0f64; 8];
        for (values, bits) in values.chunks(8).zip(bits) {
            for (i, value) in values.iter().enumerate() {
                let value = f64::from(*value);
                sums[i] += if bits & (1 << i) == 0 { 0.0 } else { value * value };
            }
        }
        sums.iter().sum()
    }

    /// Σ x·y over the elements whose bit is one, as [`masked_squares`].
    pub(crate) fn masked_product(x: &[f32], y: &[f32], bits: &[u8]) -> f64 {
        let mut sums = [0.0f64; 8];
        for ((x, y), bits) in x.chunks(8).zip(y.chunks(8)).zip(bits) {
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                let product = f64::from(*x) * f64::from(*y);
                sums[i] += if bits & (1 << i) == 0 { 0.0 } else { product };
            }
        }
        sums.iter().sum()
    }

    /// Σ x·y in f64, over eight interleaved partial sums.
    pub(crate) fn product_of(x: &[f32], y: &[f32]) -> f64 {
        let mut sums = [0.0f64; 8];
        for (x, y) in x.chunks(8).zip(y.chunks(8)) {
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                sums[i] += f64::from(*x) * f64::from(*y);
            }
        }
        sums.iter().sum()
    }
}

/// One tensor that a merge changed.
pub(crate) struct Changed<'a> {
    pub(crate) key: &'a str,
    /// Θ₀.
    pub(crate) base: TensorView<'a>,
    pub(crate) vector: TaskVector<'a>,
    /// One a task; none without masks.
    masks: Vec<Mask<'a>>,
}

impl<'a> Changed<'a> {
    /// Every tensor with a merged τ, sorted by key. Without masks τ is what the weights have over `base`.
    ///
    /// # Errors
    /// As [`MergedCheckpoint::weight`].
    pub(crate) fn all(
        merged: &'a MergedCheckpoint,
        base: Option<&'a Checkpoint>,
    ) -> Result<Vec<Self>, ReportError> {
        let mut all = Vec::new();
        for key in merged.keys() {
            let changed = match merged.weight(key)? {
                Weight::Masked { base, vector } => {
                    let masks = (0..merged.tasks().len()).filter_map(|task| merged.mask(task, key)).collect();
                    Some(Self { key, base, vector, masks })
                }
                Weight::Shared(weight) if !merged.is_masked() => {
                    let before = base.and_then(|base| base.get(base.resolve(key)?));
                    let changed = before.filter(|before| {
                        let computable = before.dtype().is_computable() && weight.dtype().is_computable();
                        let same = before.dtype() == weight.dtype() && before.bytes() == weight.bytes();
                        computable && before.shape() == weight.shape() && !same
                    });
                    let vector = TaskVector::Difference(weight);
                    changed.map(|base| Self { key, base, vector, masks: Vec::new() })
                }
                Weight::Shared(_) => None,
            };
            all.extend(changed);
        }
        Ok(all)
    }

    /// True when there is a mask for each of `tasks` tasks.
    pub(crate) fn is_masked(&self, tasks: usize) -> bool {
        tasks > 0 && self.masks.len() == tasks
    }
}

/// Buffers of one worker.
#[derive(Default)]
struct Buffers {
    base: Vec<f32>,
    vector: Vec<f32>,
    bits: Vec<Vec<u8>>,
    both: Vec<u8>,
    experts: Vec<Option<Vec<f32>>>,
}

/// Reads every changed tensor once; gives its sums, in order. `experts` holds one model a task, or none.
pub(crate) fn sums(
    changed: &[Changed<'_>],
    experts: Option<&[Option<Model>]>,
    control: &Control<'_>,
) -> Result<Vec<Sums>, ReportError> {
    let slabs: Vec<(usize, Rows)> = changed
        .iter()
        .enumerate()
        .flat_map(|(index, tensor)| row_slabs(tensor.base.shape()).into_iter().map(move |rows| (index, rows)))
        .collect();
    let results: Vec<Mutex<Sums>> = slabs.iter().map(|_| Mutex::default()).collect();
    control.threads.for_each(slabs.len(), Buffers::default, |buffers, slab| {
        control.check()?;
        let (index, rows) = &slabs[slab];
        let sums = of_slab(&changed[*index], rows, experts, buffers)?;
        *results[slab].lock().unwrap_or_else(PoisonError::into_inner) = sums;
        (control.advance)(rows.elements().len() as u64);
        Ok::<_, ReportError>(())
    })?;
    let mut sums: Vec<Sums> = changed.iter().map(|_| Sums::default()).collect();
    for ((index, _), result) in slabs.iter().zip(results) {
        sums[*index].add(&result.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(sums)
}

fn of_slab(
    tensor: &Changed<'_>,
    rows: &Rows,
    experts: Option<&[Option<Model>]>,
    buffers: &mut Buffers,
) -> Result<Sums, ReportError> {
    let fail = ReportError::tensor(tensor.key);
    if let Some(experts) = experts {
        crate::experts::decode(tensor, rows, experts, &mut buffers.experts)?;
    }
    let elements = rows.elements();
    let mut sums = Sums::default();
    let Buffers { base, vector, bits, both, experts: expert_vectors } = buffers;
    bits.resize_with(tensor.masks.len(), Vec::new);
    for start in elements.clone().step_by(BLOCK) {
        let len = BLOCK.min(elements.end - start);
        base.resize(len, 0.0);
        vector.resize(len, 0.0);
        tensor.base.decode_block(start, base).map_err(&fail)?;
        tensor.vector.decode_block(start, base, vector).map_err(&fail)?;
        for (mask, bits) in tensor.masks.iter().zip(bits.iter_mut()) {
            take_bits(mask, start, len, both, bits);
        }
        let mut block =
            Sums { base: product_of(base, base), vector: product_of(vector, vector), ..Sums::default() };
        for (i, j) in pairs(bits.len()) {
            both.clear();
            both.extend(bits[i].iter().zip(&bits[j]).map(|(a, b)| a & b));
            block.masked.push(masked_squares(vector, both));
        }
        block.counts = Counts::of(len, bits);
        if experts.is_some() {
            let within = start - elements.start..start - elements.start + len;
            let of_block =
                |whole: &'_ Option<Vec<f32>>| whole.as_ref().map(|whole| whole[within.clone()].to_vec());
            let taken: Vec<Option<Vec<f32>>> = expert_vectors.iter().map(of_block).collect();
            block.experts = ExpertSums::of(&taken, vector, bits);
        }
        sums.add(&block);
    }
    Ok(sums)
}

/// A mask's bits of a block, those past its end zero.
fn take_bits(mask: &Mask<'_>, start: usize, len: usize, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(mask.bits(start..start + len, scratch));
    out.truncate(BitMask::byte_len(len));
    if let (Some(last), 1..) = (out.last_mut(), len % 8) {
        *last &= (1 << (len % 8)) - 1;
    }
}

impl Counts {
    /// Counts `len` elements; one packed mask a task, bits past the end zero.
    fn of(len: usize, masks: &[Vec<u8>]) -> Self {
        let count = masks.len();
        if count == 0 {
            return Self::default();
        }
        let both = pairs(count)
            .map(|(i, j)| if i == j { count_ones(&masks[i]) } else { count_both(&masks[i], &masks[j]) });
        let (mut once, mut twice) = (vec![0u8; masks[0].len()], vec![0u8; masks[0].len()]);
        for mask in masks {
            for ((once, twice), mask) in once.iter_mut().zip(&mut twice).zip(mask) {
                *twice |= *once & mask;
                *once |= mask;
            }
        }
        let (once, twice) = (count_ones(&once) as u64, count_ones(&twice) as u64);
        Self {
            elements: len as u64,
            both: both.map(|count| count as u64).collect(),
            selfish: once - twice,
            none: len as u64 - once,
        }
    }
}

/// Sums of τ with their rescalers, as figures.
impl TaskVectors {
    pub(crate) fn new(changed: &[Changed<'_>], sums: &[Sums], rescalers: &[f32]) -> Option<Self> {
        if changed.is_empty() {
            return None;
        }
        let keyed = changed.iter().zip(sums).map(|(tensor, sums)| (tensor.key, sums.clone()));
        let layers = by_layer(keyed, Sums::add);
        let mut total = Sums::default();
        sums.iter().for_each(|sums| total.add(sums));
        let (norms, cosines) = figures(&total, rescalers);
        Some(Self {
            elements: changed.iter().map(|tensor| tensor.base.numel() as u64).sum(),
            norm: total.vector.sqrt(),
            relative_norm: (total.vector / total.base).sqrt(),
            norms,
            cosines,
            layers: layers.iter().map(|(layer, sums)| LayerVectors::new(layer, sums, rescalers)).collect(),
        })
    }
}

/// Norms and cosines of the masked vectors; both empty without masks.
fn figures(sums: &Sums, rescalers: &[f32]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let tasks = rescalers.len();
    if sums.masked.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let norm = |task: usize| f64::from(rescalers[task].abs()) * sums.masked[place(tasks, task, task)].sqrt();
    // A positive factor changes no cosine.
    ((0..tasks).map(norm).collect(), cosines(tasks, &sums.masked))
}

impl LayerVectors {
    fn new(layer: &Layer, sums: &Sums, rescalers: &[f32]) -> Self {
        let (norms, cosines) = figures(sums, rescalers);
        Self {
            layer: layer.name(),
            stack: layer.stack.clone(),
            index: layer.index,
            norm: sums.vector.sqrt(),
            relative_norm: (sums.vector / sums.base).sqrt(),
            norms,
            mean_cosine: mean_of_pairs(&cosines),
        }
    }
}

/// Mean over the pairs of two different ones that are finite.
pub(crate) fn mean_of_pairs(matrix: &[Vec<f64>]) -> Option<f64> {
    let different = matrix.iter().enumerate().flat_map(|(i, row)| row.iter().skip(i + 1));
    let finite: Vec<f64> = different.copied().filter(|value| value.is_finite()).collect();
    (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of two vectors, with the bits of three masks.
    type Element = (f32, f32, [bool; 3]);

    proptest! {
        #[test]
        fn sums_equal_those_by_element(
            elements in proptest::collection::vec((-3f32..3.0, -3f32..3.0, any::<[bool; 3]>()), 1..100),
        ) {
            let (x, y): (Vec<f32>, Vec<f32>) = elements.iter().map(|e| (e.0, e.1)).unzip();
            let masks: Vec<Vec<u8>> = (0..3)
                .map(|k| BitMask::from_bools(&elements.iter().map(|e| e.2[k]).collect::<Vec<_>>()).as_bytes().to_vec())
                .collect();
            let sum = |f: &dyn Fn(&Element) -> f64| elements.iter().map(f).sum::<f64>();
            // f64 sums in another order: each of at most 100 additions rounds by 2⁻⁵³ of at most Σ|terms| ≤ 900.
            let near = |a: f64, b: f64| (a - b).abs() <= 100.0 * 900.0 * f64::EPSILON;
            let keep = |kept: bool, value: f64| if kept { value } else { 0.0 };
            prop_assert!(near(product_of(&x, &y), sum(&|e| f64::from(e.0) * f64::from(e.1))));
            for (k, mask) in masks.iter().enumerate() {
                prop_assert!(near(masked_squares(&x, mask), sum(&|e| keep(e.2[k], f64::from(e.0).powi(2)))));
                let expected = sum(&|e| keep(e.2[k], f64::from(e.0) * f64::from(e.1)));
                prop_assert!(near(masked_product(&x, &y, mask), expected));
            }
            let counts = Counts::of(elements.len(), &masks);
            let count = |f: &dyn Fn(&[bool; 3]) -> bool| elements.iter().filter(|e| f(&e.2)).count() as u64;
            let kept = |bits: &[bool; 3]| bits.iter().filter(|&&b| b).count();
            prop_assert_eq!(counts.selfish, count(&|bits| kept(bits) == 1));
            prop_assert_eq!(counts.none, count(&|bits| kept(bits) == 0));
            let both: Vec<u64> = pairs(3).map(|(i, j)| count(&|bits| bits[i] && bits[j])).collect();
            prop_assert_eq!(&counts.both, &both);
        }
    }

    #[test]
    fn the_mean_leaves_out_what_is_not_there() {
        assert_eq!(
            mean_of_pairs(&[vec![1.0, 0.5, f64::NAN], vec![0.5, 1.0, 0.1], vec![f64::NAN, 0.1, 1.0]]),
            Some(0.3)
        );
        assert_eq!(mean_of_pairs(&[vec![1.0]]), None);
    }
}
