//! Singular values of the merged task vector, of a few matrices in each stack of layers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ndarray::Array2;
use serde::Serialize;
use skillweld_linalg::eigh;
use skillweld_store::LayerKey;

use crate::vectors::Changed;
use crate::{Control, ReportError};

/// Layers looked at in each stack: first, last, and between.
const LAYERS: usize = 5;
/// Matrices looked at in each layer.
const MATRICES: usize = 2;
/// Matrices whose smaller side is longer are left out: their decomposition takes minutes.
const LONGEST_SIDE: usize = 2048;
/// Larger matrices are left out: they are decoded whole, in f64.
const MOST_ELEMENTS: usize = 1 << 24;
/// Multiplications that all decompositions together may take, about: some seconds.
const BUDGET: f64 = 4e11;
/// Singular values that a report keeps of each matrix.
const KEPT: usize = 64;

/// Singular values of τ of one matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spectrum {
    /// The tensor's key.
    pub key: String,
    /// What stands before the layer's number.
    pub stack: String,
    /// The layer's number.
    pub index: usize,
    /// What stands behind it.
    pub matrix: String,
    /// Rows and columns; dimensions after the first are flattened.
    pub shape: [usize; 2],
    /// σ_i / σ₁ at the places of `places`.
    pub relative: Vec<f64>,
    /// Counted from 1; evenly spaced on a logarithmic scale.
    pub places: Vec<usize>,
    /// σ₁, the spectral norm.
    pub largest: f64,
    /// exp(−Σ p log p) with p = σ / Σσ (Roy and Vetterli, 2007): how many directions τ has.
    pub effective_rank: f64,
    /// ‖τ‖² / σ₁².
    pub stable_rank: f64,
    /// Singular values that hold 90 % of ‖τ‖².
    pub rank_of_90_percent: usize,
}

/// Which of the changed tensors are looked at: the same two matrices in some layers of every stack, as far as the budget goes.
fn chosen<'a, 'c>(changed: &'c [Changed<'a>]) -> Vec<(&'c Changed<'a>, LayerKey<'a>)> {
    let mut stacks: BTreeMap<&str, BTreeMap<&str, BTreeMap<usize, &'c Changed<'a>>>> = BTreeMap::new();
    for tensor in changed {
        let (Some(layer), [rows, columns]) = (LayerKey::parse(tensor.key), sides(tensor)) else { continue };
        let fits = (2..=LONGEST_SIDE).contains(&rows.min(columns)) && rows * columns <= MOST_ELEMENTS;
        if fits && tensor.base.shape().len() >= 2 {
            stacks.entry(layer.stack).or_default().entry(layer.rest).or_default().insert(layer.index, tensor);
        }
    }
    let mut rounds: BTreeMap<usize, Vec<(&Changed<'a>, LayerKey<'a>)>> = BTreeMap::new();
    for matrices in stacks.values() {
        let has = |word: &str| matrices.keys().position(|rest| rest.contains(word));
        let mut kinds: Vec<usize> = [has("attn"), has("mlp")].into_iter().flatten().collect();
        kinds.extend((0..matrices.len()).filter(|kind| !kinds.contains(kind)).collect::<Vec<_>>());
        for layers in kinds.into_iter().take(MATRICES).filter_map(|kind| matrices.values().nth(kind)) {
            for (round, place) in spaced(layers.len()).into_iter().enumerate() {
                let tensor = layers.values().nth(place);
                let parsed = tensor.and_then(|tensor| Some((*tensor, LayerKey::parse(tensor.key)?)));
                rounds.entry(round).or_default().extend(parsed);
            }
        }
    }
    let mut spent = 0.0;
    let affordable = rounds.into_values().flatten().filter(|(tensor, _)| {
        let [rows, columns] = sides(tensor).map(|side| side as f64);
        let side = rows.min(columns);
        let cost = rows * columns * side + 10.0 * side.powi(3);
        let fits = spent + cost <= BUDGET;
        spent += if fits { cost } else { 0.0 };
        fits
    });
    let mut chosen: Vec<_> = affordable.collect();
    chosen.sort_by_key(|(_, layer)| (layer.stack, layer.rest, layer.index));
    chosen
}

fn sides(tensor: &Changed<'_>) -> [usize; 2] {
    match tensor.base.shape() {
        [] => [1, 1],
        [rows, rest @ ..] => [*rows, rest.iter().product()],
    }
}

