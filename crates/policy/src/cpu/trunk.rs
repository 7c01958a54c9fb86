//! The trunk of an action expert in f64: a handful of rows, so precision costs little where errors grow most.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use skillweld_linalg::Threads;
use skillweld_simd::vectorize;

use crate::backend::TrunkBlock;

use super::{CpuMatrix, CpuWeight};

/// Output features that a thread computes at once.
const FEATURES: usize = 32;

/// Actions × width in f64.
#[derive(Debug)]
pub struct CpuTrunk {
    columns: usize,
    values: Vec<f64>,
}

impl CpuTrunk {
    pub(super) fn new(rows: usize, values: &[f32]) -> Self {
        let row: Vec<f64> = values.iter().copied().map(f64::from).collect();
        Self { columns: row.len(), values: row.repeat(rows) }
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn round_row(&self, row: usize, out: &mut [f32]) {
        let values = &self.values[row * self.columns..(row + 1) * self.columns];
        out.iter_mut().zip(values).for_each(|(out, value)| *out = *value as f32);
    }
}

/// x ← ReLU(feed_forward(norm(x + out(attended)))).
pub(super) fn block(
    threads: Threads,
    x: &mut CpuTrunk,
    attended: &CpuMatrix,
    block: &TrunkBlock<'_, CpuWeight>,
) {
    let attended: Vec<f64> = attended.iter().copied().map(f64::from).collect();
    let columns = attended.len() / x.rows().max(1);
    let residual = linear(threads, &attended, columns, block.out);
    x.values.iter_mut().zip(residual).for_each(|(x, residual)| *x += residual);
    let (gain, bias) = (block.norm.0.vector(), block.norm.1.vector());
    for row in x.values.chunks_exact_mut(x.columns.max(1)) {
        layer_norm(row, gain, bias, f64::from(block.epsilon));
    }
    x.values = linear(threads, &x.values, x.columns, block.feed_forward);
    x.values.iter_mut().for_each(|x| *x = x.max(0.0));
}

/// x · Wᵀ + bias, x having `columns` columns.
fn linear(threads: Threads, x: &[f64], columns: usize, (weight, bias): (&CpuWeight, &CpuWeight)) -> Vec<f64> {
    let (weight, bias) = (weight.table(), bias.vector());
    let (rows, features) = (x.len() / columns.max(1), weight.rows());
    // Feature by feature, each with all its rows, so that threads write side by side.
    let mut turned = vec![0.0; features * rows];
    let blocks: Vec<_> = turned.chunks_mut((FEATURES * rows).max(1)).map(Mutex::new).collect();
    let Ok(()) = threads.for_each(
        blocks.len(),
        || vec![0.0; columns],
        |row, index| {
            let mut block = blocks[index].lock().unwrap_or_else(PoisonError::into_inner);
            for (feature, out) in (index * FEATURES..).zip(block.chunks_exact_mut(rows)) {
                weight.row(feature, row);
                dots(x, row, out);
                out.iter_mut().for_each(|out| *out += f64::from(bias[feature]));
            }
            Ok::<_, Infallible>(())
        },
    );
    drop(blocks);
    let at = |index: usize| turned[index % features * rows + index / features];
    (0..rows * features).map(at).collect()
}

fn layer_norm(row: &mut [f64], gain: &[f32], bias: &[f32], epsilon: f64) {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((x, gain), bias) in row.iter_mut().zip(gain).zip(bias) {
        *x = (*x - mean) * scale * f64::from(*gain) + f64::from(*bias);
    }
}

vectorize! {
    /// out\[r\] = x\[r\] · w, the rows of x as long as w.
    fn dots(x: &[f64], w: &[f32], out: &mut [f64]) {
        // Four rows at once: their sums stay in registers, and w is converted once for all of them.
        let (fours, rest) = out.as_chunks_mut::<4>();
        let done = fours.len() * 4 * w.len();
        for (out, x) in fours.iter_mut().zip(x.chunks_exact(4 * w.len())) {
            *out = dots_of(std::array::from_fn(|r| &x[r * w.len()..(r + 1) * w.len()]), w);
        }
        for (out, x) in rest.iter_mut().zip(x[done..].chunks_exact(w.len())) {
            [*out] = dots_of([x], w);
        }
    }
}

#[inline(always)]
fn dots_of<const R: usize>(x: [&[f64]; R], w: &[f32]) -> [f64; R] {
    const LANES: usize = 8;
    let mut sums = [[0.0; LANES]; R];
    let (chunks, rest) = w.as_chunks::<LANES>();
    for (index, chunk) in chunks.iter().enumerate() {
        let w = chunk.map(f64::from);
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = &x[index * LANES..][..LANES];
            for lane in 0..LANES {
                sums[lane] += x[lane] * w[lane];
            }
        }
    }
    let first = w.len() - rest.len();
    std::array::from_fn(|r| {
        let tail = x[r][first..].iter().zip(rest).map(|(x, &w)| x * f64::from(w));
        sums[r].iter().copied().chain(tail).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::Precision;
    use crate::backend::{Backend, ValuesMut, WeightKind};
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_block_equals_its_formula(rows in 1..11usize, width in 1..70usize, count in 1..4usize, seed: u32) {
            let cpu = Cpu::new(Threads::new(NonZeroUsize::new(count).unwrap()), Precision::F32);
            let value = |tensor: usize, i: usize| {
                ((i as u32 ^ seed).wrapping_add(tensor as u32 * 77_777).wrapping_mul(2_654_435_761) >> 8) as f32
                    / (1 << 23) as f32 - 1.0
            };
            let (matrix, vector) = ((WeightKind::TrunkMatrix, width), (WeightKind::Vector, 1));
            let mut weights = [matrix, vector, vector, vector, matrix, vector]
                .map(|(kind, rows)| cpu.allocate(kind, rows, width).unwrap());
            cpu.write(&mut weights.iter_mut().collect::<Vec<_>>(), &|tensor, offset, out| {
                let ValuesMut::F32(out) = out else { panic!("the backend keeps f32") };
                out.iter_mut().enumerate().for_each(|(i, out)| *out = value(tensor, offset + i));
                Ok(())
            }).unwrap();
            let start: Vec<f32> = (0..width).map(|i| value(10, i)).collect();
            let attended: Vec<f32> = (0..rows * width).map(|i| value(11, i)).collect();
            let mut x = cpu.trunk_start(rows, &start).unwrap();
            let attended_matrix = cpu.upload(rows, width, &attended).unwrap();
            let [out, out_bias, gain, bias, feed, feed_bias] = &weights;
            let layers =
                TrunkBlock { out: (out, out_bias), norm: (gain, bias), epsilon: 1e-5, feed_forward: (feed, feed_bias) };
            cpu.trunk_block(&mut x, &attended_matrix, layers).unwrap();

            let w = |tensor: usize, i: usize| f64::from(value(tensor, i));
            for row in 0..rows {
                let dot = |tensor: usize, feature: usize, x: &dyn Fn(usize) -> f64| -> f64 {
                    (0..width).map(|j| x(j) * w(tensor, feature * width + j)).sum()
                };
                let sum: Vec<f64> = (0..width).map(|feature| {
                    f64::from(start[feature]) + w(1, feature) + dot(0, feature, &|j| f64::from(attended[row * width + j]))
                }).collect();
                let mean = sum.iter().sum::<f64>() / width as f64;
                let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let normed: Vec<f64> = (0..width).map(|j| {
                    (sum[j] - mean) / (variance + f64::from(1e-5f32)).sqrt() * w(2, j) + w(3, j)
                }).collect();
                for feature in 0..width {
                    let expected = (w(5, feature) + dot(4, feature, &|j| normed[j])).max(0.0);
                    let actual = x.values[row * width + feature];
                    prop_assert!((actual - expected).abs() < 1e-9 * (1.0 + expected), "{actual} {expected}");
                }
            }
        }
    }
}
