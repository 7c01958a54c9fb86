//! Which keys the output has, and what each is called in every model.

use std::collections::{BTreeMap, BTreeSet};

use super::build::Context;
use crate::MergeError;
use crate::recipe::{self, LayerKey, Slice, layer_fraction};

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
            // A tied weight that one model stores under its other name is the same key.
            union.extend(model.keys().into_iter().filter(|key| !self.is_alias(slice, key)));
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
        };
        union.iter().map(output).collect()
    }

    /// True when `key` is another model's second name for a weight that every model finds under its first.
    fn is_alias(&self, slice: &Slice, key: &str) -> bool {
        let weights = |source: &recipe::Source| &self.models.all[source.model].weights;
        let canonical = slice.sources.iter().find_map(|source| {
            weights(source)
                .aliases()
                .find(|(alias, _)| *alias == key)
                .map(|(_, canonical)| canonical.to_owned())
        });
        canonical.is_some_and(|canonical| {
            slice.sources.iter().any(|source| !weights(source).keys().any(|k| k == key))
                && slice.sources.iter().all(|source| weights(source).resolve(&canonical).is_some())
        })
    }

    /// The layers of a slice, renumbered; with the embeddings for the first slice, with the rest for the last.
    fn layers_of(
        &self,
        index: usize,
        slice: &'a Slice,
        layers_before: usize,
        (first, last): (bool, bool),
    ) -> Result<Vec<OutputKey<'a>>, MergeError> {
        let source = &slice.sources[0];
        let (Some(range), model) = (&source.layers, &self.models.all[source.model]) else {
            return Ok(Vec::new());
        };
        let mut keys = Vec::new();
        let mut found = BTreeSet::new();
        for key in model.keys() {
            let Some(layer) = LayerKey::parse(key) else {
                let is_embedding = key.contains("embed") || key.contains("wte") || key.contains("wpe");
                if if is_embedding { first } else { last } {
                    let source_keys = vec![key.to_owned(); slice.sources.len()];
                    keys.push(OutputKey {
                        key: key.to_owned(),
                        slice: index,
                        source_keys,
                        layer_fraction: 0.0,
                        sources: slice,
                    });
                }
                continue;
            };
            let Some(output) = layer.renumbered(range, layers_before) else { continue };
            found.insert(layer.index);
            let in_slice = layer.index - range.start;
            let name_in = |other: &recipe::Source| {
                let start = other.layers.as_ref().map_or(0, |layers| layers.start);
                layer.with_index(start + in_slice)
            };
            keys.push(OutputKey {
                key: output,
                slice: index,
                source_keys: slice.sources.iter().map(name_in).collect(),
                layer_fraction: layer_fraction(in_slice, range.len()),
                sources: slice,
            });
        }
        match range.clone().find(|layer| !found.contains(layer)) {
            None => Ok(keys),
            Some(missing) => Err(MergeError::Expert(format!(
                "slices[{index}] takes layers {}..{} of {}, which has no layer {missing}",
                range.start,
                range.end,
                model.path.display()
            ))),
        }
    }
}
