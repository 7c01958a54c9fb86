//! x · Wᵀ + bias and what comes after it.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use skillweld_linalg::Threads;

use super::tiles::tiles;

/// Calls for pieces of finished rows: `finish(row, column, values)`.
pub(super) type Finish<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// out = x · Wᵀ, each piece of a row then given to `finish`.
pub(super) fn linear(
    threads: Threads,
    x: &ArrayView2<'_, f32>,
    weight: &ArrayView2<'_, f32>,
    out: &mut ArrayViewMut2<'_, f32>,
    finish: &Finish<'_>,
) {
    let tiles: Vec<_> = tiles(out.view_mut(), 128, 256).map(Mutex::new).collect();
    let Ok(()) = threads.for_each(
        tiles.len(),
        || (),
        |(), index| {
            let mut tile = tiles[index].lock().unwrap_or_else(PoisonError::into_inner);
            let (row, column) = (tile.row, tile.column);
            let (rows, columns) = tile.out.dim();
            let x = x.slice(s![row..row + rows, ..]);
            let weight = weight.slice(s![column..column + columns, ..]);
            general_mat_mul(1.0, &x, &weight.t(), 0.0, &mut tile.out);
            for (index, mut values) in tile.out.rows_mut().into_iter().enumerate() {
                if let Some(values) = values.as_slice_mut() {
                    finish(row + index, column, values);
                }
            }
            Ok::<_, Infallible>(())
        },
    );
}
