//! Which value a parameter has for one key of one model.

use super::Recipe;
use super::error::{Allowed, Place, RecipeError};
use super::extensions::Modality;
use super::parameters::{ParamValue, ParameterKind, Parameters};

/// A parameter as its method declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownParameter<'m> {
    /// Its name in recipes.
    pub name: &'m str,
    /// Its type.
    pub kind: ParameterKind,
    /// Each model may have its own value (`weight`, `density`); otherwise one value serves the whole merge
    /// (`normalize`, `t`).
    pub per_model: bool,
}

/// For what a parameter is asked.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'k> {
    /// Index into [`Recipe::slices`].
    pub slice: usize,
    /// Index into the slice's sources; `None` for parameters of the whole merge.
    pub source: Option<usize>,
    /// The tensor's name, for filters. For parameters per model it is the name in that model; for those of the whole
    /// merge the name in the output. The two differ where slices renumber layers.
    pub key: &'k str,
    /// See [`layer_fraction`](super::layer_fraction): 0 for keys outside layers.
    pub layer_fraction: f64,
    /// The key's modality, if the checkpoint has modalities.
    pub modality: Option<Modality>,
}

/// Parameters of the whole merge that mergekit has, and passes over where they are set on one model.
const PASSED_OVER_ON_ONE_MODEL: [&str; 4] = ["normalize", "rescale", "lambda", "t"];

/// Accepted everywhere and without effect: mergekit's switch for smaller masks.
const INT8_MASK: KnownParameter<'static> =
    KnownParameter { name: "int8_mask", kind: ParameterKind::Boolean, per_model: true };

impl Recipe {
    /// The parameter's value, or `None` when the recipe is silent: then the method's default holds.
    ///
    /// The levels are asked in this order, and within a level the rules in the order written; the first rule whose
    /// filter holds decides: the model's own (`models[i].parameters`, `slices[i].sources[j].parameters`), the slice's,
    /// the modality's under `groups`, the module's, the recipe's. Fails when that value is not of the parameter's kind,
    /// which [`Recipe::check_parameters`] tells beforehand.
    pub fn parameter(
        &self,
        parameter: &KnownParameter<'_>,
        lookup: &Lookup<'_>,
    ) -> Result<Option<ParamValue>, RecipeError> {
        let slice = self.slices.get(lookup.slice);
        let source =
            slice.and_then(|slice| slice.sources.get(lookup.source?)).filter(|_| parameter.per_model);
        let levels = [
            source.map(|source| &source.parameters),
            slice.map(|slice| &slice.parameters),
            lookup.modality.and_then(|modality| self.groups.get(&modality)),
            Some(&self.parameters),
        ];
        resolve(levels.into_iter().flatten(), parameter, lookup.key, lookup.layer_fraction)
    }

    /// The mask method's parameter for one key, and one task where it is a parameter per model; `None` when the recipe is
    /// silent.
    pub fn mask_parameter(
        &self,
        parameter: &KnownParameter<'_>,
        task: Option<&str>,
        key: &str,
        layer_fraction: f64,
    ) -> Result<Option<ParamValue>, RecipeError> {
        let Some(mask) = self.mask.spec() else { return Ok(None) };
        let of_task = task.and_then(|task| mask.by_task.get(task)).filter(|_| parameter.per_model);
        resolve(of_task.into_iter().chain([&mask.parameters]), parameter, key, layer_fraction)
    }

