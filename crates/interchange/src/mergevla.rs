//! A merged checkpoint in the layout of the published MergeVLA code, which `merged` also reads (`merged/src/official.rs`):
//! τ as a whole model, one byte a mask bit, one action head of all tasks, and the order of the tasks.

mod action_head;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};
use skillweld_merge::{Control, Inputs, MergeError, guard_output};
use skillweld_merged::layout::{MAX_SHARD_BYTES, SLAB, STATISTICS, is_provenance, stem};
use skillweld_merged::{ACTION_QUERIES, ExpertPart, Mask, MergedCheckpoint, TaskVector, Weight};
use skillweld_store::{
    ExpertFiles, OutputDir, SafetensorsWriter, TensorSpec, TorchNode, TorchTensor, copy_file, write_json,
    write_torch_file, write_torch_zip,
};
use skillweld_tensor::{Dtype, TensorView};

use crate::InterchangeError;
use crate::provenance;

/// What [`export_mergevla`] wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergeVlaReport {
    /// The new directory.
    pub path: PathBuf,
    /// Tasks, in the order of their expert heads.
    pub tasks: Vec<String>,
    /// Tensors of the model.
    pub tensors: usize,
    /// Tensors among them with a mask for each task.
    pub masked_tensors: usize,
    /// Files written.
    pub files: Vec<String>,
    /// What is different from what the published code itself writes, or needed beside it.
    pub notes: Vec<String>,
}

/// Elements that [`export_mergevla`] tells `Control::advance`: the model once, and each task's masks.
pub fn export_work(merged: &MergedCheckpoint) -> u64 {
    merged.elements() + merged.tasks().len() as u64 * masked_elements(merged)
}

/// Writes `merged` to `out` as the published MergeVLA code lays it out: `model.safetensors` with τ (zeros where nothing was
/// merged, the mean under `action_queries.weight`), `tall_masks.pt`, `task2idx.pt`, `action_head--checkpoint.pt` with the
/// heads of all tasks and the router, projectors, statistics by data set, configuration and tokenizer. Without masks
/// `model.safetensors` has the final weights. Every task's weights are the same bits as before, given the same base.
///
/// # Errors
/// [`InterchangeError::Unfit`] for a checkpoint that has no place in that layout, saying what of it; an `out` that exists
/// or lies in an input.
pub fn export_mergevla(
    merged: &MergedCheckpoint,
    out: &Path,
    force: bool,
    control: &Control<'_>,
) -> Result<MergeVlaReport, InterchangeError> {
    check(merged)?;
    let mut inputs = Inputs::default();
    inputs.add_model(merged.dir());
    merged.checkpoints().for_each(|(_, checkpoint)| inputs.add(checkpoint));
    guard_output(out, force, &inputs)?;
    let dir = OutputDir::create(out, force)?;
    let mut notes = Vec::new();
    let mut files = write_model(merged, dir.path(), control)?;
    let mut write = |name: &str, root: &TorchNode<'_>| {
        let result = write_torch_file(&dir.path().join(name), root);
        // What stops the writer in the middle of a member is the user's wish, or the disk.
        control.check()?;
        files.push(name.to_owned());
        Ok::<_, InterchangeError>(result?)
    };
    let index = |(index, task): (usize, &String)| (task.clone(), TorchNode::Int(index));
    write("task2idx.pt", &TorchNode::Dict(merged.tasks().iter().enumerate().map(index).collect()))?;
    if merged.is_masked() {
        write("tall_masks.pt", &masks(merged, control))?;
        notes.push("the loader adds τ to the pretrained model, which it needs beside this folder".to_owned());
    }
    if let Some(head) = action_head::action_head(merged, &mut notes)? {
        write("action_head--checkpoint.pt", &head)?;
    }
    for part in [ExpertPart::ProprioProjector, ExpertPart::NoisyActionProjector] {
        let tensors: Vec<_> = merged.shared_part(part).collect();
        if !tensors.is_empty() {
            let name = format!("{}--checkpoint.pt", part.name());
            write_torch_zip(&dir.path().join(&name), &tensors)?;
            files.push(name);
        }
    }
    write_beside(merged, dir.path(), &mut files, &mut notes)?;
    let merged_from = &merged.document()["outputs_blake3"];
    provenance::write(dir.path(), "mergevla", json!({"tasks": merged.tasks(), "merged_from": merged_from}))?;
    control.check()?;
    let path = dir.commit()?;
    let masked_tensors = merged.masked_keys().count();
    let tasks = merged.tasks().to_vec();
    Ok(MergeVlaReport { path, tasks, tensors: merged.keys().len(), masked_tensors, files, notes })
}

