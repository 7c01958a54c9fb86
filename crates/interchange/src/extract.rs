//! A PEFT adapter out of a full fine-tune: τ = Θ_ft − Θ₀ of every linear weight as B·A, its best approximation of rank r
//! (Eckart–Young), in two passes. The first compares all tensors ([`survey`]), the second decomposes those that changed.

mod adapter_files;
mod factors;
mod survey;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::json;
use skillweld_merge::{Control, Inputs, guard_output};
use skillweld_merged::MergedCheckpoint;
use skillweld_store::{Checkpoint, OutputDir};
use skillweld_tensor::Dtype;

use crate::{InterchangeError, provenance};
use adapter_files::AdapterFiles;
use factors::write_factors;
use survey::{Fate, Surveyed, survey};

/// How an adapter is made.
#[derive(Debug, Clone, Copy)]
pub struct ExtractOptions {
    /// Rank of the update of each weight; smaller weights get min(m, n).
    pub rank: usize,
    /// What the factors are stored in: F32, F16 or BF16.
    pub dtype: Dtype,
    /// What becomes of changed tensors that are no linear weights.
    pub others: Others,
    /// Replace an earlier output of Skillweld, at the moment the new one is complete.
    pub force: bool,
}

impl ExtractOptions {
    /// Rank `rank`, factors in f32, other changed tensors saved whole, and nothing is replaced.
    pub fn new(rank: usize) -> Self {
        Self { rank, dtype: Dtype::F32, others: Others::default(), force: false }
    }
}

/// What becomes of changed tensors that are no linear weights: embeddings, norms, biases, convolutions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Others {
    /// Saved whole, as peft does with `modules_to_save` and trained biases; left out where peft cannot hold them.
    #[default]
    Save,
    /// Left out; the report says which, and how much that is.
    LeaveOut,
    /// The first one is an error.
    Refuse,
}

/// What [`extract_lora`] wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExtractReport {
    /// The adapter's directory.
    pub path: PathBuf,
    /// Rank asked for.
    pub rank: usize,
    /// ‖τ − what the adapter holds‖ / ‖τ‖ over all tensors that base and fine-tune share, those left out included.
    pub residual: f64,
    /// ‖τ‖ over the same tensors.
    pub norm: f64,
    /// Bytes of the adapter's tensors.
    pub tensor_bytes: u64,
    /// Tensors that are the same in both.
    pub unchanged: usize,
    /// Weights with factors, by key.
    pub adapted: Vec<AdaptedTensor>,
    /// Changed or new tensors saved whole, by key.
    pub saved: Vec<SavedTensor>,
    /// Changed tensors that the adapter lacks, by key.
    pub left_out: Vec<LeftOutTensor>,
}

/// A weight with factors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdaptedTensor {
    /// Its key in the base.
    pub key: String,
    /// m × n.
    pub shape: [usize; 2],
    /// Rank of its factors.
    pub rank: usize,
    /// ‖τ‖.
    pub norm: f64,
    /// ‖τ − B·A‖ / ‖τ‖ with the factors as stored.
    pub residual: f64,
}

/// A tensor saved whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SavedTensor {
    /// Its key.
    pub key: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// ‖τ‖; `null` for a tensor that the base does not have.
    pub norm: Option<f64>,
}

/// A changed tensor that is not in the adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOutTensor {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
    /// ‖τ‖; `null` where there is no arithmetic.
    pub norm: Option<f64>,
}

