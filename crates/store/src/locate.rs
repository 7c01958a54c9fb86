//! Which files of a directory are the model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Where a model's weights lie.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    File(PathBuf),
    /// A `*.index.json` beside its shards.
    Index(PathBuf),
}

/// Parts of a MergeVLA or Prismatic expert that lie beside its weights, as `<part>--*checkpoint.pt`.
pub(crate) const SIDE_PARTS: [&str; 3] = ["action_head", "proprio_projector", "noisy_action_projector"];

/// Names that Hugging Face gives to a whole model, best first.
const USUAL: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Files that hold tensors but no model: a training run's, and the statistics of LeRobot's processors.
const NOT_WEIGHTS: [&str; 9] = [
    "adapter_model",
    "training_args",
    "optimizer",
    "scheduler",
    "rng_state",
    "tall_masks",
    "task2idx",
    "policy_preprocessor",
    "policy_postprocessor",
];

/// Finds the weights at `path`: a file of a kind that we read, or the one in a directory.
pub(crate) fn locate(path: &Path) -> Result<Weights, StoreError> {
    if path.is_dir() { in_directory(path) } else { single(path) }
}

fn single(path: &Path) -> Result<Weights, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".index.json") {
        Ok(Weights::Index(path.to_owned()))
    } else if name.ends_with(".safetensors") || is_torch(path) {
        Ok(Weights::File(path.to_owned()))
    } else {
        // A path that does not exist deserves that answer, not one about its ending.
        fs::metadata(path).map_err(StoreError::io("open", path))?;
        Err(StoreError::UnknownFormat { path: path.to_owned() })
    }
}

/// True for the endings that PyTorch checkpoints bear.
pub(crate) fn is_torch(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["bin", "pt", "pth"].iter().any(|torch| ending == *torch))
}

fn in_directory(dir: &Path) -> Result<Weights, StoreError> {
    let names = file_names(dir)?;
    if let Some(usual) = USUAL.iter().find(|usual| names.iter().any(|name| name == *usual)) {
        return single(&dir.join(usual));
    }
    // Otherwise one file may stand alone under any name; an index is preferred to the shards it names.
    let not_weights =
        |name: &str| NOT_WEIGHTS.iter().any(|prefix| name.starts_with(prefix)) || is_side_part(name);
    for endings in
        [&[".safetensors.index.json"][..], &[".safetensors"], &[".bin.index.json"], &[".bin", ".pt", ".pth"]]
    {
        let is_candidate =
            |name: &&String| endings.iter().any(|ending| name.ends_with(ending)) && !not_weights(name);
        let candidates: Vec<String> = names.iter().filter(is_candidate).cloned().collect();
        match &candidates[..] {
            [] => {}
            [only] => return single(&dir.join(only)),
            _ => {
                return Err(StoreError::Ambiguous { dir: dir.to_owned(), what: "weights", candidates });
            }
        }
    }
    if names.iter().any(|name| name == "adapter_config.json") {
        return Err(StoreError::OnlyAdapter { dir: dir.to_owned() });
    }
    Err(StoreError::NoWeights { dir: dir.to_owned() })
}

/// True for `action_head--*checkpoint.pt` and its like.
pub(crate) fn is_side_part(name: &str) -> bool {
    SIDE_PARTS.iter().any(|part| is_part(name, part))
}

pub(crate) fn is_part(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.starts_with("--") && rest.ends_with("checkpoint.pt"))
}

/// Names of the files in `dir` (links followed), sorted, so that nothing depends on the order of the directory.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io("read", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", dir))?;
        if let (true, Ok(name)) = (entry.path().is_file(), entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
