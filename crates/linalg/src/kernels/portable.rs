//! The same loops in plain Rust: what runs without AVX2, and what the other kernels are compared with.

use super::{Block, COLUMNS};

/// Rows of a band: a panel's values are used for each of them.
const ROWS: usize = 4;

/// # Safety
/// `block` points to what [`Block`] says.
pub(super) unsafe fn block(block: &Block<f32>) {
    for row in (0..block.rows).step_by(ROWS) {
        let rows = ROWS.min(block.rows - row);
        for panel in 0..block.columns / COLUMNS {
            let mut sums = [[0.0f32; COLUMNS]; ROWS];
            for k in 0..block.depth {
                // SAFETY: the panel has 16 values for each k, the band as many as it has rows.
                let (x, w) = unsafe {
                    let x = block.x.add(row / ROWS * block.band_stride + k * ROWS);
                    let w = block.panels.add(panel * block.panel_stride + k * COLUMNS);
                    (&*x.cast::<[f32; ROWS]>(), &*w.cast::<[f32; COLUMNS]>())
                };
                for (sums, x) in sums.iter_mut().zip(x) {
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum += x * w;
                    }
                }
            }
            for (r, sums) in sums[..rows].iter().enumerate() {
                // SAFETY: row + r < rows, and the panel's columns exist.
                let out = unsafe {
                    let out = block.out.add((row + r) * block.out_stride + panel * COLUMNS);
                    &mut *out.cast::<[f32; COLUMNS]>()
                };
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = if block.accumulate { *out + sum } else { *sum };
                }
            }
        }
    }
}
