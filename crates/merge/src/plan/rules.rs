//! Which rule applies to one key.

use skillweld_store::{Family, is_normalisation_buffer, is_unused};
use skillweld_tensor::{Dtype, TensorView};

use super::build::{Context, tensor_seed};
use super::check::{Named, agree_in_shape, identical, is_finite, subject};
use super::keys::{OutputKey, is_vocabulary};
use super::{Action, Input, Merge, Part, PlannedTensor};
use crate::MergeError;
use crate::recipe::ActionQueries;
use crate::source::{Source, same_bytes};

impl<'a> Context<'a> {
    /// Decides what happens to one key. Reads its values only where the models may have the same.
    pub(super) fn plan_key(&self, output: &OutputKey<'a>) -> Result<PlannedTensor<'a>, MergeError> {
        let OutputKey { key, source_keys, sources: slice, .. } = output;
        let found =
            |i: usize| self.models.all[slice.sources[i].model].source_in(output.part, &source_keys[i]);
        let name = |i: usize| self.models.all[slice.sources[i].model].name.as_str();
        let base = slice.base.map(found).transpose()?.flatten();
        // Methods on task vectors measure from the base; others merge it like any model, first.
        let on_task_vectors = self.on_task_vectors();
        let task = |i: &usize| self.tasks.iter().position(|task| *task == slice.sources[*i].model);
        let mut experts: Vec<usize> = (0..slice.sources.len()).filter(|i| Some(*i) != slice.base).collect();
        if on_task_vectors {
            // Whatever the slice's order, so that sums over all tensors are each of one task.
            experts.sort_by_key(task);
        } else {
            experts.splice(0..0, slice.base);
        }
        let sources = experts.iter().map(|&i| Ok((i, found(i)?)));
        let sources: Vec<(usize, Option<Source<'a>>)> = sources.collect::<Result<_, MergeError>>()?;
        let present: Vec<Named<'a, 'a>> =
            sources.iter().filter_map(|(i, source)| Some((name(*i), (*source)?))).collect();
        let no_pretrained_value = base.is_none() && self.has_no_pretrained_value(output);
        let absent = sources.iter().filter(|(_, source)| source.is_none()).map(|(i, _)| *i);
        let absent = absent.filter(|i| !(no_pretrained_value && Some(*i) == slice.base));
        let absent: Vec<&str> = absent.map(name).collect();

        let any = present.first().map(|(_, source)| source).or(base.as_ref());
        let planned = |dtype, shape: &'a [usize], action| PlannedTensor {
            key: key.clone(),
            shape,
            dtype,
            modality: self.modality_of(output),
            part: output.part,
            action,
            copies: Vec::new(),
        };
        let Some(any) = any else {
            return Ok(planned(Dtype::F32, &[], Action::Refuse("no model has it".to_owned())));
        };
        let stored = base.as_ref().unwrap_or(any).stored();
        let (shape, stored_dtype) = (stored.shape(), stored.dtype());
        if let Some(first) = &output.tied_to {
            return Ok(planned(stored_dtype, shape, Action::LeaveOut(tied(key, first))));
        }
        let dtype = match self.recipe.out_dtype.or(self.recipe.dtype) {
            Some(dtype) if stored_dtype.is_computable() => dtype,
            _ => stored_dtype,
        };
        let refuse = |reason: String| Ok(planned(stored_dtype, shape, Action::Refuse(reason)));
        if is_normalisation_buffer(key)
            && let Some(chosen) = self.recipe.statistics
        {
            let own = slice.sources.iter().position(|source| source.model == chosen);
            return Ok(match own.map(found).transpose()?.flatten().map(|source| source.stored()) {
                Some(own) => planned(own.dtype(), own.shape(), Action::Copy(own)),
                None => {
                    let chosen = &self.models.all[chosen].name;
                    planned(stored_dtype, shape, Action::LeaveOut(format!("`statistics: {chosen}` has none")))
                }
            });
        }
        let is_usable = |(_, source): &(usize, Option<Source<'a>>)| source.as_ref().is_some_and(is_finite);
        if is_unused(key) && !sources.iter().all(is_usable) {
            return Ok(planned(stored_dtype, shape, Action::Copy(stored)));
        }

        // A masked merge keeps Θ₀ as it is; `out_dtype` is then τ's.
        let copy_dtype = if self.mask.is_some() { stored_dtype } else { dtype };
        if on_task_vectors && present.is_empty() {
            // Copied, it would stand in an action expert of a design that is nobody's.
            let has_parts =
                |&i: &usize| self.models.all[slice.sources[i].model].files.keys().next().is_some();
            if output.part == Part::ActionExpert && experts.iter().any(has_parts) {
                return refuse(
                    "only the base model has it: its action expert is of another design than the models'; \
                     name a base model with theirs"
                        .to_owned(),
                );
            }
            return Ok(planned(copy_dtype, shape, Action::Copy(stored)));
        }
        let base_named = slice.base.zip(base).map(|(i, source)| (name(i), source));
        let named: Vec<Named<'a, 'a>> = base_named.into_iter().chain(present.iter().copied()).collect();
        if !absent.is_empty() {
            let mut having: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            // Where the base is merged like any other model it stands there twice.
            having.dedup();
            let having = subject(&having, "has", "have");
            return refuse(format!(
                "missing in {}, though {having} it; every model needs it",
                absent.join(", ")
            ));
        }
        if let Err(differ) = agree_in_shape(&named) {
            return refuse(differ + vocabulary_hint(key, &named));
        }
        let copied = |dtype, view: TensorView<'a>, of: &[Named<'a, 'a>]| {
            let copies = of.iter().map(|(_, source)| source.stored());
            let copies = copies.filter(|copy| !same_bytes(copy, &view)).collect();
            Ok(PlannedTensor { copies, ..planned(dtype, shape, Action::Copy(view)) })
        };
        let not_merged = named.iter().find(|(_, source)| !source.stored().dtype().is_computable());
        if let Some((name, source)) = not_merged {
            return match identical(self.models, &named) {
                true => copied(stored_dtype, stored, &named),
                false => refuse(format!(
                    "{name} has it as {}, which is copied, never merged, and it differs between models; store the same, or a float type, in all of them",
                    source.stored().dtype()
                )),
            };
        }
        if is_normalisation_buffer(key) {
            return match identical(self.models, &named) {
                true => copied(stored_dtype, stored, &named),
                false => refuse("normalisation statistics differ between models and must not be interpolated; make them equal first".to_owned()),
            };
        }
        let are_queries = self.models.family == Family::Prismatic && key.starts_with("action_queries.");
        let asked = self.recipe.action_expert.spec().map(|spec| spec.action_queries);
        if are_queries && asked == Some(ActionQueries::Merge) && base.is_none() {
            return refuse(
                "`action_expert.action_queries: merge` measures from a base model's, and it has none; write `mean`".to_owned(),
            );
        }
        let is_mean = are_queries
            && asked != Some(ActionQueries::Merge)
            && (self.mask.is_some() || self.recipe.merges_action_experts());
        if no_pretrained_value || (on_task_vectors && (base.is_none() || is_mean)) {
            // No pretrained value to measure a task vector from.
            return match identical(self.models, &present) {
                true => copied(copy_dtype, any.stored(), &present),
                false => Ok(planned(copy_dtype, shape, Action::Average(present))),
            };
        }
        if on_task_vectors && identical(self.models, &named) {
            return copied(copy_dtype, stored, &named);
        }
        if self.method.only_matrices() && shape.len() != 2 {
            // Methods on matrices have nothing to say about the rest.
            return Ok(planned(copy_dtype, shape, Action::Average(present)));
        }
        let owners: Vec<_> = experts
            .iter()
            .map(|&i| (&self.models.all[slice.sources[i].model], source_keys[i].as_str()))
            .collect();
        let statistics = match self.measured(&owners, shape) {
            Ok(Some(statistics)) => statistics,
            Ok(None) => return Ok(planned(copy_dtype, shape, Action::Average(present))),
            Err(reason) => return refuse(reason),
        };
        let is_expert = |i: &usize| Some(*i) != slice.base;
        let inputs =
            present.iter().zip(&experts).zip(statistics).map(|((&(model, source), i), statistics)| Input {
                source,
                model,
                statistics,
                task: Some(i).filter(|i| is_expert(i)).and_then(task),
            });
        let names: Vec<&str> = experts.iter().map(|&i| name(i)).collect();
        let merge = Merge {
            base: base
                .as_ref()
                .filter(|_| on_task_vectors || self.method.needs_base_model())
                .map(Source::stored),
            inputs: inputs.collect(),
            method: self.bind(output, &experts)?,
            mask: self.mask.map(|mask| self.bind_mask(mask, output, &names)).transpose()?,
            seed: tensor_seed(self.recipe.seed, key),
        };
        Ok(planned(dtype, shape, Action::Merge(Box::new(merge))))
    }
}

impl Context<'_> {
    /// Base models may lack this tensor, because policies train it from scratch.
    fn has_no_pretrained_value(&self, output: &OutputKey<'_>) -> bool {
        let Some(base) = output.sources.base.map(|i| &self.models.all[output.sources.sources[i].model])
        else {
            return false;
        };
        match output.part {
            Part::Model => {
                self.models.family == Family::Prismatic && output.key.starts_with("action_queries.")
            }
            Part::ActionExpert => !base.files.has_part_of(&output.key),
        }
    }
}

/// Why the second name of a tied weight has no tensor of its own.
fn tied(key: &str, first: &str) -> String {
    let config = if is_vocabulary(key) { "; config.json will say that they are tied" } else { "" };
    format!("the same weights as `{first}`, which are merged once{config}")
}

/// A guess at why shapes differ: embeddings and output heads differ in their rows when tokens were added.
fn vocabulary_hint(key: &str, sources: &[Named<'_, '_>]) -> &'static str {
    let mut shapes = sources.iter().map(|(_, source)| source.shape());
    let columns = shapes.next().and_then(|shape| shape.split_first());
    let same_columns = columns
        .is_some_and(|(_, first)| shapes.all(|shape| shape.split_first().is_some_and(|(_, s)| s == first)));
    match is_vocabulary(key) && same_columns {
        true => " (a different vocabulary? resize the embeddings of all models to one size first)",
        false => "",
    }
}
