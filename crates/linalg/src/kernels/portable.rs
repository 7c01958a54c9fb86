//! The same loops in plain Rust: what runs without AVX2, and what the other kernels are compared with.

use super::{Block, COLUMNS};

/// Rows computed together, so that a panel's values are used several times.
const ROWS: usize = 4;

/// # Safety
/// `block` points to what [`Block`] says.
pub(super) unsafe fn block(block: &Block<f32>) {
    for row in (0..block.rows).step_by(ROWS) {
        let rows = ROWS.min(block.rows - row);
        for panel in 0..block.columns.div_ceil(COLUMNS) {
            let mut sums = [[0.0f32; COLUMNS]; ROWS];
            for k in 0..block.depth {
                // SAFETY: the panel has 16 values for each k.
                let w = unsafe {
                    &*block.panels.add(panel * block.panel_stride + k * COLUMNS).cast::<[f32; COLUMNS]>()
                };
                for (r, sums) in sums[..rows].iter_mut().enumerate() {
                    // SAFETY: row + r < rows and k < depth.
                    let x = unsafe { *block.x.add((row + r) * block.x_stride + k) };
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum += x * w;
                    }
                }
            }
            let first = panel * COLUMNS;
            for (r, sums) in sums[..rows].iter().enumerate() {
                for (c, sum) in sums[..COLUMNS.min(block.columns - first)].iter().enumerate() {
                    // SAFETY: row + r < rows and first + c < columns.
                    let out = unsafe { &mut *block.out.add((row + r) * block.out_stride + first + c) };
                    *out = if block.accumulate { *out + sum } else { *sum };
                }
            }
        }
    }
}
