//! Keys by layer, and tables over pairs of tasks.

use std::collections::BTreeMap;

use serde::Serialize;
use skillweld_store::LayerKey;

/// A layer, or a tensor outside layers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Layer {
    /// Such as `language_model.model.layers`; the key itself outside layers.
    pub(crate) stack: String,
    /// The layer's number in its stack.
    pub(crate) index: Option<usize>,
}

impl Layer {
    pub(crate) fn of(key: &str) -> Self {
        match LayerKey::parse(key) {
            Some(layer) => Self { stack: layer.stack.to_owned(), index: Some(layer.index) },
            None => Self { stack: key.to_owned(), index: None },
        }
    }

    /// As it stands in keys.
    pub(crate) fn name(&self) -> String {
        self.index.map_or_else(|| self.stack.clone(), |index| format!("{}.{index}", self.stack))
    }
}

/// Joins what belongs to one layer, by stack and number.
pub(crate) fn by_layer<'k, T: Default>(
    parts: impl IntoIterator<Item = (&'k str, T)>,
    add: impl Fn(&mut T, &T),
) -> Vec<(Layer, T)> {
    let mut layers: BTreeMap<Layer, T> = BTreeMap::new();
    for (key, part) in parts {
        add(layers.entry(Layer::of(key)).or_default(), &part);
    }
    layers.into_iter().collect()
}

/// Every pair (i, j) with i ≤ j of `0..count`, the first index slowest.
pub(crate) fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |i| (i..count).map(move |j| (i, j)))
}

/// Where the pair lies in the order of [`pairs`].
pub(crate) fn place(count: usize, i: usize, j: usize) -> usize {
    let (i, j) = (i.min(j), i.max(j));
    i * count - (i * (i + 1)) / 2 + j
}

/// Cosines from inner products in the order of [`pairs`], as a symmetric matrix; NaN for vectors of length zero.
pub(crate) fn cosines(count: usize, products: &[f64]) -> Vec<Vec<f64>> {
    let at = |i, j| products.get(place(count, i, j)).copied().unwrap_or(f64::NAN);
    let cosine = |i, j| if i == j { at(i, j) / at(i, j) } else { at(i, j) / (at(i, i) * at(j, j)).sqrt() };
    // Rounding may carry a cosine past one.
    (0..count).map(|i| (0..count).map(|j| f64::clamp(cosine(i, j), -1.0, 1.0)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_their_places() {
        for count in 0..6 {
            for (position, (i, j)) in pairs(count).enumerate() {
                assert_eq!((place(count, i, j), place(count, j, i)), (position, position));
            }
        }
    }

    #[test]
    fn layers_are_counted_as_people_count() {
        let keys = ["m.layers.10.a", "m.layers.2.a", "embed", "m.layers.2.b"];
        let layers = by_layer(keys.map(|key| (key, 1)), |sum: &mut u64, one| *sum += one);
        let names: Vec<_> = layers.iter().map(|(layer, sum)| (layer.name(), *sum)).collect();
        let expected = [("embed", 1), ("m.layers.2", 2), ("m.layers.10", 1)];
        assert_eq!(names, expected.map(|(name, sum)| (name.to_owned(), sum)));
    }

    #[test]
    fn cosines_of_inner_products() {
        // (1, 0) and (3, 4), and nothing.
        let matrix = cosines(3, &[1.0, 3.0, 0.0, 25.0, 0.0, 0.0]);
        assert_eq!((matrix[0][0], matrix[0][1], matrix[1][0]), (1.0, 0.6, 0.6));
        assert!(matrix[2][0].is_nan() && matrix[2][2].is_nan());
    }
}
