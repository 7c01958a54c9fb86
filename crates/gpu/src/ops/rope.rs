use skillweld_tensor::Dtype;

use super::pieces::EIGHT;
use super::rows::{RowsView, RowsViewMut, count, float, start, typed};
use crate::error::require;
use crate::{Argument, Result, Target};

const OPERATION: &str = "rope";
/// As in `kernels/src/rope.cu`.
const THREADS: u32 = 128;

/// Which two elements of a head are turned together. Element j takes column j mod half of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// Elements j and j + half.
    Halves,
    /// Elements 2i and 2i + 1.
    Neighbours,
}

/// A rotary embedding, in place: (a, b) → (a cos − b sin, b cos + a sin) for every pair of every head of x (BF16 or F32),
/// row r by row r of the tables (F32, at least as many rows, half a head wide).
///
/// Twin: the policy's CPU backend, `rope`; the same bits in f32.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn rope<T: Target>(
    target: &T,
    x: &mut RowsViewMut<'_>,
    cos: RowsView<'_>,
    sin: RowsView<'_>,
    pairs: RopePairs,
) -> Result<()> {
    let half = cos.columns;
    for (name, table) in [("cos", cos), ("sin", sin)] {
        typed(OPERATION, name, table.dtype(), Dtype::F32)?;
        require(table.rows >= x.rows && table.columns == half, OPERATION, || {
            format!("`{name}` is {} × {}, and {} × {half} is needed", table.rows, table.columns, x.rows)
        })?;
    }
    require(half > 0 && x.columns.is_multiple_of(2 * half), OPERATION, || {
        format!("{} columns are no whole number of heads {} wide", x.columns, 2 * half)
    })?;
    let (kernel, units) = match pairs {
        _ if !half.is_multiple_of(EIGHT) => ("pairs", x.columns / 2),
        RopePairs::Halves => ("halves", x.columns / (2 * EIGHT)),
        RopePairs::Neighbours => ("neighbours", x.columns / EIGHT),
    };
    let mut arguments = vec![
        x.address(),
        cos.address(),
        sin.address(),
        count(OPERATION, "rows", x.rows)?,
        count(OPERATION, "columns", x.columns)?,
        count(OPERATION, "half", half)?,
    ];
    if kernel == "pairs" {
        arguments.push(Argument::U32(u32::from(pairs == RopePairs::Neighbours)));
    }
    let kernel = format!("{OPERATION}_{kernel}_{}", float(OPERATION, x.dtype())?);
    let blocks = (x.rows * units).div_ceil(THREADS as usize);
    // SAFETY: x is whole heads, the tables have a row for each of its rows and a column for each pair, all borrowed here.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, [blocks, 1, 1], THREADS, 0, &arguments)
    }
}