/// Writes a PEFT adapter to `out` (`adapter_config.json`, `adapter_model.safetensors`): Θ₀ + B·A is `finetuned` up to the
/// residual that the report gives. The bytes do not depend on the number of threads. `control.advance` is told
/// [`extract_work`] elements in all.
///
/// # Errors
/// [`InterchangeError`]: a rank of 0 or above min(m, n) of every weight; a key that one model lacks, shapes that differ,
/// NaN or infinity, by name; models that are the same; an `out` that exists or lies in an input.
pub fn extract_lora(
    base: &Checkpoint,
    finetuned: &Checkpoint,
    out: &Path,
    options: &ExtractOptions,
    control: &Control<'_>,
) -> Result<ExtractReport, InterchangeError> {
    if !matches!(options.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(InterchangeError::Dtype { dtype: options.dtype });
    }
    let mut inputs = Inputs::default();
    for model in [base, finetuned] {
        refuse_masked(model.dir())?;
        inputs.add(model);
    }
    guard_output(out, options.force, &inputs)?;
    OutputDir::check(out, options.force)?;
    let surveyed = survey(base, finetuned, options, control)?;
    let files = AdapterFiles::lay_out(&surveyed, base, options)?;
    let hashes = hashes([base, finetuned], control)?;
    let dir = OutputDir::create(out, options.force)?;
    let writer = files.create(dir.path(), base.dir())?;
    let (adapted, left_energy) = write_factors(&files, &writer, options, control)?;
    files.write_saved(&writer)?;
    let tensor_bytes = writer.finish()?.tensor_bytes;
    let report = summary(&surveyed, adapted, left_energy, options.rank, tensor_bytes);
    let [base, finetuned] = hashes;
    let result = json!({
        "base_blake3": base, "finetuned_blake3": finetuned, "rank": report.rank, "residual": report.residual,
        "adapted": report.adapted, "saved": report.saved, "left_out": report.left_out,
    });
    provenance::write(dir.path(), "peft", result)?;
    control.check()?;
    Ok(ExtractReport { path: dir.commit()?, ..report })
}

/// Elements that an extraction tells `Control::advance`: every tensor once, and linear weights once more.
pub fn extract_work(base: &Checkpoint, finetuned: &Checkpoint) -> u64 {
    survey::work(base, finetuned)
}

/// A merged checkpoint with masks is no single model: its weights are Θ₀.
fn refuse_masked(dir: &Path) -> Result<(), InterchangeError> {
    if MergedCheckpoint::is_at(dir) && MergedCheckpoint::open(dir).is_ok_and(|merged| merged.is_masked()) {
        let problem = "is a merged checkpoint with task masks, no single model; write one task's weights with `skillweld \
                       materialize` and extract from those";
        return Err(InterchangeError::unfit(dir, problem));
    }
    Ok(())
}

/// Content hashes of both models, side by side.
fn hashes(models: [&Checkpoint; 2], control: &Control<'_>) -> Result<[String; 2], InterchangeError> {
    let hashes = models.map(|_| Mutex::new(String::new()));
    control.threads.for_each(
        2,
        || (),
        |(), i| {
            control.check()?;
            let hash = models[i].content_hash().to_hex().to_string();
            *hashes[i].lock().unwrap_or_else(PoisonError::into_inner) = hash;
            Ok::<_, InterchangeError>(())
        },
    )?;
    Ok(hashes.map(|hash| hash.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// `left_energy`: ‖τ − B·A‖² of all adapted weights.
fn summary(
    surveyed: &[Surveyed<'_>],
    adapted: Vec<AdaptedTensor>,
    mut left_energy: f64,
    rank: usize,
    tensor_bytes: u64,
) -> ExtractReport {
    let (mut saved, mut left_out, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for tensor in surveyed {
        let key = tensor.key.to_owned();
        match &tensor.fate {
            Fate::Unchanged => unchanged += 1,
            Fate::Adapt => {}
            Fate::Save => {
                // A module's unchanged tensors are saved along with its changed ones.
                let shape = tensor.tuned.shape().to_vec();
                saved.push(SavedTensor { key, shape, norm: tensor.norm });
            }
            Fate::LeaveOut(reason) => {
                left_energy += tensor.norm.map_or(0.0, |norm| norm * norm);
                left_out.push(LeftOutTensor { key, reason: (*reason).to_owned(), norm: tensor.norm });
            }
        }
    }
    let norm = surveyed.iter().filter_map(|tensor| tensor.norm).map(|norm| norm * norm).sum::<f64>().sqrt();
    let residual = left_energy.sqrt() / norm;
    ExtractReport {
        path: PathBuf::new(),
        rank,
        residual,
        norm,
        tensor_bytes,
        unchanged,
        adapted,
        saved,
        left_out,
    }
}
