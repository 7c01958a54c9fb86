//! From thinned, weighted task vectors to one: the sum, or the consensus on a sign.

use skillweld_plugin_sdk::{Block, vectorize};

/// Elements worked on at a time: N rows of this many f32 stay in the first cache.
pub(crate) const TILE: usize = 512;

/// Gives an expert's weighted values where the thinning keeps them, and zero elsewhere.
pub(crate) trait Thin {
    /// Fills `values` with those of expert `k`, from element `start` of the block.
    fn thin(&self, k: usize, start: usize, values: &mut [f32]);

    /// Adds those values to `sums`; `row` is scratch of the same length.
    fn add(&self, k: usize, start: usize, sums: &mut [f32], row: &mut [f32]) {
        self.thin(k, start, row);
        add(sums, row);
    }
}

/// Thins tile by tile and hands over each tile's start and its rows, one an expert, [`TILE`] apart.
pub(crate) fn for_each_tile(block: &Block<'_>, thin: &impl Thin, mut join: impl FnMut(usize, usize, &[f32])) {
    let mut rows = vec![0.0; block.experts() * TILE];
    for start in (0..block.len()).step_by(TILE) {
        let len = TILE.min(block.len() - start);
        for (k, row) in rows.chunks_exact_mut(TILE).enumerate() {
            thin.thin(k, start, &mut row[..len]);
        }
        join(start, len, &rows);
    }
}

/// How the rows become one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Join {
    /// Σ v_k / divisor.
    Sum,
    /// Σ of the v_k that have the sign of Σ v_k, over the sum of their weights when `normalize`.
    Consensus {
        /// Sign taken where the sum is zero: 1, −1, or 0 for none.
        zero_sum: f32,
    },
}

/// Thins and joins one block of a merge with the parameters of [`crate::spec`].
pub(crate) fn merge(block: &Block<'_>, thin: &impl Thin, join: Join, out: &mut [f32]) {
    let weights: Vec<f32> = block.expert_numbers("weight").iter().map(|&w| w as f32).collect();
    let (normalize, lambda) = (block.boolean("normalize"), block.number("lambda") as f32);
    let total: f32 = weights.iter().sum();
    // As mergekit: weights that cancel do not divide.
    let divisor = if normalize && total.abs() >= 1e-8 { total } else { 1.0 };
    let Join::Consensus { zero_sum } = join else {
        let mut row = [0.0; TILE];
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            out.fill(0.0);
            (0..weights.len()).for_each(|k| thin.add(k, tile * TILE, out, &mut row[..out.len()]));
            if divisor != 1.0 {
                divide(out, divisor);
            }
            if lambda != 1.0 {
                scale(out, lambda);
            }
        }
        return;
    };
    for_each_tile(block, thin, |start, len, rows| {
        let out = &mut out[start..start + len];
        if normalize {
            consensus_mean(out, rows, &weights, zero_sum);
        } else {
            consensus_sum(out, rows, zero_sum);
        }
        if lambda != 1.0 {
            scale(out, lambda);
        }
    });
}

/// −1, 0 or 1, with `zero_sum` for zero.
#[inline(always)]
fn elect(sum: f32, zero_sum: f32) -> f32 {
    if sum > 0.0 {
        1.0
    } else if sum < 0.0 {
        -1.0
    } else {
        zero_sum
    }
}

#[inline(always)]
fn add_rows(sums: &mut [f32], rows: &[f32]) {
    for row in rows.chunks_exact(TILE) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

vectorize! {
    fn add(sums: &mut [f32], row: &[f32]) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }

    fn divide(out: &mut [f32], divisor: f32) {
        out.iter_mut().for_each(|out| *out /= divisor);
    }

    fn consensus_sum(out: &mut [f32], rows: &[f32], zero_sum: f32) {
        let mut signs = [0f32; TILE];
        let signs = &mut signs[..out.len()];
        add_rows(signs, rows);
        signs.iter_mut().for_each(|sign| *sign = elect(*sign, zero_sum));
        out.fill(0.0);
        for row in rows.chunks_exact(TILE) {
            for ((out, &sign), &value) in out.iter_mut().zip(&*signs).zip(row) {
                *out += if value * sign > 0.0 { value } else { 0.0 };
            }
        }
    }

    /// The divisor of an element is the sum of the weights of those that agree; none, or weights that cancel: 1.
    fn consensus_mean(out: &mut [f32], rows: &[f32], weights: &[f32], zero_sum: f32) {
        let (mut signs, mut divisors) = ([0f32; TILE], [0f32; TILE]);
        let (signs, divisors) = (&mut signs[..out.len()], &mut divisors[..out.len()]);
        add_rows(signs, rows);
        signs.iter_mut().for_each(|sign| *sign = elect(*sign, zero_sum));
        out.fill(0.0);
        for (row, &weight) in rows.chunks_exact(TILE).zip(weights) {
            for (((out, divisor), &sign), &value) in out.iter_mut().zip(&mut *divisors).zip(&*signs).zip(row) {
                let agrees = value * sign > 0.0;
                *out += if agrees { value } else { 0.0 };
                *divisor += if agrees { weight } else { 0.0 };
            }
        }
        for (out, &divisor) in out.iter_mut().zip(&*divisors) {
            *out /= if divisor == 0.0 { 1.0 } else { divisor };
        }
    }

    fn scale(out: &mut [f32], lambda: f32) {
        out.iter_mut().for_each(|out| *out *= lambda);
    }

    /// Σ sign(Σ_k v_k) over the first `len` elements: positive when the sum is positive more often than negative.
    pub(crate) fn sum_of_signs(rows: &[f32], len: usize) -> f64 {
        let mut sums = [0f32; TILE];
        add_rows(&mut sums[..len], rows);
        let votes: i32 = sums.iter().map(|&sum| i32::from(sum > 0.0) - i32::from(sum < 0.0)).sum();
        f64::from(votes)
    }

    /// Weighs every element and adds it.
    pub(crate) fn add_weighed(sums: &mut [f32], expert: &[f32], weight: f32) {
        for (sum, expert) in sums.iter_mut().zip(expert) {
            *sum += weight * expert;
        }
    }

    /// Weighs every element.
    pub(crate) fn weigh(values: &mut [f32], expert: &[f32], weight: f32) {
        for (value, expert) in values.iter_mut().zip(expert) {
            *value = weight * expert;
        }
    }
}
