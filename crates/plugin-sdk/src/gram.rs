//! For methods whose result lies in the span of the experts: inner products say everything about it, and it is a weighted
//! sum. One pass over the data finds the products, whatever is computed from them.

use skillweld_simd::vectorize;

/// Inner products ⟨x_i, x_j⟩ of all pairs of vectors, in f64.
///
/// ```
/// use skillweld_plugin_sdk::gram::{Gram, weighted_sum};
///
/// let (x, y): (&[f32], &[f32]) = (&[3.0, 4.0], &[4.0, 3.0]);
/// let gram = Gram::of(&[x, y]);
/// assert_eq!((gram.dot(0, 1), gram.length(0)), (24.0, 5.0));
/// let mut out = [0.0; 2];
/// weighted_sum(&mut out, &[x, y], &[2.0, -1.0]);
/// assert_eq!(out, [2.0, 5.0]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Gram<'a> {
    /// Row by row of the lower triangle: (0, 0), (1, 0), (1, 1), (2, 0), …
    products: std::borrow::Cow<'a, [f64]>,
    count: usize,
}

/// Elements at a time: rows of this many f64 stay in the first cache.
const TILE: usize = 256;
/// Running sums side by side, so that loops vectorise without reordering.
const LANES: usize = 16;

impl<'a> Gram<'a> {
    /// Length of the sums for `count` vectors, for a [`Plan`](crate::Plan).
    pub const fn sums_len(count: usize) -> usize {
        count * (count + 1) / 2
    }

    /// Adds the products of one block to the sums of a pass.
    ///
    /// # Panics
    /// When the vectors differ in length, or the sums are not as long as [`sums_len`](Self::sums_len) says.
    pub fn observe(vectors: &[&[f32]], sums: &mut [f64]) {
        assert_eq!(sums.len(), Self::sums_len(vectors.len()));
        let len = vectors.first().map_or(0, |first| first.len());
        assert!(vectors.iter().all(|vector| vector.len() == len), "vectors of different lengths");
        let mut rows = vec![[0.0; TILE]; vectors.len()];
        for start in (0..len).step_by(TILE) {
            let end = len.min(start + TILE);
            for (row, vector) in rows.iter_mut().zip(vectors) {
                widen(row, &vector[start..end]);
            }
            let mut sums = sums.iter_mut();
            for (i, x) in rows.iter().enumerate() {
                for (y, sum) in rows[..=i].iter().zip(&mut sums) {
                    *sum += dot(x, y);
                }
            }
        }
    }

    /// The totals of a pass over `count` vectors.
    ///
    /// # Panics
    /// When there are not as many totals as [`sums_len`](Self::sums_len) says.
    pub fn new(count: usize, totals: &'a [f64]) -> Self {
        assert_eq!(totals.len(), Self::sums_len(count));
        Self { products: totals.into(), count }
    }

    /// The products of whole vectors.
    ///
    /// # Panics
    /// When the vectors differ in length.
    pub fn of(vectors: &[&[f32]]) -> Self {
        let mut products = vec![0.0; Self::sums_len(vectors.len())];
        Self::observe(vectors, &mut products);
        Self { products: products.into(), count: vectors.len() }
    }

    /// Number of vectors.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// ⟨x_i, x_j⟩.
    ///
    /// # Panics
    /// When there is no such vector.
    pub fn dot(&self, i: usize, j: usize) -> f64 {
        let (row, column) = (i.max(j), i.min(j));
        self.products[Self::sums_len(row) + column]
    }

    /// ‖x_i‖.
    ///
    /// # Panics
    /// When there is no such vector.
    pub fn length(&self, i: usize) -> f64 {
        self.dot(i, i).sqrt()
    }

    /// cos ∠(x_i, x_j), 0 where one of them is zero. NaN where one is not finite.
    ///
    /// # Panics
    /// When there is no such vector.
    pub fn cosine(&self, i: usize, j: usize) -> f64 {
        let lengths = self.length(i) * self.length(j);
        let cosine = self.dot(i, j) / if lengths == 0.0 { 1.0 } else { lengths };
        cosine.clamp(-1.0, 1.0)
    }

