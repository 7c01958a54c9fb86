//! From a recipe and opened models to a plan: which rule applies to which key.

use skillweld_plugin_host::{Bound, HostHooks, Level, Method, ParamKind, ParamSpec, Registry, flags};
use skillweld_store::{Family, Modality, is_normalisation_buffer};

use super::check::{Named, agree_in_shape, identical, subject};
use super::keys::OutputKey;
use super::{Action, Merge, Part, Plan, PlannedTensor, action_expert};
use crate::models::{Model, Models};
use crate::recipe::{self, KnownParameter, Lookup, MaskChoice, ParamValue, ParameterKind, Recipe};
use crate::source::Source;
use crate::{MergeError, statistics};

/// What the rules need to know.
pub(super) struct Context<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) models: &'a Models,
    registry: &'a Registry,
    method: &'a Method,
    mask: Option<&'a Method>,
    hooks: HostHooks<'a>,
}

impl<'a> Plan<'a> {
    /// Decides what happens to every tensor. Reads no tensor but those that might be the same in all models.
    ///
    /// # Errors
    /// Wrong parameters, an unknown method, a missing base, unreadable action experts. A tensor that cannot be merged is
    /// no error here: the plan lists it as refused, and [`Plan::check`] fails.
    pub fn new(
        recipe: &'a Recipe,
        models: &'a Models,
        registry: &'a Registry,
        hooks: HostHooks<'a>,
    ) -> Result<Self, MergeError> {
        let method = registry.merge(&recipe.method)?;
        if method.needs_base_model() && recipe.base.is_none() {
            return Err(MergeError::NoBase { method: method.id().to_owned() });
        }
        recipe.check_parameters(&known_parameters(method))?;
        warn_of_no_effect(recipe, method, &hooks);
        let mask = match (&recipe.mask, method.mask()) {
            (MaskChoice::Method(spec), _) => Some(registry.mask(&spec.method)?),
            (MaskChoice::MethodsOwn, Some(id)) => Some(registry.mask(id)?),
            _ => None,
        };
        if let Some(mask) = mask {
            recipe.check_mask_parameters(&known_parameters(mask))?;
            if !method.takes_task_vectors() {
                return Err(MergeError::Expert(format!(
                    "`mask` selects entries of a task vector, but merge method `{}` merges weights; use one on task vectors, such as `task_arithmetic` or `ties`",
                    method.id()
                )));
            }
        }
        let context = Context { recipe, models, registry, method, mask, hooks };
        let mut tensors = Vec::new();
        for output in context.output_keys()? {
            // Comparing large tensors that are the same takes a while.
            if (hooks.cancelled)() {
                return Err(MergeError::Cancelled);
            }
            tensors.push(context.plan_key(output)?);
        }
        let mut notes = context.check_names(&tensors)?;
        notes.extend(models.all.iter().flat_map(Model::notes));
        let masked = mask.is_some();
        let expert = action_expert::plan(&context, masked, &mut tensors, &mut notes)?;
        let statistics =
            statistics::of_tasks(recipe, models, masked || recipe.merges_action_experts(), &mut notes)?;
        Ok(Self { recipe, models, tensors, expert, statistics, masked, notes })
    }
}

/// Says which parameters of the recipe the method takes and does nothing with.
fn warn_of_no_effect(recipe: &Recipe, method: &Method, hooks: &HostHooks<'_>) {
    for parameter in method.params().iter().filter(|parameter| parameter.no_effect) {
        let places = recipe.places_of(&parameter.name);
        let Some((first, others)) = places.split_first() else { continue };
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        let (name, id) = (&parameter.name, method.id());
        let text = format!("{first}{more}: `{name}` has no effect on `{id}`; {}", parameter.description);
        (hooks.log)(Level::Warning, &text);
    }
}

/// A method's parameters as the recipe layer checks them.
fn known_parameters(method: &Method) -> Vec<KnownParameter<'_>> {
    method.params().iter().map(known_parameter).collect()
}