/// Places of a few among so many: both ends first, then between.
fn spaced(count: usize) -> Vec<usize> {
    let last = count.saturating_sub(1);
    let mut places: Vec<usize> = Vec::new();
    for fourth in [0, 4, 2, 1, 3].into_iter().take(LAYERS) {
        let place = last * fourth / 4;
        if place < count && !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Spectra of the matrices chosen, by stack, matrix and layer; those of nothing but zeros are left out.
///
/// # Errors
/// A tensor that cannot be decoded, or holds NaN.
pub(crate) fn spectra(changed: &[Changed<'_>], control: &Control<'_>) -> Result<Vec<Spectrum>, ReportError> {
    let chosen = chosen(changed);
    let results: Vec<Mutex<Option<Spectrum>>> = chosen.iter().map(|_| Mutex::default()).collect();
    let one = |(): &mut (), index: usize| {
        control.check()?;
        let (tensor, layer) = &chosen[index];
        *results[index].lock().unwrap_or_else(PoisonError::into_inner) = spectrum(tensor, layer)?;
        Ok::<_, ReportError>(())
    };
    control.threads.for_each(chosen.len(), || (), one)?;
    Ok(results
        .into_iter()
        .filter_map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect())
}

fn spectrum(tensor: &Changed<'_>, layer: &LayerKey<'_>) -> Result<Option<Spectrum>, ReportError> {
    let [rows, columns] = sides(tensor);
    let mut base = vec![0.0; rows * columns];
    let mut vector = base.clone();
    tensor.base.decode_block(0, &mut base).map_err(ReportError::tensor(tensor.key))?;
    tensor.vector.decode_block(0, &base, &mut vector).map_err(ReportError::tensor(tensor.key))?;
    drop(base);
    let matrix = Array2::from_shape_vec((rows, columns), vector.into_iter().map(f64::from).collect());
    let values = singular_values(tensor.key, &matrix.unwrap_or_default())?;
    let Some(&largest) = values.first().filter(|&&largest| largest > 0.0) else { return Ok(None) };
    let squares: f64 = values.iter().map(|value| value * value).sum();
    let sum: f64 = values.iter().sum();
    let entropy: f64 = values.iter().map(|value| value / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    let mut held = 0.0;
    let rank_of_90_percent = 1 + values
        .iter()
        .take_while(|value| {
            held += *value * *value;
            held < 0.9 * squares
        })
        .count();
    let places = places(values.len());
    Ok(Some(Spectrum {
        key: tensor.key.to_owned(),
        stack: layer.stack.to_owned(),
        index: layer.index,
        matrix: layer.rest.to_owned(),
        shape: [rows, columns],
        relative: places.iter().map(|place| values[place - 1] / largest).collect(),
        places,
        largest,
        effective_rank: entropy.exp(),
        stable_rank: squares / (largest * largest),
        rank_of_90_percent,
    }))
}

/// Largest first, from the eigenvalues of the smaller Gram matrix: exact to about 1e-8 of the largest, in f64.
fn singular_values(key: &str, matrix: &Array2<f64>) -> Result<Vec<f64>, ReportError> {
    let (rows, columns) = matrix.dim();
    let gram = if rows <= columns { matrix.dot(&matrix.t()) } else { matrix.t().dot(matrix) };
    let eigen = eigh(&gram.view()).map_err(|source| ReportError::Linalg { key: key.to_owned(), source })?;
    Ok(eigen.values.iter().rev().map(|value| value.max(0.0).sqrt()).collect())
}

/// Up to [`KEPT`] places from 1 to `count`, denser at the beginning.
fn places(count: usize) -> Vec<usize> {
    let steps = (KEPT - 1) as f64;
    let mut places: Vec<usize> =
        (0..KEPT).map(|step| (count as f64).powf(step as f64 / steps).round() as usize).collect();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_linalg::thin_svd;

    proptest! {
        #[test]
        fn singular_values_are_those_of_a_whole_decomposition(
            (rows, columns) in (1..12usize, 1..12usize), seed in any::<u32>(),
        ) {
            let value = |i: usize| f64::from((seed ^ i as u32).wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24) - 0.5;
            let matrix = Array2::from_shape_fn((rows, columns), |(i, j)| value(i * columns + j));
            let reference = thin_svd(&matrix.view()).unwrap().s;
            let largest = reference[0];
            for (ours, reference) in singular_values("key", &matrix).unwrap().iter().zip(&reference) {
                // A Gram matrix squares the condition: errors are those of the root of ε.
                prop_assert!((ours - reference).abs() <= 1e-7 * largest, "{} {}", ours, reference);
            }
        }
    }

    #[test]
    fn layers_and_places_are_spread() {
        assert_eq!(spaced(24), [0, 23, 11, 5, 17]);
        assert_eq!((spaced(1), spaced(2), spaced(0)), (vec![0], vec![0, 1], vec![]));
        assert_eq!(places(3), [1, 2, 3]);
        let many = places(896);
        assert!(many.len() <= KEPT && many[0] == 1 && many.last() == Some(&896));
        assert!(many.is_sorted());
    }
}
