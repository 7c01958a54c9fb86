//! Which keys the output has, and what each is called in every model.

use std::collections::{BTreeMap, BTreeSet};

use super::Part;
use super::build::Context;
use crate::MergeError;
use crate::recipe::{self, ActionExpertChoice, LayerKey, Slice, layer_fraction};

/// One key of the output and where it comes from.
pub(super) struct OutputKey<'a> {
    /// Its name in the output.
    pub(super) key: String,
    /// Index of the slice.
    pub(super) slice: usize,
    /// The key's name in each source of the slice.
    pub(super) source_keys: Vec<String>,
    /// See [`layer_fraction`].
    pub(super) layer_fraction: f64,
    pub(super) sources: &'a Slice,
    /// The first name of the weights, where this is a second one.
    pub(super) tied_to: Option<String>,
    pub(super) part: Part,
}

impl<'a> Context<'a> {
    /// Every key of the output, in order of slices and names.
    pub(super) fn output_keys(&self) -> Result<Vec<OutputKey<'a>>, MergeError> {
        let slices = &self.recipe.slices;
        let mut keys = Vec::new();
        let mut layers_before = 0;
        for (index, slice) in slices.iter().enumerate() {
            let (first, last) = (index == 0, index + 1 == slices.len());
            match slice.layer_count() {
                None => keys.extend(self.whole_models(index, slice)),
                Some(count) => {
                    keys.extend(self.layers_of(index, slice, layers_before, (first, last))?);
                    layers_before += count;
                }
            }
        }
        Ok(keys)
    }

    fn whole_models(&self, index: usize, slice: &'a Slice) -> Vec<OutputKey<'a>> {
        let mut union: BTreeSet<&str> = BTreeSet::new();
        for source in &slice.sources {
            let model = &self.models.all[source.model];
            union.extend(model.keys());
        }
        let mut layer_counts: BTreeMap<&str, usize> = BTreeMap::new();
        for layer in union.iter().filter_map(|key| LayerKey::parse(key)) {
            let count = layer_counts.entry(layer.stack).or_default();
            *count = (layer.index + 1).max(*count);
        }
        let fraction = |key: &str| match LayerKey::parse(key) {
            Some(layer) => layer_fraction(layer.index, layer_counts.get(layer.stack).copied().unwrap_or(1)),
            None => 0.0,
        };
        let output = |key: &&str| OutputKey {
            key: (*key).to_owned(),
            slice: index,
            source_keys: vec![(*key).to_owned(); slice.sources.len()],
            layer_fraction: fraction(key),
            sources: slice,
            tied_to: self.alias_of(slice, key),
            part: Part::Model,
        };
        let mut keys: Vec<OutputKey<'a>> = union.iter().map(output).collect();
        if self.recipe.action_expert == ActionExpertChoice::Merge {
            let parts = slice.sources.iter().flat_map(|source| self.models.all[source.model].files.keys());
            let parts: BTreeSet<String> = parts.collect();
            keys.extend(parts.iter().map(|key| OutputKey {
                part: Part::ActionExpert,
                ..OutputKey::outside_layers(key, index, slice)
            }));
        }
        keys
    }

    /// The first name of `key`, where that is nothing but a second name, in every model that stores it, of a weight that
    /// all models find under its first name: then it need not be merged twice. A head that was untied and trained is
    /// no second name.
    fn alias_of(&self, slice: &Slice, key: &str) -> Option<String> {
        let weights = |source: &recipe::Source| &self.models.all[source.model].weights;
        let canonical = slice.sources.iter().find_map(|source| {
            weights(source).aliases().find(|(alias, _)| *alias == key).map(|(_, canonical)| canonical)
        });
        let canonical = canonical?;
        let is_second_name =
            |source: &recipe::Source| match (weights(source).get(key), weights(source).get(canonical)) {
                (Some(own), Some(first)) => own.bytes() == first.bytes(),
                (own, _) => own.is_none(),
            };
        let is_alias = slice.sources.iter().any(|source| weights(source).get(key).is_none())
            && slice.sources.iter().all(|source| weights(source).resolve(canonical).is_some())
            && slice.sources.iter().all(is_second_name)
            && !slice.sources.iter().any(|source| self.models.all[source.model].unties(key));
        is_alias.then(|| canonical.to_owned())
    }

    /// The layers of a slice, renumbered; with the embeddings for the first slice, with the rest for the last. A key
    /// that only some sources have is there too: the plan refuses it by name.
    fn layers_of(
        &self,
        index: usize,
        slice: &'a Slice,
        layers_before: usize,
        (first, last): (bool, bool),
    ) -> Result<Vec<OutputKey<'a>>, MergeError> {
        let mut keys = BTreeMap::new();
        for (j, source) in slice.sources.iter().enumerate() {
            let Some(range) = &source.layers else { continue };
            let model = &self.models.all[source.model];
            let mut missing: BTreeSet<usize> = range.clone().collect();
            let mut stacks = BTreeSet::new();
            for key in model.keys() {
                let Some(layer) = LayerKey::parse(key) else {
                    let is_embedding = is_embedding(key);
                    if if is_embedding { first } else { last } {
                        let tied_to = self.alias_of(slice, key);
                        let new = || OutputKey { tied_to, ..OutputKey::outside_layers(key, index, slice) };
                        keys.entry(key.to_owned()).or_insert_with(new).source_keys[j] = key.to_owned();
                    }
                    continue;
                };
                stacks.insert(layer.stack);
                missing.remove(&layer.index);
                let Some(output) = layer.renumbered(range, layers_before) else { continue };
                let in_slice = layer.index - range.start;
                let name_in = |other: &recipe::Source| {
                    layer.with_index(other.layers.as_ref().map_or(0, |layers| layers.start) + in_slice)
                };
                keys.entry(output.clone()).or_insert_with(|| OutputKey {
                    key: output,
                    slice: index,
                    source_keys: slice.sources.iter().map(name_in).collect(),
                    layer_fraction: layer_fraction(in_slice, range.len()),
                    sources: slice,
                    tied_to: None,
                    part: Part::Model,
                });
            }
            let fail = |problem: String| {
                Err(MergeError::Slice {
                    slice: index,
                    range: range.clone(),
                    path: model.path.clone(),
                    problem,
                })
            };
            if stacks.len() > 1 {
                let stacks: Vec<&str> = stacks.into_iter().collect();
                return fail(format!(
                    "which has several stacks of layers ({}); slices cut models with one, `models:` merges this one whole",
                    stacks.join(", ")
                ));
            }
            if let Some(layer) = missing.first() {
                return fail(format!("which has no layer {layer}"));
            }
        }
        Ok(keys.into_values().collect())
    }
}

fn is_embedding(key: &str) -> bool {
    ["embed", "wte", "wpe"].iter().any(|part| key.contains(part))
}

/// The key has a row for each token.
pub(crate) fn is_vocabulary(key: &str) -> bool {
    is_embedding(key) || key.contains("lm_head")
}

impl<'a> OutputKey<'a> {
    fn outside_layers(key: &str, slice: usize, sources: &'a Slice) -> Self {
        let source_keys = vec![key.to_owned(); sources.sources.len()];
        let (key, part) = (key.to_owned(), Part::Model);
        Self { key, slice, source_keys, layer_fraction: 0.0, sources, tied_to: None, part }
    }
}
