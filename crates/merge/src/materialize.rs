//! One task's plain checkpoint out of a merged one: Θ₀ + rescaler · M_T ⊙ τ, with the task's action expert beside it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::{Value, json};
use skillweld_merged::layout::{
    BLOCK, FORMAT_VERSION, MAX_SHARD_BYTES, SLAB, STATISTICS, TASK_PROVENANCE, is_provenance, stem,
};
use skillweld_merged::{ExpertPart, MergedCheckpoint, Scratch, TaskWeight, Weight};
use skillweld_store::{
    ExpertFiles, OutputDir, SafetensorsWriter, TensorSpec, copy_file, write_json, write_torch_zip,
};
use skillweld_tensor::TensorView;

use crate::output_guard::{Inputs, guard_output};
use crate::{Control, MergeError};

/// What [`materialize`] wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaterializeReport {
    /// The task.
    pub task: String,
    /// The new checkpoint's directory.
    pub path: PathBuf,
    /// Tensors of the model.
    pub tensors: usize,
    /// Tensors among them that carry the masked task vector; the others are copies.
    pub masked_tensors: usize,
    /// Bytes of the model's tensors.
    pub tensor_bytes: u64,
    /// What the masked task vector was multiplied with.
    pub rescaler: f32,
    /// Elements of the masked tensors that are NaN or infinite: 0 unless the experts were merged with such values, or
    /// Θ₀ + τ exceeds what the dtype holds.
    pub non_finite: u64,
    /// Other files written: action expert, projectors, configuration, tokenizer, statistics, provenance.
    pub side_files: Vec<String>,
}

/// One tensor of the output.
struct Job<'a> {
    key: &'a str,
    weight: TaskWeight<'a>,
}

/// Writes the model of `task` to `out` in Hugging Face layout; it appears complete or not at all, with `force` in the
/// place of an earlier output of Skillweld. Each element is
/// computed in f32 and rounded once to Θ₀'s dtype; tensors without a task vector are copied bit for bit. The bytes do
/// not depend on the number of threads. `control.advance` is told [`MergedCheckpoint::elements`] in all.
///
/// # Errors
/// [`MergeError::Merged`] for a task that the checkpoint does not have, and when the pretrained model is needed but was
/// not given; [`MergeError::Unfit`] for an `out` that is or holds an input or that `force` may not replace;
/// [`MergeError::Store`] from reading and writing; [`MergeError::Cancelled`].
pub fn materialize(
    merged: &MergedCheckpoint,
    task: &str,
    out: &Path,
    force: bool,
    control: &Control<'_>,
) -> Result<MaterializeReport, MergeError> {
    let task_index = merged.task_index(task)?;
    let mut inputs = Inputs::default();
    inputs.add_model(merged.dir());
    merged.checkpoints().for_each(|(_, checkpoint)| inputs.add(checkpoint));
    guard_output(out, force, &inputs)?;
    let jobs = merged
        .keys()
        .into_iter()
        .map(|key| Ok(Job { key, weight: merged.task_weight(task_index, key)? }))
        .collect::<Result<Vec<_>, MergeError>>()?;
    let dir = OutputDir::create(out, force)?;
    let (tensor_bytes, non_finite) = write_weights(dir.path(), &jobs, control)?;
    let side_files = write_side_files(merged, task_index, dir.path())?;
    control.check()?;
    let path = dir.commit()?;
    let is_masked = |job: &&Job<'_>| matches!(job.weight.weight, Weight::Masked { .. });
    Ok(MaterializeReport {
        task: task.to_owned(),
        path,
        tensors: jobs.len(),
        masked_tensors: jobs.iter().filter(is_masked).count(),
        tensor_bytes,
        rescaler: merged.rescaler(task_index),
        non_finite,
        side_files,
    })
}

