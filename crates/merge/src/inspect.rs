//! What is in a checkpoint, adapter, expert folder, merged checkpoint or single file. Reads headers; masks are read only
//! where no report says what is in them.

mod adapter;
mod merged;
mod tensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use skillweld_merged::layout::STATISTICS;
use skillweld_merged::{ExpertPart, MergedCheckpoint, read_json};
use skillweld_store::{Checkpoint, ExpertFiles, Family, StoreError};

pub use adapter::AdapterInfo;
pub use merged::{MergedInfo, MergedTask};
pub use tensors::{Alias, TensorInfo, Totals};

use crate::MergeError;
use tensors::{Group, Listing};

/// Everything that headers tell about a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// What was inspected.
    pub path: PathBuf,
    /// What it is.
    pub kind: CheckpointKind,
    /// The family of models whose key names it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Sums over all tensors.
    pub total: Totals,
    /// Sums by dtype.
    pub by_dtype: BTreeMap<String, Totals>,
    /// Sums by modality: vision, language, action, other.
    pub by_modality: BTreeMap<String, Totals>,
    /// Tied weights.
    pub aliases: Vec<Alias>,
    /// The LoRA adapter, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterInfo>,
    /// Action head and projectors found beside the weights.
    pub side_files: Vec<SideFile>,
    /// Names in `dataset_statistics.json`: data sets, or tasks of a merged checkpoint.
    pub statistics: Vec<String>,
    /// Of a merged checkpoint: tasks, masks, router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergedInfo>,
    /// Every tensor, file by file.
    pub tensors: Vec<TensorInfo>,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckpointKind {
    /// One file of tensors.
    File,
    /// A whole model.
    Checkpoint,
    /// A LoRA adapter alone.
    Adapter,
    /// A model or an adapter with action head or projectors beside it.
    Expert,
    /// A merged checkpoint of Skillweld.
    Merged,
    /// A merged checkpoint of the published MergeVLA code.
    MergedOfficial,
}

/// A part that lies in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SideFile {
    /// `action_head`, `proprio_projector` or `noisy_action_projector`.
    pub part: String,
    /// The file's name.
    pub file: String,
    /// Sums over its tensors, which are part of the whole's.
    pub total: Totals,
}

/// Looks into `path`.
///
/// # Errors
/// [`MergeError::Store`] when it cannot be read or holds no tensors; [`MergeError::Merged`] for a merged checkpoint whose
/// files do not fit one another.
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection, MergeError> {
    inspect_with_base(path, None)
}

/// As [`inspect`], with the pretrained model for merged checkpoints that do not hold it.
///
/// # Errors
/// As [`inspect`]; also when `path` has no use for a base.
pub fn inspect_with_base(path: impl AsRef<Path>, base: Option<&Path>) -> Result<Inspection, MergeError> {
    let path = path.as_ref();
    if MergedCheckpoint::is_at(path) {
        return merged::inspect(path, base);
    }
    if base.is_some() {
        let problem = "is no merged checkpoint, so it has no base apart from itself; leave `--base` out";
        return Err(MergeError::Unfit { path: path.to_owned(), problem: problem.to_owned() });
    }
    if path.is_dir() { directory(path) } else { file(path) }
}

fn file(path: &Path) -> Result<Inspection, MergeError> {
    let checkpoint = Checkpoint::open(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_part = ExpertPart::ALL.iter().any(|part| name.starts_with(&format!("{}--", part.name())));
    let family = Family::detect(checkpoint.keys().map(tensors::target));
    let mut listing = Listing::new(family);
    listing.add(&checkpoint, if is_part { Group::Action } else { Group::Model });
    Ok(listing.into_inspection(path, CheckpointKind::File))
}

fn directory(path: &Path) -> Result<Inspection, MergeError> {
    let files = ExpertFiles::discover(path)?;
    let adapter_dir = match path.join("adapter_config.json").is_file() {
        true => Some(path),
        false => files.lora_adapter(),
    };
    let adapter = adapter_dir.map(adapter::open).transpose()?;
    let weights = match Checkpoint::open(path) {
        Ok(weights) => Some(weights),
        Err(StoreError::NoWeights { .. } | StoreError::OnlyAdapter { .. })
            if adapter.is_some() || files.parts().next().is_some() =>
        {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let adapted = adapter.iter().map(|(tensors, _)| tensors);
    let keys = weights.iter().chain(adapted).flat_map(Checkpoint::keys).map(tensors::target);
    let mut listing = Listing::new(Family::detect(keys));
    if let Some(weights) = &weights {
        listing.add(weights, Group::Model);
    }
    if let Some((tensors, _)) = &adapter {
        listing.add(tensors, Group::Model);
    }
    let mut side_files = Vec::new();
    for (part, file) in files.parts() {
        let checkpoint = Checkpoint::open(file)?;
        let total = listing.add(&checkpoint, Group::Action);
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        side_files.push(SideFile { part: part.to_owned(), file, total });
    }
    let kind = match (&weights, &adapter) {
        _ if !side_files.is_empty() => CheckpointKind::Expert,
        (None, Some(_)) => CheckpointKind::Adapter,
        _ => CheckpointKind::Checkpoint,
    };
    let mut inspection = listing.into_inspection(path, kind);
    inspection.adapter = adapter.map(|(_, info)| info);
    inspection.side_files = side_files;
    inspection.statistics = statistics(path)?;
    Ok(inspection)
}

/// Names in `dataset_statistics.json`, if it is there.
fn statistics(dir: &Path) -> Result<Vec<String>, MergeError> {
    let path = dir.join(STATISTICS);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let value = read_json(&path)?;
    Ok(value.as_object().into_iter().flat_map(|table| table.keys().cloned()).collect())
}

/// A list of strings in a JSON document.
fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
