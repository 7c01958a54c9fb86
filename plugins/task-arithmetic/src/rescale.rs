//! Making up for what thinning takes away: the rest of a task vector is scaled back to the norm that it had.

use skillweld_plugin_sdk::{Block, vectorize};

use crate::join::{TILE, Thin, for_each_tile};

/// Length of the pass's sums: Σ|τ| of each expert before thinning, and after it.
pub(crate) const fn sums_len(experts: usize) -> usize {
    2 * experts
}

/// Adds up both for one block; `thin` thins with weights of 1.
pub(crate) fn observe(block: &Block<'_>, thin: &impl Thin, sums: &mut [f64]) {
    for_each_tile(block, thin, |start, len, rows| {
        for ((k, sums), row) in
            sums.as_chunks_mut::<2>().0.iter_mut().enumerate().zip(rows.chunks_exact(TILE))
        {
            sums[0] += sum_of_magnitudes(&block.expert(k)[start..start + len]);
            sums[1] += sum_of_magnitudes(&row[..len]);
        }
    });
}

/// Each expert's factor Σ|τ| / Σ|thinned τ|. A task vector of which nothing is left keeps nothing: 1.
pub(crate) fn factors(totals: &[f64]) -> impl Iterator<Item = f64> {
    totals.as_chunks::<2>().0.iter().map(|&[whole, kept]| if kept > 0.0 { whole / kept } else { 1.0 })
}

vectorize! {
    /// Σ|x| in f64, in 16 running sums so that the loop vectorises without reordering.
    fn sum_of_magnitudes(values: &[f32]) -> f64 {
        let mut sums = [0.0; 16];
        for values in values.chunks(16) {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value.abs());
            }
        }
        sums.iter().sum()
    }
}