    /// Checks every parameter of the recipe against the merge method's own: names, types, and levels.
    pub fn check_parameters(&self, known: &[KnownParameter<'_>]) -> Result<(), RecipeError> {
        for slice in &self.slices {
            for source in &slice.sources {
                check(&source.parameters, &self.method, known, true)?;
            }
            check(&slice.parameters, &self.method, known, false)?;
        }
        self.groups.values().try_for_each(|group| check(group, &self.method, known, false))?;
        check(&self.parameters, &self.method, known, false)
    }

    /// Every place that sets this parameter of the merge method, at any level.
    pub(crate) fn places_of(&self, parameter: &str) -> Vec<&Place> {
        let sources = self.slices.iter().flat_map(|slice| &slice.sources).map(|source| &source.parameters);
        let slices = self.slices.iter().map(|slice| &slice.parameters);
        let levels = sources.chain(slices).chain(self.groups.values()).chain([&self.parameters]);
        levels.filter_map(|level| level.get(parameter)).map(|setting| &setting.place).collect()
    }

    /// Every filter of a parameter that holds for none of `keys`, with its place.
    pub(crate) fn idle_filters(&self, keys: &[&str]) -> Vec<(&Place, &str)> {
        let sources = self.slices.iter().flat_map(|slice| &slice.sources).map(|source| &source.parameters);
        let slices = self.slices.iter().map(|slice| &slice.parameters);
        let mask =
            self.mask.spec().into_iter().flat_map(|mask| mask.by_task.values().chain([&mask.parameters]));
        let levels = sources.chain(slices).chain(self.groups.values()).chain([&self.parameters]).chain(mask);
        let rules = levels
            .flat_map(|level| level.values())
            .flat_map(|setting| setting.rules.iter().map(move |rule| (&setting.place, rule)));
        let idle = rules.filter(|(_, rule)| !keys.iter().any(|key| rule.holds_for(key)));
        idle.filter_map(|(place, rule)| Some((place, rule.filter.as_deref()?))).collect()
    }

    /// The places that set this parameter for one model.
    pub(crate) fn places_on_models(&self, parameter: &str) -> Vec<&Place> {
        let sources = self.slices.iter().flat_map(|slice| &slice.sources);
        sources.filter_map(|source| source.parameters.get(parameter)).map(|setting| &setting.place).collect()
    }

    /// Checks the parameters under `mask` against the mask method's own.
    pub fn check_mask_parameters(&self, known: &[KnownParameter<'_>]) -> Result<(), RecipeError> {
        let Some(mask) = self.mask.spec() else { return Ok(()) };
        check(&mask.parameters, &mask.method, known, false)?;
        let tasks: Vec<&str> = self.tasks().map(|model| self.models[model].name.as_str()).collect();
        for (task, parameters) in &mask.by_task {
            if let Some(setting) = parameters.values().next().filter(|_| !tasks.contains(&task.as_str())) {
                return Err(RecipeError::UnknownTask {
                    place: setting.place.clone(),
                    name: task.clone(),
                    allowed: Allowed::instead_of(task, tasks.iter().copied()),
                });
            }
            check(parameters, &mask.method, known, true)?;
        }
        Ok(())
    }
}

fn resolve<'r>(
    levels: impl Iterator<Item = &'r Parameters>,
    parameter: &KnownParameter<'_>,
    key: &str,
    layer_fraction: f64,
) -> Result<Option<ParamValue>, RecipeError> {
    for setting in levels.filter_map(|level| level.get(parameter.name)) {
        if let Some(value) = setting.resolve(key, layer_fraction, parameter.kind)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn check(
    parameters: &Parameters,
    method: &str,
    known: &[KnownParameter<'_>],
    at_one_model: bool,
) -> Result<(), RecipeError> {
    for (name, setting) in parameters {
        let Some(parameter) = known.iter().chain([&INT8_MASK]).find(|parameter| parameter.name == name)
        else {
            let mut place = setting.place.clone();
            place.path.truncate(place.path.len().saturating_sub(name.len() + 1));
            return Err(RecipeError::UnknownParameter {
                place,
                name: name.clone(),
                method: method.to_owned(),
                allowed: Allowed::instead_of(name, known.iter().map(|parameter| parameter.name)),
            });
        };
        let passed_over = || PASSED_OVER_ON_ONE_MODEL.contains(&name.as_str());
        if at_one_model && !parameter.per_model && !passed_over() {
            return Err(RecipeError::NotPerModel {
                place: setting.place.clone(),
                name: name.clone(),
                method: method.to_owned(),
            });
        }
        setting.check_kind(parameter.kind)?;
    }
    Ok(())
}