/// Refuses what that layout has no place for.
fn check(merged: &MergedCheckpoint) -> Result<(), InterchangeError> {
    let refuse = |problem: String| Err(InterchangeError::unfit(merged.dir(), problem));
    if merged.is_official() {
        return refuse("is in that layout already".to_owned());
    }
    if merged.tasks().is_empty() {
        return refuse("has no tasks; merge with a mask or action heads".to_owned());
    }
    for part in [ExpertPart::ProprioProjector, ExpertPart::NoisyActionProjector] {
        if (0..merged.tasks().len()).any(|task| merged.own_part(part, task).next().is_some()) {
            let name = part.name();
            return refuse(format!("has a {name} for each task, and the layout has one for all"));
        }
    }
    if merged.is_masked() && merged.depends_on_task(ACTION_QUERIES).unwrap_or(false) {
        return refuse(format!("has masks for `{ACTION_QUERIES}`, and the layout has their mean"));
    }
    // Their mean lies among Θ₀ and nothing tells them apart; the layout knows one such tensor by name.
    let averaged = merged.document()["report"]["tensors"]["model: averaged"].as_u64().unwrap_or(0);
    let known = u64::from(merged.base(ACTION_QUERIES).is_some());
    if merged.is_masked() && averaged > known {
        return refuse(format!(
            "has {averaged} averaged tensors without pretrained value, and the layout knows only `{ACTION_QUERIES}`"
        ));
    }
    Ok(())
}

fn masked_elements(merged: &MergedCheckpoint) -> u64 {
    merged.masked_keys().filter_map(|key| merged.mask(0, key)).map(|mask| mask.len() as u64).sum()
}

/// What `model.safetensors` holds of one tensor.
enum Stored<'a> {
    Bytes(TensorView<'a>),
    /// As many zeros as this tensor has elements.
    Zeros(TensorView<'a>),
}

impl<'a> Stored<'a> {
    fn of(merged: &'a MergedCheckpoint, key: &str) -> Result<Self, InterchangeError> {
        Ok(match merged.weight(key)? {
            Weight::Masked { vector: TaskVector::Stored(view) | TaskVector::Difference(view), .. } => {
                Self::Bytes(view)
            }
            Weight::Shared(view) if !merged.is_masked() || key == ACTION_QUERIES => Self::Bytes(view),
            Weight::Shared(view) => Self::Zeros(view),
        })
    }

    fn view(&self) -> &TensorView<'a> {
        match self {
            Self::Bytes(view) | Self::Zeros(view) => view,
        }
    }
}

