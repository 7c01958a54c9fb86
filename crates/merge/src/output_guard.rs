//! What `--force` may replace: an earlier output of Skillweld, and nothing that is being read.

use std::fs;
use std::path::{Path, PathBuf};

use skillweld_merged::layout::{PROVENANCE, TASK_PROVENANCE};
use skillweld_store::Checkpoint;

use crate::MergeError;
use crate::plan::Plan;

/// Refuses an `out` that is or holds one of `inputs`; with `force` also a folder that holds something and was not
/// written by Skillweld. Without `force` no folder that holds something is replaced anyway.
pub(crate) fn guard_output<P: AsRef<Path>>(
    out: &Path,
    force: bool,
    inputs: impl IntoIterator<Item = P>,
) -> Result<(), MergeError> {
    let refuse = |problem: String| Err(MergeError::Unfit { path: out.to_owned(), problem });
    let Ok(real_out) = out.canonicalize() else { return Ok(()) };
    let real = |input: P| match input.as_ref() {
        // The folder of a recipe that was given by its bare name.
        path if path.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        path => path.canonicalize().ok(),
    };
    if let Some(input) = inputs.into_iter().filter_map(real).find(|input| input.starts_with(&real_out)) {
        return refuse(format!("is or holds an input ({}); name another output", input.display()));
    }
    let holds_something = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    let is_ours = || [PROVENANCE, TASK_PROVENANCE].iter().any(|name| out.join(name).is_file());
    if force && holds_something && !is_ours() {
        return refuse(format!(
            "is no output of Skillweld (it holds neither {PROVENANCE} nor {TASK_PROVENANCE}), so --force does not replace it; remove the folder yourself, or name another output"
        ));
    }
    Ok(())
}

/// Where a checkpoint lies: its folder, and its files, which may be links to elsewhere.
pub(crate) fn places(checkpoint: &Checkpoint) -> impl Iterator<Item = PathBuf> {
    [checkpoint.path(), checkpoint.dir()].into_iter().chain(checkpoint.files()).map(Path::to_owned)
}

impl Plan<'_> {
    /// Every file and folder that the merge reads: models, adapters, action heads, statistics, tokenizer, recipe, plugins.
    pub(crate) fn places_read(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.recipe.folder.iter().cloned().collect();
        all.extend(self.recipe.locate_tokenizer());
        for model in &self.models.all {
            let files = &model.files;
            let parts = [&files.action_head, &files.proprio_projector, &files.noisy_action_projector];
            let adapter = model.adapter.as_ref().map(|adapter| adapter.adapter.tensors());
            let checkpoints = parts.into_iter().flatten().chain(adapter).chain([&*model.weights]);
            all.push(model.path.clone());
            all.extend(checkpoints.flat_map(places));
            all.extend(files.dataset_statistics.clone());
        }
        all.extend(self.methods_used().into_iter().map(|method| method.path().to_owned()));
        all
    }
}
