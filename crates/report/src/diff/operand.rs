//! What can be compared: a model, a file, an adapter on its base or alone, a merged checkpoint or one task of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use skillweld_merged::{ExpertPart, MergedCheckpoint, Role, Weight};
use skillweld_store::{Adapter, Checkpoint, ExpertFiles};

use crate::ReportError;
use crate::tensor::{Model, Tensor, lone_adapter};

/// One side of a comparison.
#[derive(Debug)]
pub struct Operand(Kind);

#[derive(Debug)]
enum Kind {
    /// Weights, with an adapter or without, and what lies beside them.
    Model { model: Model, parts: Vec<(&'static str, Checkpoint)> },
    /// The tensors of a lone adapter.
    Adapter(Adapter),
    /// Every file of a merged checkpoint.
    Merged(MergedCheckpoint),
    /// One task of it.
    Task(MergedCheckpoint, usize),
}

/// What stands before the keys of a merged checkpoint's files.
const fn prefix(role: Role) -> &'static str {
    match role {
        Role::TaskVector => "task_vector/",
        Role::Masks => "masks/",
        Role::ActionExpert => "action_expert/",
        Role::Router => "router/",
        _ => "",
    }
}

impl Operand {
    /// Opens `path`. `task` takes one task of a merged checkpoint as its weights would be; `base` is what an adapter lies on,
    /// or what a merged checkpoint does not hold.
    ///
    /// Action heads and projectors have `action_head.`, `proprio_projector.` or `noisy_action_projector.` before their keys;
    /// a merged checkpoint taken whole has `task_vector/`, `masks/`, `action_expert/` and `router/` before those of its files.
    ///
    /// # Errors
    /// [`ReportError`] naming the file; [`ReportError::Unfit`] for a task of what is no merged checkpoint.
    pub fn open(path: &Path, task: Option<&str>, base: Option<&Path>) -> Result<Self, ReportError> {
        if MergedCheckpoint::is_at(path) {
            // Most hold their base; only those that do not may be given one.
            let merged = match MergedCheckpoint::open_with_base(path, base) {
                Err(error) if base.is_some() => MergedCheckpoint::open(path).map_err(|_| error)?,
                other => other?,
            };
            return Ok(Self(match task {
                Some(task) => {
                    let index = merged.task_index(task)?;
                    Kind::Task(merged, index)
                }
                None => Kind::Merged(merged),
            }));
        }
        if let Some(task) = task {
            let problem = format!("is no merged checkpoint, so it has no task `{task}`; leave the task out");
            return Err(ReportError::Unfit { path: path.to_owned(), problem });
        }
        let adapter = lone_adapter(path);
        if let (Some(adapter), None) = (&adapter, base) {
            return Ok(Self(Kind::Adapter(Adapter::open(adapter)?)));
        }
        let weights = match (&adapter, base) {
            (Some(_), Some(base)) => Checkpoint::open(base)?,
            _ => Checkpoint::open(path)?,
        };
        let model = Model::new(Arc::new(weights), adapter.as_deref())?;
        let mut parts = Vec::new();
        if path.is_dir() {
            for (part, file) in ExpertFiles::discover(path)?.parts() {
                parts.push((part, Checkpoint::open(file)?));
            }
        }
        Ok(Self(Kind::Model { model, parts }))
    }

    /// Every key with its tensor, sorted.
    ///
    /// # Errors
    /// A tensor that cannot be told: the base of a published checkpoint is missing.
    pub(crate) fn tensors(&self) -> Result<BTreeMap<String, Tensor<'_>>, ReportError> {
        let mut all = BTreeMap::new();
        let stored = |checkpoint: &'_ Checkpoint, prefix: &str| {
            let keys = checkpoint.keys().map(str::to_owned).collect::<Vec<_>>();
            keys.into_iter().map(|key| (format!("{prefix}{key}"), key)).collect::<Vec<_>>()
        };
        match &self.0 {
            Kind::Adapter(adapter) => {
                for (name, key) in stored(adapter.tensors(), "") {
                    all.extend(adapter.tensors().get(&key).map(|view| (name, Tensor::Stored(view))));
                }
            }
            Kind::Model { model, parts } => {
                for key in model.keys() {
                    all.extend(model.tensor(key)?.map(|tensor| (key.to_owned(), tensor)));
                }
                for (part, checkpoint) in parts {
                    for (name, key) in stored(checkpoint, &format!("{part}.")) {
                        all.extend(checkpoint.get(&key).map(|view| (name, Tensor::Stored(view))));
                    }
                }
            }
            Kind::Merged(merged) => {
                for (role, checkpoint) in merged.checkpoints() {
                    for (name, key) in stored(checkpoint, prefix(role)) {
                        // The first file that has a key counts, as when the checkpoint is used.
                        if let Some(view) = checkpoint.get(&key) {
                            all.entry(name).or_insert(Tensor::Stored(view));
                        }
                    }
                }
            }
            Kind::Task(merged, task) => {
                for key in merged.keys() {
                    let tensor = match merged.weight(key)? {
                        Weight::Shared(view) => Tensor::Stored(view),
                        Weight::Masked { .. } => Tensor::Task(merged.task_weight(*task, key)?),
                    };
                    all.insert(key.to_owned(), tensor);
                }
                for part in ExpertPart::ALL {
                    for (name, view) in merged.shared_part(part).chain(merged.own_part(part, *task)) {
                        all.insert(format!("{}.{name}", part.name()), Tensor::Stored(view));
                    }
                }
            }
        }
        Ok(all)
    }
}