/// Writes `model.safetensors`, or shards; gives the names.
fn write_model(
    merged: &MergedCheckpoint,
    dir: &Path,
    control: &Control<'_>,
) -> Result<Vec<String>, InterchangeError> {
    let mut layout = Vec::new();
    let mut tensors = Vec::new();
    for key in merged.keys() {
        let stored = Stored::of(merged, key)?;
        let view = stored.view();
        layout.push(TensorSpec { name: key.to_owned(), dtype: view.dtype(), shape: view.shape().to_vec() });
        tensors.push(stored);
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let writer = SafetensorsWriter::create(dir, stem::MODEL, layout, &metadata, Some(MAX_SHARD_BYTES))?;
    control.threads.for_each(tensors.len(), Vec::new, |zeros, index| {
        let view = tensors[index].view();
        let len = view.bytes().len();
        for start in (0..len).step_by(SLAB) {
            control.check()?;
            let slab = start..(start + SLAB).min(len);
            match &tensors[index] {
                Stored::Bytes(view) => writer.write_at(index, start as u64, &view.bytes()[slab])?,
                Stored::Zeros(_) => {
                    zeros.resize(SLAB, 0u8);
                    writer.write_at(index, start as u64, &zeros[..slab.len()])?;
                }
            }
        }
        (control.advance)(view.numel() as u64);
        Ok::<_, InterchangeError>(())
    })?;
    let paths = writer.finish()?.paths.into_iter();
    Ok(paths.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
}

/// `{task: {key: bool tensor}}`, with a task's rescaler among its masks where there are any.
fn masks<'a>(merged: &'a MergedCheckpoint, control: &'a Control<'_>) -> TorchNode<'a> {
    let tasks = 0..merged.tasks().len();
    let rescaled = tasks.clone().any(|task| merged.rescaler(task) != 1.0);
    let of_task = |task: usize| {
        let mask = |key: &'a str| {
            let mask = merged.mask(task, key)?;
            let shape = merged.base(key)?.shape();
            let tensor = TorchTensor::new(Dtype::Bool, shape, move |out| write_flags(&mask, control, out));
            Some((key.to_owned(), TorchNode::Tensor(tensor)))
        };
        let mut entries: Vec<_> = merged.masked_keys().filter_map(mask).collect();
        if rescaled {
            let value = merged.rescaler(task).to_le_bytes();
            let tensor = TorchTensor::new(Dtype::F32, &[], move |out| out.write_all(&value));
            entries.push(("rescaler".to_owned(), TorchNode::Tensor(tensor)));
        }
        (merged.tasks()[task].clone(), TorchNode::Dict(entries))
    };
    TorchNode::Dict(tasks.map(of_task).collect())
}

/// One byte an element, as `torch.bool`.
fn write_flags(mask: &Mask<'_>, control: &Control<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (mut flags, mut scratch) = (Vec::new(), Vec::new());
    for start in (0..mask.len()).step_by(SLAB) {
        control.check().map_err(|error: MergeError| io::Error::other(error))?;
        let slab = start..(start + SLAB).min(mask.len());
        let bits = mask.bits(slab.clone(), &mut scratch);
        flags.clear();
        flags.extend(bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)).take(slab.len()));
        out.write_all(&flags)?;
        (control.advance)(slab.len() as u64);
    }
    Ok(())
}

/// Statistics by data set, configuration, tokenizer.
fn write_beside(
    merged: &MergedCheckpoint,
    out: &Path,
    names: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<(), InterchangeError> {
    let files = ExpertFiles::discover(merged.dir())?;
    let of_ours = |name: &str| is_provenance(name) || name == STATISTICS || name.starts_with("README");
    for name in files.companions().filter(|name| !of_ours(name)) {
        copy_file(&files.dir().join(name), &out.join(name))?;
        names.push(name.to_owned());
    }
    let statistics = statistics(merged, notes);
    if !statistics.is_empty() {
        write_json(&out.join(STATISTICS), &Value::Object(statistics))?;
        names.push(STATISTICS.to_owned());
    }
    Ok(())
}

/// The table of all data sets. The published code looks for a task's under the task's name, or with `_no_noops` behind it.
fn statistics(merged: &MergedCheckpoint, notes: &mut Vec<String>) -> Map<String, Value> {
    let mut all = Map::new();
    for (index, task) in merged.tasks().iter().enumerate() {
        let Some(own) = merged.statistics(index) else { continue };
        all.extend(own.clone());
        let found = own.contains_key(task) || own.contains_key(&format!("{task}_no_noops"));
        if let (false, [(data_set, value)]) = (found, &own.iter().collect::<Vec<_>>()[..]) {
            notes.push(format!("statistics of task `{task}` are those of `{data_set}`, under both names"));
            all.insert(task.clone(), (*value).clone());
        }
    }
    all
}