/// Streams all tensors; gives bytes written and elements that are not finite.
fn write_weights(dir: &Path, jobs: &[Job<'_>], control: &Control<'_>) -> Result<(u64, u64), MergeError> {
    let spec = |job: &Job<'_>| TensorSpec {
        name: job.key.to_owned(),
        dtype: job.weight.dtype(),
        shape: job.weight.shape().to_vec(),
    };
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let layout = jobs.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(dir, stem::MODEL, layout, &metadata, Some(MAX_SHARD_BYTES))?;
    let units: Vec<(usize, Range<usize>)> = jobs
        .iter()
        .enumerate()
        .flat_map(|(tensor, job)| {
            let numel = job.weight.weight.stored().numel();
            (0..numel).step_by(SLAB).map(move |start| (tensor, start..(start + SLAB).min(numel)))
        })
        .collect();
    let non_finite = AtomicU64::new(0);
    control.threads.for_each(units.len(), Buffers::default, |buffers, i| {
        control.check()?;
        let (tensor, slab) = &units[i];
        let job = &jobs[*tensor];
        non_finite.fetch_add(write_slab(&writer, *tensor, job, slab, buffers)?, Ordering::Relaxed);
        (control.advance)(slab.len() as u64);
        Ok::<_, MergeError>(())
    })?;
    Ok((writer.finish()?.tensor_bytes, non_finite.into_inner()))
}

/// What one worker computes in.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    bytes: Vec<u8>,
}

/// Writes one slab of tensor `index`; gives its elements that are not finite.
fn write_slab(
    writer: &SafetensorsWriter,
    index: usize,
    job: &Job<'_>,
    slab: &Range<usize>,
    buffers: &mut Buffers,
) -> Result<u64, MergeError> {
    let bits = job.weight.dtype().bits();
    // Slabs start at whole bytes also where elements take less than one.
    let place = |range: &Range<usize>| range.start * bits / 8..(range.end * bits).div_ceil(8);
    let at = place(slab);
    if let Weight::Shared(view) = job.weight.weight {
        writer.write_at(index, at.start as u64, &view.bytes()[at])?;
        return Ok(0);
    }
    let Buffers { scratch, bytes } = buffers;
    bytes.resize(at.len(), 0);
    let mut non_finite = 0;
    for start in slab.clone().step_by(BLOCK) {
        let block = start..(start + BLOCK).min(slab.end);
        let out = place(&block);
        let out = &mut bytes[out.start - at.start..out.end - at.start];
        non_finite +=
            job.weight.encode_block(start, block.len(), out, scratch).map_err(MergeError::tensor(job.key))?;
    }
    writer.write_at(index, at.start as u64, bytes)?;
    Ok(non_finite)
}

/// Writes the task's action expert, projectors, statistics and provenance and copies everything else; gives the names
/// of the files.
fn write_side_files(merged: &MergedCheckpoint, task: usize, out: &Path) -> Result<Vec<String>, MergeError> {
    let mut names = Vec::new();
    for part in ExpertPart::ALL {
        let tensors: BTreeMap<&str, TensorView<'_>> =
            merged.shared_part(part).chain(merged.own_part(part, task)).collect();
        if tensors.is_empty() {
            continue;
        }
        // A task's name may hold what a file's may not.
        let name = format!("{}--{}_checkpoint.pt", part.name(), merged.tasks()[task].replace('/', "-"));
        write_torch_zip(&out.join(&name), &tensors.into_iter().collect::<Vec<_>>())?;
        names.push(name);
    }
    let files = ExpertFiles::discover(merged.dir())?;
    let of_all_tasks = |name: &str| is_provenance(name) || name == STATISTICS || name.starts_with("README");
    for name in files.companions().filter(|name| !of_all_tasks(name)) {
        copy_file(&files.dir().join(name), &out.join(name))?;
        names.push(name.to_owned());
    }
    if let Some(statistics) = merged.statistics(task) {
        write_json(&out.join(STATISTICS), &Value::Object(statistics.clone()))?;
        names.push(STATISTICS.to_owned());
    }
    // Null where the published code merged, which keeps no hashes.
    let merged_from = &merged.document()["outputs_blake3"];
    let task = &merged.tasks()[task];
    let provenance = json!({"format_version": FORMAT_VERSION, "task": task, "merged_from": merged_from});
    write_json(&out.join(TASK_PROVENANCE), &provenance)?;
    names.push(TASK_PROVENANCE.to_owned());
    Ok(names)
}
