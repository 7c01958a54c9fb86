//! Whether the files of a merged checkpoint fit one another. Looks at headers only.

use skillweld_store::Checkpoint;
use skillweld_tensor::{BitMask, Dtype};

use crate::checkpoint::{ACTION_QUERIES, Masks, Vector, is_rescaler};
use crate::error::problem;
use crate::own::{split_task, unknown_task};
use crate::{MergedCheckpoint, MergedError};

impl MergedCheckpoint {
    /// Checks shapes, dtypes and completeness.
    pub(crate) fn check(&self) -> Result<(), MergedError> {
        match &self.vector {
            Vector::None => {}
            Vector::Stored(vector) => self.check_vector(vector, true)?,
            Vector::Official { merged, .. } => self.check_vector(merged, false)?,
        }
        if let (Some(masks), Some(vector)) = (&self.masks, self.vector.file()) {
            self.check_masks(masks, vector)?;
        }
        self.parts.check(&self.dir, &self.tasks)
    }

    /// Every tensor of τ has the shape of Θ₀; with `strict` each has a Θ₀, and both have arithmetic.
    fn check_vector(&self, vector: &Checkpoint, strict: bool) -> Result<(), MergedError> {
        for key in vector.keys().filter(|key| *key != ACTION_QUERIES) {
            let Some(view) = vector.get(key) else { continue };
            let refuse = |text: String| Err(problem(vector.path(), format!("`{key}` {text}; merge again")));
            let Some(base) = self.base(key) else {
                if strict {
                    return refuse("has a task vector but no pretrained value".to_owned());
                }
                continue;
            };
            if view.shape() != base.shape() {
                return refuse(format!(
                    "has shape {:?}, its pretrained value {:?}",
                    view.shape(),
                    base.shape()
                ));
            }
            let odd = [view.dtype(), base.dtype()].into_iter().find(|dtype| !dtype.is_computable());
            if let Some(dtype) = odd.filter(|_| strict) {
                return refuse(format!("has the dtype {dtype}, which has no arithmetic"));
            }
        }
        Ok(())
    }

    /// Every task has a mask of the right length over the same keys.
    fn check_masks(&self, masks: &Masks, vector: &Checkpoint) -> Result<(), MergedError> {
        let path = masks.file.path();
        let refuse = |text: String| Err(problem(path, format!("{text}; merge again")));
        if masks.file.metadata().get("bit_order").is_some_and(|order| order != "little") {
            return refuse("the masks' bit order is not `little`".to_owned());
        }
        let mut counts = vec![0usize; self.tasks.len()];
        for name in masks.file.keys().filter(|name| !name.starts_with("rescaler/")) {
            let (task, key) = split_task(&self.tasks, name).ok_or_else(|| unknown_task(path, name))?;
            if is_rescaler(key) {
                continue;
            }
            let Some(value) = vector.get(key) else {
                return refuse(format!("there is a mask `{name}` but no task vector `{key}`"));
            };
            let Some(mask) = masks.file.get(name) else { continue };
            let (bytes, fits) = if masks.packed {
                (BitMask::byte_len(value.numel()), mask.dtype() == Dtype::U8)
            } else {
                (value.numel(), matches!(mask.dtype(), Dtype::Bool | Dtype::U8))
            };
            if !fits || mask.bytes().len() != bytes {
                let (len, dtype) = (mask.bytes().len(), mask.dtype());
                return refuse(format!(
                    "the mask `{name}` has {len} bytes of {dtype}, but {} elements take {bytes}",
                    value.numel()
                ));
            }
            counts[task] += 1;
        }
        // Our task vectors hold masked keys only; the published code's hold the whole model.
        let expected: Vec<&str> = match &self.vector {
            Vector::Stored(vector) => vector.keys().collect(),
            _ => self.masked_keys().collect(),
        };
        for (task, count) in self.tasks.iter().zip(counts) {
            let lacking = expected.iter().find(|key| masks.file.get(&format!("{task}/{key}")).is_none());
            if let Some(key) = lacking {
                return refuse(format!("task `{task}` has no mask over `{key}`"));
            }
            if count != expected.len() {
                return refuse(format!(
                    "task `{task}` has {count} masks, the first one has {}",
                    expected.len()
                ));
            }
        }
        Ok(())
    }
}
