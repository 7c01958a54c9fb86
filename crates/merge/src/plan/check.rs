//! What must hold before tensors can be merged.

use skillweld_merged::layout::BLOCK;

use super::build::Context;
use super::{Action, Part, Plan, PlannedTensor};
use crate::MergeError;
use crate::models::{Model, Models};
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

impl Context<'_> {
    /// Fails when there is nothing to merge.
    ///
    /// # Errors
    /// [`MergeError::NoExperts`] when the recipe lists the base alone.
    pub(super) fn check_models(&self) -> Result<(), MergeError> {
        match self.recipe.base {
            Some(base) if self.tasks.is_empty() && self.method.takes_task_vectors() => {
                Err(MergeError::NoExperts { base: self.models.all[base].path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Compares the names in base and experts; gives notes on those that only one side has.
    ///
    /// # Errors
    /// [`MergeError::Names`] when the experts' keys are the base's behind a prefix, or have nothing in common with them.
    pub(super) fn check_names(&self, tensors: &[PlannedTensor<'_>]) -> Result<Vec<String>, MergeError> {
        let Some(base) = self.recipe.base.map(|base| &self.models.all[base]) else { return Ok(Vec::new()) };
        let in_base = |key: &str| base.weights.resolve(key).is_some();
        let experts: Vec<&Model> = self.experts().into_iter().map(|i| &self.models.all[i]).collect();
        let in_experts = |key: &str| {
            experts.iter().any(|model| model.keys().contains(key) || model.weights.resolve(key).is_some())
        };
        for expert in &experts {
            for key in expert.keys().into_iter().filter(|key| !in_base(key)) {
                for prefix in ["model.", "_groot_model."] {
                    let (longer, other) = (format!("{prefix}{key}"), key.strip_prefix(prefix));
                    let (ours, without) = match other.filter(|other| in_base(other)) {
                        Some(_) => (&expert.name, &base.name),
                        None if in_base(&longer) => (&base.name, &expert.name),
                        None => continue,
                    };
                    return Err(MergeError::Names(format!(
                        "`{key}` of {}: {ours} names its tensors with a leading `{prefix}`, {without} without; convert one of them",
                        expert.name
                    )));
                }
            }
        }
        if !self.recipe.slices.iter().any(|slice| slice.layer_count().is_some())
            && !experts.is_empty()
            && !base.weights.is_empty()
            && !base.weights.keys().any(in_experts)
        {
            return Err(MergeError::Names(format!(
                "no tensor of the base model {} is in any expert",
                base.path.display()
            )));
        }
        let one_sided = |what: &str, wanted: &dyn Fn(&PlannedTensor<'_>) -> bool| {
            let keys: Vec<&str> = tensors.iter().filter(|t| wanted(t)).map(|t| t.key.as_str()).collect();
            let more = if keys.len() > 1 { format!(" and {} more", keys.len() - 1) } else { String::new() };
            keys.first().map(|first| format!("{what}: {first}{more}"))
        };
        let of_base = |tensor: &PlannedTensor<'_>| match tensor.part {
            Part::Model => in_base(&tensor.key),
            Part::ActionExpert => base.files.get(&tensor.key).is_some(),
        };
        let averaged = one_sided("averaged, because the base has no such tensor", &|tensor| {
            matches!(tensor.action, Action::Average(_)) && !of_base(tensor)
        });
        let of = subject(
            &experts.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(),
            "alone has",
            "have",
        );
        let taken = one_sided(&format!("copied, because {of} it and the base does not"), &|tensor| {
            matches!(tensor.action, Action::Copy(_)) && !of_base(tensor)
        });
        let no_matrix = one_sided(
            &format!("averaged, because `{}` merges matrices alone", self.method.id()),
            &|tensor| {
                let averaged = matches!(tensor.action, Action::Average(_)) && of_base(tensor);
                averaged && self.method.only_matrices() && tensor.shape.len() != 2
            },
        );
        let copied = one_sided("copied from the base, because no expert has it", &|tensor| {
            matches!(tensor.action, Action::Copy(_)) && in_base(&tensor.key) && !in_experts(&tensor.key)
        });
        let unmeasured = one_sided("averaged, because no expert's statistics have it", &|tensor| {
            matches!(tensor.action, Action::Average(_)) && of_base(tensor) && self.is_unmeasured(tensor)
        });
        Ok([averaged, taken, no_matrix, unmeasured, copied].into_iter().flatten().collect())
    }
}

/// A tensor of a model, with the model's name.
pub(super) type Named<'n, 'a> = (&'n str, Source<'a>);

/// All sources must have one shape; the error says which model has which.
pub(super) fn agree_in_shape(sources: &[Named<'_, '_>]) -> Result<(), String> {
    let mut shapes: Vec<(&[usize], Vec<&str>)> = Vec::new();
    for (name, source) in sources {
        match shapes.iter_mut().find(|(shape, _)| *shape == source.shape()) {
            Some((_, names)) if names.contains(name) => {}
            Some((_, names)) => names.push(name),
            None => shapes.push((source.shape(), vec![name])),
        }
    }
    if shapes.len() < 2 {
        return Ok(());
    }
    let has = |(shape, names): &(&[usize], Vec<&str>)| format!("{} {shape:?}", subject(names, "has", "have"));
    Err(format!("shapes differ: {}", shapes.iter().map(has).collect::<Vec<_>>().join(", ")))
}

/// Names as the subject of a sentence, with the verb for one or for several: `a has`, `a and b have`.
pub(super) fn subject(names: &[&str], one: &str, several: &str) -> String {
    match names {
        [name] => format!("{name} {one}"),
        [first @ .., last] => format!("{} and {last} {several}", first.join(", ")),
        [] => String::new(),
    }
}

/// No NaN and no infinity among the values, as far as they can be decoded.
pub(super) fn is_finite(source: &Source<'_>) -> bool {
    let view = source.stored();
    let mut values = vec![0.0; BLOCK.min(view.numel())];
    (0..view.numel()).step_by(BLOCK).all(|start| {
        let values = &mut values[..BLOCK.min(view.numel() - start)];
        view.decode_block(start, values).unwrap_or(false)
    })
}

/// True when every source holds the same bits. Stops at the first difference, so it costs little unless true; `models`
/// remember it for the next plan.
pub(super) fn identical(models: &Models, sources: &[Named<'_, '_>]) -> bool {
    let Some(((_, first), others)) = sources.split_first() else { return true };
    let stored = first.stored();
    !first.is_adapted()
        && others.iter().all(|(_, other)| {
            let view = other.stored();
            !other.is_adapted()
                && view.dtype() == stored.dtype()
                && (same_bytes(&view, &stored) || models.compared.same_bits(&view, &stored))
        })
}
