//! From a recipe and opened models to a plan.

use std::sync::OnceLock;

use skillweld_plugin_host::{Bound, HostHooks, Level, Method, ParamKind, ParamSpec, Registry};
use skillweld_store::Modality;

use super::keys::OutputKey;
use super::{Part, Plan, PlannedTensor, action_expert, left_out, mixed};
use crate::models::{Model, Models};
use crate::recipe::{self, KnownParameter, Lookup, MaskChoice, ParamValue, ParameterKind, Place, Recipe};
use crate::{Control, MergeError, statistics};

/// What the rules need to know.
pub(super) struct Context<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) models: &'a Models,
    pub(super) method: &'a Method,
    pub(super) mask: Option<&'a Method>,
    hooks: HostHooks<'a>,
    /// Every task's index into the models.
    pub(super) tasks: Vec<usize>,
}

impl<'a> Plan<'a> {
    /// Decides what happens to every tensor. Reads no tensor but those that might be the same in all models; all
    /// threads of `control` compare those.
    ///
    /// # Errors
    /// Wrong parameters, an unknown method, a missing base, unreadable action experts. A tensor that cannot be merged is
    /// no error here: the plan lists it as refused, and [`Plan::check`] fails.
    pub fn new(
        recipe: &'a Recipe,
        models: &'a Models,
        registry: &'a Registry,
        control: &Control<'a>,
    ) -> Result<Self, MergeError> {
        let hooks = control.hooks;
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
        let tasks = recipe.tasks().collect();
        let context = Context { recipe, models, method, mask, hooks, tasks };
        context.check_models()?;
        let measured = context.check_statistics()?;
        recipe.check_tokenizers()?;
        let mut tensors = context.plan_keys(control)?;
        let mut notes = context.check_names(&tensors)?;
        notes.extend(measured);
        notes.extend(models.all.iter().flat_map(Model::notes));
        // Slices renumber layers: filters look at the models' own names, too.
        let mut keys: Vec<&str> = tensors.iter().map(|tensor| tensor.key.as_str()).collect();
        keys.extend(models.all.iter().flat_map(|model| model.keys()));
        let idle = recipe.idle_filters(&keys).into_iter();
        notes.extend(
            idle.map(|(place, filter)| format!("{place}: no tensor's name contains the filter `{filter}`")),
        );
        let masked = mask.is_some();
        let expert = action_expert::plan(&context, masked, &mut tensors, &mut notes)?;
        left_out::plan(&context, &mut tensors, &mut notes);
        if recipe.allow_non_finite {
            notes.push(
                "`allow_non_finite`: no NaN or infinity is looked for; a method that trims or elects may make a finite value of one, so nothing in the output need show it"
                    .to_owned(),
            );
        }
        mixed::check(&tensors)?;
        let statistics =
            statistics::of_tasks(recipe, models, masked || recipe.merges_action_experts(), &mut notes)?;
        Ok(Self { recipe, models, tensors, expert, statistics, masked, notes })
    }
}

/// Says which parameters of the recipe the method takes and does nothing with.
fn warn_of_no_effect(recipe: &Recipe, method: &Method, hooks: &HostHooks<'_>) {
    let warn = |places: &[&Place], text: &dyn Fn() -> String| {
        let Some((first, others)) = places.split_first() else { return };
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        (hooks.log)(Level::Warning, &format!("{first}{more}: {}", text()));
    };
    for parameter in method.params() {
        let (name, id) = (&parameter.name, method.id());
        if parameter.no_effect {
            let why = || format!("`{name}` has no effect on `{id}`; {}", parameter.description);
            warn(&recipe.places_of(name), &why);
        } else if !parameter.per_expert {
            let why = || {
                format!(
                    "`{name}` of `{id}` applies to the whole merge and has no effect on one model; set it in the top-level `parameters` or a slice's"
                )
            };
            warn(&recipe.places_on_models(name), &why);
        }
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
    /// One entry for every key of the models themselves.
    fn plan_keys(&self, control: &Control<'_>) -> Result<Vec<PlannedTensor<'a>>, MergeError> {
        let keys = self.output_keys()?;
        let planned: Vec<OnceLock<PlannedTensor<'a>>> = keys.iter().map(|_| OnceLock::new()).collect();
        control.threads.for_each(
            keys.len(),
            || (),
            |(), i| {
                // Comparing large tensors that are the same takes a while.
                control.check()?;
                let tensor = self.plan_key(&keys[i])?;
                planned[i].get_or_init(|| tensor);
                Ok::<_, MergeError>(())
            },
        )?;
        Ok(planned.into_iter().filter_map(OnceLock::into_inner).collect())
    }

    /// The merge method with its parameters for `experts`, given as sources of the key's slice.
    pub(super) fn bind(&self, output: &OutputKey<'a>, experts: &[usize]) -> Result<Bound, MergeError> {
        let OutputKey { slice, layer_fraction, .. } = *output;
        let modality = recipe::Modality::from_store(self.modality_of(output));
        let bound = self.method.bind(experts.len(), &self.hooks, |spec, expert| {
            let source = expert.map(|k| experts[k]);
            let key = source.map_or(output.key.as_str(), |i| output.source_keys[i].as_str());
            let lookup = Lookup { slice, source, key, layer_fraction, modality };
            Ok(self.recipe.parameter(&known_parameter(spec), &lookup)?.map(to_json))
        });
        // The host knows experts by number, people by name.
        bound.map_err(|error: MergeError| {
            error.of_model(|k| self.models.all[output.sources.sources[experts[k]].model].name.clone())
        })
    }

    /// What a key is for.
    pub(super) fn modality_of(&self, output: &OutputKey<'a>) -> Modality {
        match output.part {
            Part::Model => self.models.family.modality(&output.key),
            Part::ActionExpert => Modality::Action,
        }
    }

    /// The mask method with its parameters for so many experts.
    pub(super) fn bind_mask(
        &self,
        mask: &Method,
        output: &OutputKey<'a>,
        tasks: &[&str],
    ) -> Result<Bound, MergeError> {
        let bound = mask.bind(tasks.len(), &self.hooks, |spec, expert| {
            let (parameter, task) = (known_parameter(spec), expert.map(|k| tasks[k]));
            Ok(self.recipe.mask_parameter(&parameter, task, &output.key, output.layer_fraction)?.map(to_json))
        });
        bound.map_err(|error: MergeError| error.of_model(|k| tasks[k].to_owned()))
    }

    /// The merge is of task vectors: the method wants them, and there is a base model to measure them from.
    pub(super) fn on_task_vectors(&self) -> bool {
        self.method.takes_task_vectors() && self.recipe.base.is_some()
    }

    /// Every expert's index into the models, in task order.
    pub(super) fn experts(&self) -> Vec<usize> {
        self.tasks.clone()
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
pub(super) fn tensor_seed(seed: u64, key: &str) -> u64 {
    let hash = blake3::Hasher::new().update(&seed.to_le_bytes()).update(key.as_bytes()).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}
