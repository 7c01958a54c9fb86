//! Which numbered layer a key belongs to.

use std::ops::Range;

/// A key that belongs to a numbered layer: `model.layers.7.mlp.up_proj.weight` is layer 7 of stack `model.layers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKey<'k> {
    /// What stands before the number: models with several towers have several stacks.
    pub stack: &'k str,
    /// The layer's number within its stack.
    pub index: usize,
    /// What follows the number, without the dot; empty when nothing does.
    pub rest: &'k str,
}

impl<'k> LayerKey<'k> {
    /// Splits a key at its first layer number: a number right after a part called `h` or ending in `layer`, `layers`,
    /// `block` or `blocks`. `None` for keys outside layers, such as embeddings, final norm and output head.
    pub fn parse(key: &'k str) -> Option<LayerKey<'k>> {
        let mut start = 0;
        let mut container = "";
        for part in key.split('.') {
            let end = start + part.len();
            if holds_layers(container)
                && let Ok(index) = part.parse()
                && part.bytes().all(|b| b.is_ascii_digit())
            {
                let rest = key[end..].strip_prefix('.').unwrap_or("");
                return Some(LayerKey { stack: &key[..start - 1], index, rest });
            }
            container = part;
            start = end + 1;
        }
        None
    }

    /// The key of the same tensor in layer `index`: how slices renumber layers.
    pub fn with_index(&self, index: usize) -> String {
        let dot = if self.rest.is_empty() { "" } else { "." };
        format!("{}.{index}{dot}{}", self.stack, self.rest)
    }

    /// Where the layer goes when a slice takes `layers` of a model and the slices before it hold `layers_before`;
    /// `None` when the slice leaves the layer out.
    pub fn renumbered(&self, layers: &Range<usize>, layers_before: usize) -> Option<String> {
        layers.contains(&self.index).then(|| self.with_index(self.index - layers.start + layers_before))
    }
}

fn holds_layers(part: &str) -> bool {
    part == "h" || ["layers", "layer", "blocks", "block"].iter().any(|name| part.ends_with(name))
}
