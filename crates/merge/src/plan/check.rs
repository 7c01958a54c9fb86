//! What must hold before tensors can be merged.

use super::{Action, Plan};
use crate::MergeError;
use crate::source::{Source, same_bytes};

impl Plan<'_> {
    /// Fails if any tensor is refused.
    ///
    /// # Errors
    /// [`MergeError::Refused`] with every refused tensor and why.
    pub fn check(&self) -> Result<(), MergeError> {
        let refused = self.tensors.iter().filter_map(|tensor| match &tensor.action {
            Action::Refuse(reason) => Some((tensor.key.clone(), reason.clone())),
            _ => None,
        });
        let tensors: Vec<_> = refused.collect();
        if tensors.is_empty() { Ok(()) } else { Err(MergeError::Refused { tensors }) }
    }
}

/// All sources must have one shape; the error says how they differ.
pub(super) fn agree_in_shape(sources: &[Source<'_>]) -> Result<(), String> {
    let mut shapes: Vec<&[usize]> = sources.iter().map(Source::shape).collect();
    shapes.dedup();
    let [first, other, ..] = shapes[..] else { return Ok(()) };
    let differ: Vec<usize> = (0..first.len()).filter(|&i| other.get(i) != first.get(i)).collect();
    // Embeddings and output heads differ in their rows when tokens were added.
    let hint = match (first.len() == other.len(), &differ[..]) {
        (true, [0]) => " (a different vocabulary? resize the embeddings of all models to one size first)",
        _ => "",
    };
    Err(format!("shapes {first:?} and {other:?} differ{hint}"))
}

/// True when every source holds the same bits. Stops at the first difference, so it costs little unless true.
pub(super) fn identical(sources: &[Source<'_>]) -> bool {
    let Some((first, others)) = sources.split_first() else { return true };
    let stored = first.stored();
    !first.is_adapted()
        && others.iter().all(|other| {
            let view = other.stored();
            !other.is_adapted()
                && view.dtype() == stored.dtype()
                && (same_bytes(&view, &stored) || view.bytes() == stored.bytes())
        })
}
