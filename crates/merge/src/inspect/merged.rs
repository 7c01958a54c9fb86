use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use skillweld_merged::layout::block_index;
use skillweld_merged::{ExpertPart, MergedCheckpoint, Role};
use skillweld_store::{Checkpoint, Family};

use super::tensors::{Group, Listing};
use super::{CheckpointKind, Inspection, statistics};
use crate::MergeError;
use crate::measure::MaskCounts;
use crate::report::Report;

/// What a merged checkpoint keeps for its tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergedInfo {
    /// The tasks, in the order of their expert heads.
    pub tasks: Vec<MergedTask>,
    /// Merge and mask methods, as `task_arithmetic 0.1.0`.
    pub methods: Vec<String>,
    /// Every task has its own mask over the task vector.
    pub masked: bool,
    /// The pretrained model is not part of it and must be named with `--base`.
    pub needs_base: bool,
    /// Elements under masks.
    pub masked_elements: u64,
    /// Share of the masked elements kept, mean over the tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
    /// Share kept by exactly one task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selfish_ratio: Option<f64>,
    /// Share kept by no task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_by_none: Option<f64>,
    /// Blocks of the action expert that every task has of its own.
    pub head_blocks: usize,
    /// Dimensions of the router's subspaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_rank: Option<usize>,
}

/// One task of a merged checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergedTask {
    /// Its name.
    pub name: String,
    /// Share of the masked elements that it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
    /// What its masked task vector is multiplied with.
    pub rescaler: f32,
    /// Bytes of its expert head.
    pub head_bytes: u64,
}

/// Shares over all masks.
struct Shares {
    elements: u64,
    selfish_ratio: f64,
    kept_by_none: f64,
    /// In the order of tasks.
    kept: Vec<f64>,
}

pub(super) fn inspect(path: &Path, base: Option<&Path>) -> Result<Inspection, MergeError> {
    let merged = MergedCheckpoint::open_with_base(path, base)?;
    let weights = merged.checkpoints().filter(|(role, _)| *role == Role::Weights);
    let mut listing =
        Listing::new(Family::detect(weights.flat_map(|(_, checkpoint)| Checkpoint::keys(checkpoint))));
    for (role, checkpoint) in merged.checkpoints() {
        let group = match role {
            Role::Weights | Role::TaskVector => Group::Model,
            Role::Masks => Group::PerTask(merged.tasks()),
            _ => Group::Action,
        };
        listing.add(checkpoint, group);
    }
    let kind = if merged.is_official() { CheckpointKind::MergedOfficial } else { CheckpointKind::Merged };
    let mut inspection = listing.into_inspection(path, kind);
    inspection.statistics = statistics(path)?;
    inspection.merged = Some(describe(&merged));
    Ok(inspection)
}

fn describe(merged: &MergedCheckpoint) -> MergedInfo {
    let shares = merged.is_masked().then(|| reported(merged).unwrap_or_else(|| counted(merged)));
    let task = |(index, name): (usize, &String)| MergedTask {
        name: name.clone(),
        density: shares.as_ref().map(|shares| shares.kept[index]),
        rescaler: merged.rescaler(index),
        head_bytes: merged
            .own_part(ExpertPart::ActionHead, index)
            .map(|(_, view)| view.bytes().len() as u64)
            .sum(),
    };
    let tasks: Vec<MergedTask> = merged.tasks().iter().enumerate().map(task).collect();
    MergedInfo {
        methods: methods(merged.document()),
        masked: merged.is_masked(),
        needs_base: merged.needs_base(),
        masked_elements: shares.as_ref().map_or(0, |shares| shares.elements),
        density: shares
            .as_ref()
            .map(|shares| shares.kept.iter().sum::<f64>() / shares.kept.len().max(1) as f64),
        selfish_ratio: shares.as_ref().map(|shares| shares.selfish_ratio),
        kept_by_none: shares.as_ref().map(|shares| shares.kept_by_none),
        head_blocks: head_blocks(merged),
        router_rank: (!tasks.is_empty())
            .then(|| merged.router(0))
            .and_then(|pairs| pairs.first().map(|pair| pair.adapter.shape()[0])),
        tasks,
    }
}

fn methods(document: &Value) -> Vec<String> {
    let methods = document["methods"].as_array().into_iter().flatten();
    let name = |method: &Value| {
        let id = method["id"].as_str()?;
        Some(method["version"].as_str().map_or_else(|| id.to_owned(), |version| format!("{id} {version}")))
    };
    methods.filter_map(name).collect()
}

fn head_blocks(merged: &MergedCheckpoint) -> usize {
    if merged.tasks().is_empty() {
        return 0;
    }
    let own = merged.own_part(ExpertPart::ActionHead, 0);
    let mut blocks: Vec<usize> = own.filter_map(|(name, _)| block_index(name)).collect();
    blocks.dedup();
    blocks.len()
}

/// What the merge itself counted.
fn reported(merged: &MergedCheckpoint) -> Option<Shares> {
    let report: Report = serde_json::from_value(merged.document()["report"].clone()).ok()?;
    let masks = report.masks?;
    let kept = merged.tasks().iter().map(|task| masks.kept.get(task).copied()).collect::<Option<_>>()?;
    let (elements, selfish_ratio, kept_by_none) = (masks.elements, masks.selfish_ratio, masks.kept_by_none);
    Some(Shares { elements, selfish_ratio, kept_by_none, kept })
}

/// Counts now, one key after the other.
fn counted(merged: &MergedCheckpoint) -> Shares {
    let mut total = MaskCounts { kept: vec![0; merged.tasks().len()], ..MaskCounts::default() };
    for key in merged.masked_keys() {
        let masks: Vec<_> = (0..merged.tasks().len()).filter_map(|task| merged.mask(task, key)).collect();
        let len = masks.first().map_or(0, |mask| mask.len());
        let packed: Vec<Vec<u8>> = masks.iter().map(|mask| mask.to_packed().into_owned()).collect();
        total.add(&MaskCounts::of(len, &packed));
    }
    let share = |part: u64| if total.numel == 0 { 0.0 } else { part as f64 / total.numel as f64 };
    Shares {
        elements: total.numel,
        selfish_ratio: share(total.selfish),
        kept_by_none: share(total.none),
        kept: total.kept.iter().map(|&kept| share(kept)).collect(),
    }
}
