//! A merged checkpoint as a [`Source`]: the weights of one task, decoded block by block from base, task vector and mask.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use skillweld_merged::{ExpertPart, MergedCheckpoint, Scratch};
use skillweld_store::StoreError;
use skillweld_tensor::{Dtype, TensorView};

use crate::PolicyError;
use crate::backend::Result;
use crate::weights::Source;

/// Θ₀ + rescaler · M_k ⊙ τ of one task, with the action expert of all tasks: shared blocks under `action_head.`, expert
/// heads under `experts/<task>/action_head.`.
#[derive(Debug)]
pub struct TaskSource<'a> {
    merged: &'a MergedCheckpoint,
    task: usize,
    /// Action expert and projector, by the names of [`Source`].
    parts: BTreeMap<String, TensorView<'a>>,
    /// Scratch of readers between uses.
    scratch: Mutex<Vec<Scratch>>,
}

impl<'a> TaskSource<'a> {
    /// Looks at `merged` as `task` (an index into its tasks) sees it.
    ///
    /// # Panics
    /// When `task` is no index into the checkpoint's tasks.
    pub fn new(merged: &'a MergedCheckpoint, task: usize) -> Self {
        assert!(task < merged.tasks().len(), "task {task} of {}", merged.tasks().len());
        let mut parts = BTreeMap::new();
        for part in [ExpertPart::ActionHead, ExpertPart::ProprioProjector] {
            let shared =
                merged.shared_part(part).map(|(name, view)| (format!("{}.{name}", part.name()), view));
            parts.extend(shared);
            for expert in 0..merged.tasks().len() {
                let own = merged.own_part(part, expert);
                parts.extend(
                    own.map(|(name, view)| (format!("experts/{expert}/{}.{name}", part.name()), view)),
                );
            }
        }
        Self { merged, task, parts, scratch: Mutex::default() }
    }

    /// The stored tensor that has a key's dtype and shape.
    fn stored(&self, key: &str) -> Option<TensorView<'a>> {
        self.parts.get(key).copied().or_else(|| Some(self.merged.weight(key).ok()?.stored()))
    }

    fn fail(&self, key: &str) -> impl FnOnce(skillweld_tensor::TensorError) -> StoreError {
        let (path, tensor) = (self.merged.dir().to_owned(), key.to_owned());
        move |source| StoreError::Tensor { path, tensor, source }
    }
}

impl Source for TaskSource<'_> {
    fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.stored(key).map(|view| view.shape().to_vec())
    }

    fn dtype(&self, key: &str) -> Option<Dtype> {
        self.stored(key).map(|view| view.dtype())
    }

    fn read(&self, key: &str, offset: usize, out: &mut [f32]) -> Result<()> {
        if let Some(view) = self.parts.get(key) {
            view.decode_block(offset, out).map_err(self.fail(key))?;
            return Ok(());
        }
        let weight = self.merged.task_weight(self.task, key).map_err(PolicyError::from)?;
        let mut scratch =
            self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        // Mask bits start at whole bytes: a block that does not is read from the byte before.
        let skip = offset % 8;
        let read = if skip == 0 {
            weight.decode_block(offset, out, &mut scratch)
        } else {
            let mut values = vec![0.0; out.len() + skip];
            let read = weight.decode_block(offset - skip, &mut values, &mut scratch);
            out.copy_from_slice(&values[skip..]);
            read
        };
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        read.map_err(self.fail(key))?;
        Ok(())
    }

    fn path(&self) -> &Path {
        self.merged.dir()
    }
}
