//! Task masks: how much each task keeps, how far two agree, how much is kept by one alone.

use serde::Serialize;

use crate::layers::{Layer, by_layer, place};
use crate::vectors::{Changed, Sums, add_all};

/// Counts over the masks of one tensor, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) elements: u64,
    /// Elements kept by both of a pair of tasks, i ≤ j.
    pub(crate) both: Vec<u64>,
    /// Kept by exactly one task.
    pub(crate) selfish: u64,
    /// Kept by no task.
    pub(crate) none: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.elements += other.elements;
        self.selfish += other.selfish;
        self.none += other.none;
        add_all(&mut self.both, &other.both);
    }

    fn kept(&self, tasks: usize) -> Vec<f64> {
        (0..tasks).map(|task| share(self.both[place(tasks, task, task)], self.elements)).collect()
    }
}

/// Shares of elements that task masks keep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaskShares {
    /// Elements under masks.
    pub elements: u64,
    /// Share kept by exactly one task (the paper finds above 0.75 for four tasks).
    pub selfish_ratio: f64,
    /// Share kept by no task.
    pub kept_by_none: f64,
    /// Share kept, for each task.
    pub kept: Vec<f64>,
    /// |M_i ∩ M_j| / |M_i ∪ M_j| (Jaccard), tasks × tasks; two empty masks agree.
    pub agreement: Vec<Vec<f64>>,
    /// The agreement of masks that keep as much each, at random: k_i k_j / (k_i + k_j − k_i k_j).
    pub agreement_by_chance: Vec<Vec<f64>>,
    /// Factor of each task's masked task vector; 1 for mask methods without.
    pub rescalers: Vec<f32>,
    /// The same by layer.
    pub layers: Vec<LayerMasks>,
}

/// Mask shares of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerMasks {
    /// Such as `language_model.model.layers.3`, or the tensor's key outside layers.
    pub layer: String,
    /// What stands before the layer's number; the key outside layers.
    pub stack: String,
    /// The layer's number.
    pub index: Option<usize>,
    /// Elements under masks.
    pub elements: u64,
    /// Share kept by exactly one task.
    pub selfish_ratio: f64,
    /// Share kept, for each task.
    pub kept: Vec<f64>,
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

impl MaskShares {
    /// `None` without masks.
    pub(crate) fn new(changed: &[Changed<'_>], sums: &[Sums], rescalers: Vec<f32>) -> Option<Self> {
        let tasks = rescalers.len();
        let masked = || changed.iter().zip(sums).filter(|(tensor, _)| tensor.is_masked(tasks));
        let layers = by_layer(masked().map(|(tensor, sums)| (tensor.key, sums.counts.clone())), Counts::add);
        let mut total = Counts::default();
        masked().for_each(|(_, sums)| total.add(&sums.counts));
        if total.elements == 0 {
            return None;
        }
        let kept = total.kept(tasks);
        let agreement = |i: usize, j: usize| {
            let both = total.both[place(tasks, i, j)];
            let either = total.both[place(tasks, i, i)] + total.both[place(tasks, j, j)] - both;
            if either == 0 { 1.0 } else { both as f64 / either as f64 }
        };
        let chance = |i: usize, j: usize| {
            let both = if i == j { kept[i] } else { kept[i] * kept[j] };
            let either = kept[i] + kept[j] - both;
            if either == 0.0 { 1.0 } else { both / either }
        };
        let table = |value: &dyn Fn(usize, usize) -> f64| {
            (0..tasks).map(|i| (0..tasks).map(|j| value(i, j)).collect()).collect()
        };
        Some(Self {
            elements: total.elements,
            selfish_ratio: share(total.selfish, total.elements),
            kept_by_none: share(total.none, total.elements),
            agreement: table(&agreement),
            agreement_by_chance: table(&chance),
            kept,
            rescalers,
            layers: layers.iter().map(|(layer, counts)| LayerMasks::new(layer, counts, tasks)).collect(),
        })
    }
}

impl LayerMasks {
    fn new(layer: &Layer, counts: &Counts, tasks: usize) -> Self {
        Self {
            layer: layer.name(),
            stack: layer.stack.clone(),
            index: layer.index,
            elements: counts.elements,
            selfish_ratio: share(counts.selfish, counts.elements),
            kept: counts.kept(tasks),
        }
    }
}
