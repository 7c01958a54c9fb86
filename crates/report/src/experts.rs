//! The experts' own task vectors: how far they point the same way, and how much of each is left in the merge.

use serde::Serialize;
use skillweld_merged::Scratch;
use skillweld_tensor::TensorView;

use crate::ReportError;
use crate::layers::{Layer, by_layer, cosines, pairs, place};
use crate::tensor::{Model, Rows, Tensor, product};
use crate::vectors::{Changed, Sums, add_all, masked_product, mean_of_pairs, product_of};

/// Task vectors τ_k = Θ_k − Θ₀ of the experts, over the tensors that the merge changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpertVectors {
    /// ‖τ_k‖ for each task.
    pub norms: Vec<f64>,
    /// Cosines between the experts' τ_k, tasks × tasks.
    pub cosines: Vec<Vec<f64>>,
    /// Cosine between each expert's τ_k and what its task has of the merged one, M_k ⊙ τ: 1 where nothing is lost.
    pub kept_cosines: Vec<f64>,
    /// The same by layer.
    pub layers: Vec<LayerExperts>,
}

/// Experts in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerExperts {
    /// Such as `language_model.model.layers.3`, or the tensor's key outside layers.
    pub layer: String,
    /// What stands before the layer's number; the key outside layers.
    pub stack: String,
    /// The layer's number.
    pub index: Option<usize>,
    /// ‖τ_k‖ for each task.
    pub norms: Vec<f64>,
    /// Mean of the cosines between two different experts.
    pub mean_cosine: Option<f64>,
    /// Cosine between τ_k and M_k ⊙ τ for each task.
    pub kept_cosines: Vec<f64>,
}

/// Inner products over some elements.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ExpertSums {
    /// Σ τ_i τ_j, in the order of [`pairs`].
    between: Vec<f64>,
    /// Σ M_k τ τ_k for each task.
    with_merged: Vec<f64>,
    /// Σ M_k τ² for each task.
    merged: Vec<f64>,
}

impl ExpertSums {
    /// Of a block: τ_k of each expert (`None` where it lacks the tensor), τ, and the bits of the masks, if there are any.
    pub(crate) fn of(experts: &[Option<Vec<f32>>], vector: &[f32], bits: &[Vec<u8>]) -> Self {
        let product = |a: &Option<Vec<f32>>, b: &Option<Vec<f32>>| match (a, b) {
            (Some(a), Some(b)) => product_of(a, b),
            _ => 0.0,
        };
        let under_mask = |task: usize, other: &[f32]| match bits.get(task) {
            Some(bits) => masked_product(vector, other, bits),
            None => product_of(vector, other),
        };
        Self {
            between: pairs(experts.len()).map(|(i, j)| product(&experts[i], &experts[j])).collect(),
            with_merged: (0..experts.len())
                .map(|task| experts[task].as_ref().map_or(0.0, |expert| under_mask(task, expert)))
                .collect(),
            merged: (0..experts.len()).map(|task| under_mask(task, vector)).collect(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        add_all(&mut self.between, &other.between);
        add_all(&mut self.with_merged, &other.with_merged);
        add_all(&mut self.merged, &other.merged);
    }

    fn norms(&self, tasks: usize) -> Vec<f64> {
        (0..tasks).map(|task| self.between[place(tasks, task, task)].sqrt()).collect()
    }

    fn kept_cosines(&self, tasks: usize) -> Vec<f64> {
        let cosine = |task: usize| {
            let squares = self.between[place(tasks, task, task)] * self.merged[task];
            f64::clamp(self.with_merged[task] / squares.sqrt(), -1.0, 1.0)
        };
        (0..tasks).map(cosine).collect()
    }
}

/// The experts' τ_k of some rows.
///
/// # Errors
/// A tensor that cannot be decoded, or whose shape is not the base's.
pub(crate) fn decode(
    changed: &Changed<'_>,
    rows: &Rows,
    experts: &[Option<Model>],
    out: &mut Vec<Option<Vec<f32>>>,
) -> Result<(), ReportError> {
    let fail = ReportError::tensor(changed.key);
    let mut base: Option<Vec<f32>> = None;
    out.resize_with(experts.len(), || None);
    for (expert, out) in experts.iter().zip(out.iter_mut()) {
        let tensor = match expert {
            Some(expert) => expert.tensor(changed.key)?,
            None => None,
        };
        let Some(tensor) = tensor.filter(|tensor| tensor.stored().shape() == changed.base.shape()) else {
            *out = None;
            continue;
        };
        let mut values = out.take().unwrap_or_default();
        match &tensor {
            // An adapter on the very base: its product is the task vector, without a detour over rounded sums.
            Tensor::Adapted { stored, factors } if same_rows(stored, &changed.base, rows) => {
                values.resize(rows.elements().len(), 0.0);
                product(factors, rows, &mut values);
            }
            tensor => {
                if base.is_none() {
                    let mut decoded = Vec::new();
                    let stored = Tensor::Stored(changed.base);
                    stored.decode(rows, &mut decoded, &mut Scratch::default()).map_err(&fail)?;
                    base = Some(decoded);
                }
                tensor.decode(rows, &mut values, &mut Scratch::default()).map_err(&fail)?;
                let base = base.iter().flatten();
                values.iter_mut().zip(base).for_each(|(value, base)| *value -= base);
            }
        }
        *out = Some(values);
    }
    Ok(())
}

/// True when both hold the same bytes there.
fn same_rows(a: &TensorView<'_>, b: &TensorView<'_>, rows: &Rows) -> bool {
    let bytes = |view: &TensorView<'_>| {
        let size = view.dtype().bits() / 8;
        let elements = rows.elements();
        elements.start * size..elements.end * size
    };
    a.dtype() == b.dtype() && a.bytes().get(bytes(a)) == b.bytes().get(bytes(b))
}

impl ExpertVectors {
    /// `None` where nothing was measured.
    pub(crate) fn new(changed: &[Changed<'_>], sums: &[Sums], tasks: usize) -> Option<Self> {
        let measured = |sums: &ExpertSums| !sums.between.is_empty();
        let keyed = changed.iter().zip(sums).filter(|(_, sums)| measured(&sums.experts));
        let layers =
            by_layer(keyed.map(|(tensor, sums)| (tensor.key, sums.experts.clone())), ExpertSums::add);
        let mut total = ExpertSums::default();
        sums.iter().for_each(|sums| total.add(&sums.experts));
        measured(&total).then(|| Self {
            norms: total.norms(tasks),
            cosines: cosines(tasks, &total.between),
            kept_cosines: total.kept_cosines(tasks),
            layers: layers.iter().map(|(layer, sums)| LayerExperts::new(layer, sums, tasks)).collect(),
        })
    }
}

impl LayerExperts {
    fn new(layer: &Layer, sums: &ExpertSums, tasks: usize) -> Self {
        Self {
            layer: layer.name(),
            stack: layer.stack.clone(),
            index: layer.index,
            norms: sums.norms(tasks),
            mean_cosine: mean_of_pairs(&cosines(tasks, &sums.between)),
            kept_cosines: sums.kept_cosines(tasks),
        }
    }
}
