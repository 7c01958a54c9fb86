//! A merged checkpoint as a [`Source`]: the weights of one task, decoded block by block from base, task vector and mask.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use skillweld_merged::{ExpertPart, MergedCheckpoint, Scratch, TaskWeight, Weight};
use skillweld_store::StoreError;
use skillweld_tensor::{Dtype, TensorView};

use crate::backend::{Result, ValuesMut};
use crate::weights::{Source, SourceTensor};

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
}

impl Source for TaskSource<'_> {
    fn tensor<'a>(&'a self, key: &str) -> Option<Box<dyn SourceTensor + 'a>> {
        let weight = match self.parts.get(key) {
            Some(part) => TaskWeight { weight: Weight::Shared(*part), mask: None, rescaler: 1.0 },
            None => self.merged.task_weight(self.task, key).ok()?,
        };
        Some(Box::new(TaskTensor { source: self, key: key.to_owned(), weight }))
    }

    fn path(&self) -> &Path {
        self.merged.dir()
    }
}

/// A tensor as one task sees it.
struct TaskTensor<'a> {
    source: &'a TaskSource<'a>,
    key: String,
    weight: TaskWeight<'a>,
}

impl SourceTensor for TaskTensor<'_> {
    fn shape(&self) -> Vec<usize> {
        self.weight.shape().to_vec()
    }

    fn dtype(&self) -> Dtype {
        self.weight.dtype()
    }

    fn read(&self, offset: usize, out: ValuesMut<'_>) -> Result<()> {
        let lock = || self.source.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let weight = &self.weight;
        let read = match out {
            ValuesMut::F32(out) => {
                from_whole_byte(offset, out, |offset, out| weight.decode_block(offset, out, &mut scratch))
            }
            ValuesMut::Bf16(out) => from_whole_byte(offset, out, |offset, out| {
                weight.decode_block_bf16(offset, out, &mut scratch)
            }),
        };
        lock().push(scratch);
        let fail = |source| StoreError::Tensor {
            path: self.source.merged.dir().to_owned(),
            tensor: self.key.clone(),
            source,
        };
        Ok(read.map_err(fail)?)
    }
}

/// Mask bits start at whole bytes: a block that does not is read from the byte before.
fn from_whole_byte<T: Copy + Default, E>(
    offset: usize,
    out: &mut [T],
    mut read: impl FnMut(usize, &mut [T]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let skip = offset % 8;
    if skip == 0 {
        return read(offset, out);
    }
    let mut values = vec![T::default(); out.len() + skip];
    read(offset - skip, &mut values)?;
    out.copy_from_slice(&values[skip..]);
    Ok(())
}