fn known_parameter(spec: &ParamSpec) -> KnownParameter<'_> {
    let kind = match spec.kind {
        ParamKind::Boolean => ParameterKind::Boolean,
        ParamKind::Choice(_) => ParameterKind::Text,
        _ => ParameterKind::Number,
    };
    KnownParameter { name: &spec.name, kind, per_model: spec.per_expert }
}

impl<'a> Context<'a> {
    fn plan_key(&self, output: OutputKey<'a>) -> Result<PlannedTensor<'a>, MergeError> {
        let OutputKey { key, slice: index, source_keys, layer_fraction, sources: slice } = output;
        let modality = self.models.family.modality(&key);
        let found = |i: usize| self.models.all[slice.sources[i].model].source(&source_keys[i]);
        let base = slice.base.map(found).transpose()?.flatten();
        // Methods on task vectors measure from the base; others merge it like any model, first.
        let on_task_vectors = self.method.takes_task_vectors();
        let mut experts: Vec<usize> = (0..slice.sources.len()).filter(|i| Some(*i) != slice.base).collect();
        if !on_task_vectors {
            experts.splice(0..0, slice.base);
        }
        let name = |i: usize| self.models.all[slice.sources[i].model].name.as_str();
        let sources = experts.iter().map(|&i| Ok((i, found(i)?)));
        let sources: Vec<(usize, Option<Source<'a>>)> = sources.collect::<Result<_, MergeError>>()?;
        let present: Vec<Source<'a>> = sources.iter().filter_map(|(_, source)| *source).collect();
        let absent = sources.iter().filter(|(_, source)| source.is_none()).map(|(i, _)| name(*i));
        let absent: Vec<&str> = absent.collect();

        let any = present.first().or(base.as_ref());
        let planned = |dtype, shape: &'a [usize], action| PlannedTensor {
            key: key.clone(),
            shape,
            dtype,
            modality,
            part: Part::Model,
            action,
        };
        let Some(any) = any else {
            return Ok(planned(
                skillweld_tensor::Dtype::F32,
                &[],
                Action::Refuse("no model has it".to_owned()),
            ));
        };
        let stored = base.as_ref().unwrap_or(any).stored();
        let (shape, stored_dtype) = (stored.shape(), stored.dtype());
        let dtype = match self.recipe.out_dtype.or(self.recipe.dtype) {
            Some(dtype) if stored_dtype.is_computable() => dtype,
            _ => stored_dtype,
        };
        let refuse = |reason: String| Ok(planned(stored_dtype, shape, Action::Refuse(reason)));

        // A masked merge keeps Θ₀ as it is; `out_dtype` is then τ's.
        let copy_dtype = if self.mask.is_some() { stored_dtype } else { dtype };
        if on_task_vectors && present.is_empty() {
            return Ok(planned(copy_dtype, shape, Action::Copy(stored)));
        }
        let base_named = slice.base.zip(base).map(|(i, source)| (name(i), source));
        let present_named = sources.iter().filter_map(|(i, source)| Some((name(*i), (*source)?)));
        let named: Vec<Named<'_, 'a>> = base_named.into_iter().chain(present_named).collect();
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
        if let Err(reason) = agree_in_shape(&named) {
            return refuse(reason);
        }
        let all: Vec<Source<'a>> = named.into_iter().map(|(_, source)| source).collect();
        let same = || identical(&all);
        if !all.iter().all(|source| source.stored().dtype().is_computable()) {
            return match same() {
                true => Ok(planned(stored_dtype, shape, Action::Copy(stored))),
                false => refuse(format!(
                    "{stored_dtype} tensors are copied, never merged, and this one differs between models"
                )),
            };
        }
        if is_normalisation_buffer(&key) {
            return match same() {
                true => Ok(planned(stored_dtype, shape, Action::Copy(stored))),
                false => refuse("normalisation statistics differ between models and must not be interpolated; make them equal first".to_owned()),
            };
        }
        let is_mean = self.models.family == Family::Prismatic
            && key.starts_with("action_queries.")
            && (self.mask.is_some() || self.recipe.merges_action_experts());
        let without_base = base.is_none() || is_mean;
        if on_task_vectors && without_base && !identical(&present) {
            // No pretrained value to measure a task vector from.
            return Ok(planned(copy_dtype, shape, Action::Average(present)));
        }
        if on_task_vectors && without_base {
            return Ok(planned(copy_dtype, shape, Action::Copy(any.stored())));
        }
        if on_task_vectors && same() {
            return Ok(planned(copy_dtype, shape, Action::Copy(stored)));
        }
        let bound = if self.method.has(flags::MATRIX) && shape.len() != 2 {
            self.mean(experts.len())?
        } else {
            self.bind(&key, index, &experts, &source_keys, layer_fraction, modality)?
        };
        let names: Vec<&str> = experts.iter().map(|&i| name(i)).collect();
        let mask = self.mask.map(|mask| self.bind_mask(mask, &key, &names, layer_fraction)).transpose()?;
        let merge = Merge {
            base: base.as_ref().filter(|_| self.method.needs_base_model()).map(Source::stored),
            sources: present.into_iter().zip(experts.iter().map(|&i| name(i))).collect(),
            method: bound,
            mask,
            seed: tensor_seed(self.recipe.seed, &key),
        };
        Ok(planned(dtype, shape, Action::Merge(Box::new(merge))))
    }

    fn bind(
        &self,
        key: &str,
        slice: usize,
        experts: &[usize],
        source_keys: &[String],
        layer_fraction: f64,
        modality: Modality,
    ) -> Result<Bound, MergeError> {
        let modality = recipe::Modality::from_store(modality);
        let bound = self.method.bind(experts.len(), &self.hooks, |spec, expert| {
            let source = expert.map(|k| experts[k]);
            let key = source.map_or(key, |i| source_keys[i].as_str());
            let lookup = Lookup { slice, source, key, layer_fraction, modality };
            Ok(self.recipe.parameter(&known_parameter(spec), &lookup)?.map(to_json))
        });
        // The host knows experts by number, people by name.
        bound.map_err(|error: MergeError| {
            error.of_model(|k| {
                let model = self.recipe.slices[slice].sources[experts[k]].model;
                self.models.all[model].name.clone()
            })
        })
    }

    /// What methods on matrices do with vectors and other tensors: the mean, of task vectors or of weights.
    fn mean(&self, experts: usize) -> Result<Bound, MergeError> {
        let id = if self.method.takes_task_vectors() { "task_arithmetic" } else { "linear" };
        let normalize = |spec: &ParamSpec, _| Ok((spec.name == "normalize").then(|| true.into()));
        self.registry.merge(id)?.bind::<MergeError>(experts, &self.hooks, normalize)
    }

    fn bind_mask(
        &self,
        mask: &Method,
        key: &str,
        tasks: &[&str],
        layer_fraction: f64,
    ) -> Result<Bound, MergeError> {
        let bound = mask.bind(tasks.len(), &self.hooks, |spec, expert| {
            let task = expert.map(|k| tasks[k]);
            Ok(self.recipe.mask_parameter(&known_parameter(spec), task, key, layer_fraction)?.map(to_json))
        });
        bound.map_err(|error: MergeError| error.of_model(|k| tasks[k].to_owned()))
    }

    /// Every expert's index into the models, in task order.
    pub(super) fn experts(&self) -> Vec<usize> {
        self.recipe.tasks().collect()
    }
}

fn to_json(value: ParamValue) -> serde_json::Value {
    match value {
        ParamValue::Bool(value) => value.into(),
        ParamValue::Number(value) => value.into(),
        ParamValue::Text(value) => value.into(),
    }
}

/// A seed for one tensor: different tensors and different recipe seeds must not share random numbers.
fn tensor_seed(seed: u64, key: &str) -> u64 {
    let hash = blake3::Hasher::new().update(&seed.to_le_bytes()).update(key.as_bytes()).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}
