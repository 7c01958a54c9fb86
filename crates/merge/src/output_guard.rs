//! What `--force` may replace: an earlier output of Skillweld, and nothing that is being read.

use std::fs;
use std::path::{Path, PathBuf};

use skillweld_merged::layout::PROVENANCE_FILES;
use skillweld_store::Checkpoint;

use crate::MergeError;
use crate::plan::Plan;

/// What a merge reads, by path.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Files and folders that an output must neither be nor hold.
    pub(crate) read: Vec<PathBuf>,
    /// Folders of models: an output must not lie within one either, where it would become a part of that model.
    pub(crate) models: Vec<PathBuf>,
}

impl Inputs {
    /// Adds a checkpoint's folder and its files, which may be links to elsewhere.
    pub fn add(&mut self, checkpoint: &Checkpoint) {
        let places = [checkpoint.path(), checkpoint.dir()].into_iter().chain(checkpoint.files());
        self.read.extend(places.map(Path::to_owned));
        self.add_model(checkpoint.path());
    }

    /// Adds a model: a folder of its own, or a file among others.
    pub fn add_model(&mut self, path: &Path) {
        self.read.push(path.to_owned());
        if path.is_dir() {
            self.models.push(path.to_owned());
        }
    }
}

/// Refuses an `out` that is or holds one of `inputs`, or lies within a model's folder; with `force` also a folder that
/// holds something and was not written by Skillweld. Without `force` no folder that holds something is replaced anyway.
///
/// # Errors
/// [`MergeError::Unfit`] with the reason and the remedy.
pub fn guard_output(out: &Path, force: bool, inputs: &Inputs) -> Result<(), MergeError> {
    let refuse = |problem: String| Err(MergeError::Unfit { path: out.to_owned(), problem });
    let real_out = real(out);
    let within = |inner: &Path, outer: &Path| inner.starts_with(outer);
    if let Some(input) = inputs.read.iter().map(|input| real(input)).find(|input| within(input, &real_out)) {
        return refuse(format!("is or holds an input ({}); name another output", input.display()));
    }
    if let Some(model) = inputs.models.iter().map(|model| real(model)).find(|model| within(&real_out, model))
    {
        return refuse(format!(
            "lies inside an input ({}), which would become part of that model; name an output outside of it",
            model.display()
        ));
    }
    let holds_something = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    let is_ours = || PROVENANCE_FILES.iter().any(|name| out.join(name).is_file());
    if force && holds_something && !is_ours() {
        return refuse(format!(
            "is no output of Skillweld (it holds none of {}), so --force does not replace it; remove the folder yourself, or name another output",
            PROVENANCE_FILES.join(", ")
        ));
    }
    Ok(())
}

/// Where a path leads, links followed as far as it exists.
fn real(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        // The folder of a recipe that was given by its bare name.
        return real(Path::new("."));
    }
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        // It ends in `..`.
        (Err(_), Some(parent), None) => {
            let parent = real(parent);
            parent.parent().unwrap_or(&parent).to_owned()
        }
        (Err(_), ..) => path.to_owned(),
    }
}

impl Plan<'_> {
    /// Every file and folder that the merge reads: models, adapters, action heads, statistics, tokenizer, recipe, plugins.
    pub(crate) fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.read.extend(self.recipe.folder.clone());
        inputs.read.extend(self.recipe.locate_tokenizer());
        for model in &self.models.all {
            let files = &model.files;
            let parts = [&files.action_head, &files.proprio_projector, &files.noisy_action_projector];
            let adapter = model.adapter.as_ref().map(|adapter| adapter.adapter.tensors());
            let checkpoints = parts.into_iter().flatten().chain(adapter).chain([&*model.weights]);
            inputs.add_model(&model.path);
            // A folder of measurements is no model, but an input nevertheless.
            let statistics = model.statistics.iter();
            statistics.for_each(|checkpoint| inputs.add(checkpoint));
            checkpoints.for_each(|checkpoint| inputs.add(checkpoint));
            inputs.read.extend(files.dataset_statistics.clone());
        }
        inputs.read.extend(self.methods_used().into_iter().map(|method| method.path().to_owned()));
        inputs
    }
}
