//! What a merge did, for people and for `skillweld.json`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::base_files::KeptBase;
use crate::execute::DeviceReport;
use crate::measure::{MaskCounts, Measures, pairs};
use crate::plan::{Plan, TensorGroup};
use crate::recipe::LayerKey;

/// Results of a merge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// How Θ₀ got into the output; `None` without masks. Depends on the file system, so it is not part of the JSON.
    #[serde(skip)]
    pub base: Option<KeptBase>,
    /// Where tensors were merged; `None` without a GPU. The bytes do not depend on it, so it is not part of the JSON.
    #[serde(skip)]
    pub device: Option<DeviceReport>,
    /// Tensors by what happened to them.
    pub tensors: BTreeMap<TensorGroup, u64>,
    /// Tensors by the way in which methods computed them, of those methods that have several and say so: `factored` out of
    /// LoRA factors, `dense` out of whole matrices.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub paths: BTreeMap<String, u64>,
    /// About task masks, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<MaskReport>,
    /// Relative L2 distances between action experts, block by block and then `layer_norm1`, `fc1`, `layer_norm2`, `fc2`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub action_expert: Vec<BlockDistances>,
}

/// Shares of elements that task masks keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MaskReport {
    /// Elements under masks.
    pub elements: u64,
    /// Share kept by exactly one task (the paper finds above 0.75 for four tasks).
    pub selfish_ratio: f64,
    /// Share kept by no task.
    pub kept_by_none: f64,
    /// Share kept, for each task in their order.
    pub kept: IndexMap<String, f64>,
    /// Agreement |M_i ∩ M_j| / |M_i ∪ M_j| (Jaccard) for each pair of tasks, as `[task, task, agreement]`.
    pub agreement: Vec<(String, String, f64)>,
    /// Factor of each task's masked task vector, where the mask method rescales.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescalers: Option<IndexMap<String, f32>>,
    /// The same by layer, in the order of the output's keys.
    pub layers: Vec<LayerReport>,
}

/// Mask shares of one layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerReport {
    /// Such as `language_model.model.layers.3`, or the tensor's name outside layers.
    pub layer: String,
    /// Elements under masks.
    pub elements: u64,
    /// Share kept by exactly one task.
    pub selfish_ratio: f64,
    /// Share kept, in the order of tasks.
    pub kept: Vec<f64>,
}

/// How far experts are apart in one block.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockDistances {
    /// The block's number from 0, or the layer's name.
    pub block: String,
    /// True for parts that stay per task.
    pub per_task: bool,
    /// ‖θ_i − θ_j‖ / ½(‖θ_i‖ + ‖θ_j‖) for each pair of tasks, as `[task, task, distance]`; over all tensors of the block
    /// that both have in one shape, `null` where there are none.
    pub pairs: Vec<(String, String, Option<f64>)>,
    /// Mean over the pairs that can be compared; `null` where there are none.
    pub mean: Option<f64>,
    /// Names of the block's tensors that some two tasks have in different shapes, or in a dtype without arithmetic: no part
    /// of those pairs' distances.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub not_compared: Vec<String>,
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// Values of every pair of tasks with the tasks' names.
pub(crate) fn by_pair<T>(tasks: &[&str], values: impl Iterator<Item = T>) -> Vec<(String, String, T)> {
    let names = pairs(tasks.len()).map(|(i, j)| (tasks[i].to_owned(), tasks[j].to_owned()));
    names.zip(values).map(|((a, b), value)| (a, b, value)).collect()
}

impl Report {
    /// Sums up measurements.
    pub(crate) fn new(
        plan: &Plan<'_>,
        measures: &Measures,
        rescalers: Option<&[f32]>,
        action_expert: Vec<BlockDistances>,
    ) -> Self {
        let mut tensors = BTreeMap::new();
        for tensor in &plan.tensors {
            *tensors.entry(tensor.group()).or_default() += 1;
        }
        let tasks = plan.tasks();
        let masks = plan.masked.then(|| MaskReport::new(plan, measures, &tasks, rescalers));
        Self { base: None, device: None, tensors, paths: measures.paths(), masks, action_expert }
    }
}

impl MaskReport {
    fn new(plan: &Plan<'_>, measures: &Measures, tasks: &[&str], rescalers: Option<&[f32]>) -> Self {
        let mut total = MaskCounts::default();
        let mut layers: Vec<(String, MaskCounts)> = Vec::new();
        for (index, tensor) in plan.tensors.iter().enumerate() {
            let Some(counts) = measures.mask_counts(index) else { continue };
            total.add(&counts);
            let layer = LayerKey::parse(&tensor.key).map(|layer| format!("{}.{}", layer.stack, layer.index));
            let layer = layer.unwrap_or_else(|| tensor.key.clone());
            match layers.iter_mut().find(|(name, _)| *name == layer) {
                Some((_, sum)) => sum.add(&counts),
                None => layers.push((layer, counts)),
            }
        }
        // Names sort `10` before `2`; readers count.
        layers.sort_by_key(|(name, _)| {
            LayerKey::parse(name).map(|layer| (layer.stack.to_owned(), layer.index))
        });
        total.kept.resize(tasks.len(), 0);
        let agreement = pairs(tasks.len()).zip(&total.both).map(|((i, j), &both)| {
            let either = total.kept[i] + total.kept[j] - both;
            // Two empty masks agree.
            if either == 0 { 1.0 } else { both as f64 / either as f64 }
        });
        let named =
            |values: &[f32]| tasks.iter().map(|t| (*t).to_owned()).zip(values.iter().copied()).collect();
        Self {
            elements: total.numel,
            selfish_ratio: share(total.selfish, total.numel),
            kept_by_none: share(total.none, total.numel),
            kept: tasks
                .iter()
                .zip(&total.kept)
                .map(|(t, &k)| ((*t).to_owned(), share(k, total.numel)))
                .collect(),
            agreement: by_pair(tasks, agreement),
            rescalers: rescalers.map(named),
            layers: layers.into_iter().map(LayerReport::new).collect(),
        }
    }
}

impl LayerReport {
    fn new((layer, counts): (String, MaskCounts)) -> Self {
        Self {
            layer,
            elements: counts.numel,
            selfish_ratio: share(counts.selfish, counts.numel),
            kept: counts.kept.iter().map(|&kept| share(kept, counts.numel)).collect(),
        }
    }
}