    /// ‖Σ c_i x_i‖.
    ///
    /// # Panics
    /// When there are not as many factors as vectors.
    pub fn length_of_sum(&self, factors: &[f64]) -> f64 {
        assert_eq!(factors.len(), self.count);
        let mut square = 0.0;
        for (i, a) in factors.iter().enumerate() {
            let others = factors[..i].iter().enumerate().map(|(j, b)| 2.0 * b * self.dot(i, j)).sum::<f64>();
            square += a * (a * self.dot(i, i) + others);
        }
        // Rounding may leave less than nothing.
        if square < 0.0 { 0.0 } else { square.sqrt() }
    }

    /// No vector holds NaN or infinity: the square of an f32 does not overflow.
    pub fn is_finite(&self) -> bool {
        self.products.iter().all(|product| product.is_finite())
    }
}

/// out = Σ c_k x_k, in f32 in the order of the vectors.
///
/// # Panics
/// When there are not as many factors as vectors, or vectors are shorter than `out`.
pub fn weighted_sum(out: &mut [f32], vectors: &[&[f32]], factors: &[f64]) {
    const TILE: usize = 1024;
    assert_eq!(vectors.len(), factors.len());
    for (tile, out) in out.chunks_mut(TILE).enumerate() {
        out.fill(0.0);
        for (vector, &factor) in vectors.iter().zip(factors) {
            add_scaled(out, &vector[tile * TILE..][..out.len()], factor as f32);
        }
    }
}

vectorize! {
    /// Zeros behind a short tile add nothing to any product.
    fn widen(row: &mut [f64; TILE], values: &[f32]) {
        for (wide, value) in row.iter_mut().zip(values) {
            *wide = f64::from(*value);
        }
        row[values.len().min(TILE)..].fill(0.0);
    }

    fn dot(a: &[f64; TILE], b: &[f64; TILE]) -> f64 {
        let mut sums = [0.0; LANES];
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += a * b;
            }
        }
        sums.iter().sum()
    }

    fn add_scaled(out: &mut [f32], values: &[f32], factor: f32) {
        for (out, value) in out.iter_mut().zip(values) {
            *out += factor * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_are_those_of_the_vectors_however_they_are_cut(
            elements in proptest::collection::vec([-8f32..8.0, -8f32..8.0, -8f32..8.0], 0..700),
            cut in 0..700usize,
            factors in [-2f64..2.0, -2f64..2.0, -2f64..2.0],
        ) {
            let vectors = [0, 1, 2].map(|k| elements.iter().map(|e| e[k]).collect::<Vec<f32>>());
            let vectors = vectors.each_ref().map(Vec::as_slice);
            let (head, tail) = (vectors.map(|v| &v[..cut.min(v.len())]), vectors.map(|v| &v[cut.min(v.len())..]));
            let mut sums = vec![0.0; Gram::sums_len(3)];
            Gram::observe(&head, &mut sums);
            Gram::observe(&tail, &mut sums);
            let gram = Gram::new(3, &sums);
            for i in 0..3 {
                for j in 0..3 {
                    let terms = vectors[i].iter().zip(vectors[j]).map(|(a, b)| f64::from(*a) * f64::from(*b));
                    let size = terms.clone().map(f64::abs).sum::<f64>();
                    let expected: f64 = terms.sum();
                    prop_assert!((gram.dot(i, j) - expected).abs() <= 700.0 * f64::EPSILON * size);
                }
            }
            let mut sum = vec![f32::NAN; elements.len()];
            weighted_sum(&mut sum, &vectors, &factors);
            for (i, &sum) in sum.iter().enumerate() {
                let terms = [0, 1, 2].map(|k| factors[k] * f64::from(vectors[k][i]));
                let size: f64 = terms.iter().map(|term| term.abs()).sum();
                // Three factors, products and sums round.
                let bound = 5.0 * f64::from(f32::EPSILON) * size;
                prop_assert!((f64::from(sum) - terms.iter().sum::<f64>()).abs() <= bound);
            }
            let length = sum.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let size: f64 = (0..3).map(|k| factors[k].abs() * gram.length(k)).sum();
            prop_assert!((gram.length_of_sum(&factors) - length).abs() <= 1e-6 * size);
        }
    }

    #[test]
    fn angles_with_nothing_are_right() {
        let gram = Gram::of(&[&[0.0, 0.0], &[3.0, 4.0], &[-6.0, -8.0]]);
        assert_eq!((gram.cosine(0, 1), gram.cosine(1, 2)), (0.0, -1.0));
        assert!(gram.is_finite());
        let gram = Gram::of(&[&[f32::INFINITY, 0.0], &[1.0, 1.0]]);
        assert!(!gram.is_finite() && gram.cosine(0, 1).is_nan());
    }
}
