//! Statistics over all tensors are sums over all of them: every tensor must add the same things.

use skillweld_plugin_host::{Bound, Scope};

use super::{Action, Merge, PlannedTensor};
use crate::MergeError;
use crate::error::Mixed;

/// Checks the statistics of merge and mask methods over all tensors.
///
/// # Errors
/// [`MergeError::MixedStatistics`] with two tensors and how they differ.
pub(super) fn check(tensors: &[PlannedTensor<'_>]) -> Result<(), MergeError> {
    agree(tensors, |merge| Some(&merge.method))?;
    agree(tensors, |merge| merge.mask.as_ref())
}

fn agree<'a>(
    tensors: &[PlannedTensor<'a>],
    bound: impl for<'t> Fn(&'t Merge<'a>) -> Option<&'t Bound>,
) -> Result<(), MergeError> {
    let all = || {
        tensors.iter().filter_map(|tensor| match &tensor.action {
            Action::Merge(merge) => Some((tensor.key.as_str(), &**merge, bound(merge)?)),
            _ => None,
        })
    };
    let is_global = |bound: &Bound| bound.plan().scope == Scope::Global;
    let Some((first, merge, expected)) = all().find(|(.., bound)| is_global(bound)) else { return Ok(()) };
    let models = |merge: &Merge<'a>| merge.inputs.iter().map(|input| input.model.to_owned()).collect();
    for (key, other, found) in all() {
        let mixed = if !is_global(found) {
            Mixed::Scopes
        } else if other.inputs.iter().map(|input| input.model).ne(merge.inputs.iter().map(|i| i.model)) {
            Mixed::Models(Box::new([models(merge), models(other)]))
        } else if !expected.same_parameters(found) {
            Mixed::Parameters
        } else {
            continue;
        };
        return Err(MergeError::MixedStatistics {
            method: expected.method().id().to_owned(),
            first: first.to_owned(),
            key: key.to_owned(),
            mixed,
        });
    }
    Ok(())
}
