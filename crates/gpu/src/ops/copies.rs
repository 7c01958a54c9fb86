//! Rows and columns from one matrix to another, to another dtype where they differ (BF16 and F32).

use skillweld_tensor::Dtype;

use super::pieces::EIGHT;
use super::rows::{RowsView, RowsViewMut, count, float, padded, shaped, start, typed};
use crate::error::require;
use crate::{Argument, Result, Target, View};

/// As in `kernels/src/copies.cu`.
const THREADS: u32 = 256;

/// Copies every row.
///
/// Twin: the policy's CPU backend, `concat_rows`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn copy_rows<T: Target>(target: &T, from: RowsView<'_>, to: &mut RowsViewMut<'_>) -> Result<()> {
    const OPERATION: &str = "copy_rows";
    shaped(OPERATION, "to", (to.rows, to.columns), (from.rows, from.columns))?;
    rows(target, OPERATION, from, 0, to)
}

/// Row `indices[i]` of a table to row i. `indices` are U32, and each less than the table's rows: nobody checks it.
///
/// Twin: the policy's CPU backend, `gather`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn gather_rows<T: Target>(
    target: &T,
    table: RowsView<'_>,
    indices: View<'_>,
    to: &mut RowsViewMut<'_>,
) -> Result<()> {
    const OPERATION: &str = "gather_rows";
    shaped(OPERATION, "to", (to.rows, to.columns), (indices.numel, table.columns))?;
    typed(OPERATION, "indices", indices.dtype, Dtype::U32)?;
    rows(target, OPERATION, table, indices.address, to)
}

fn rows<T: Target>(
    target: &T,
    operation: &'static str,
    from: RowsView<'_>,
    indices: u64,
    to: &mut RowsViewMut<'_>,
) -> Result<()> {
    let stride = padded(to.columns);
    let kernel =
        format!("copies_eights_{}_{}", float(operation, from.dtype())?, float(operation, to.dtype())?);
    let arguments = [
        from.address(),
        Argument::U64(stride as u64),
        Argument::U64(indices),
        to.address(),
        Argument::U64(stride as u64),
        count(operation, "rows", to.rows)?,
        count(operation, "columns", stride)?,
    ];
    let blocks = (to.rows * stride / EIGHT).div_ceil(THREADS as usize);
    // SAFETY: rows of `to` are as wide as those of `from`, and as many as there are indices, or rows of `from`.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, [blocks, 1, 1], THREADS, 0, &arguments)
    }
}

/// Copies all columns to those of `to` from `first` on; if they are its last, zeros the padding after them.
///
/// Twin: the policy's CPU backend, `concat_columns`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn copy_columns<T: Target>(
    target: &T,
    from: RowsView<'_>,
    to: &mut RowsViewMut<'_>,
    first: usize,
) -> Result<()> {
    const OPERATION: &str = "copy_columns";
    let end = first.saturating_add(from.columns);
    require(to.rows == from.rows && end <= to.columns, OPERATION, || {
        format!(
            "{} × {} does not fit into {} × {} from column {first} on",
            from.rows, from.columns, to.rows, to.columns
        )
    })?;
    let zeros = if end == to.columns { padded(end) - end } else { 0 };
    let aligned = first.is_multiple_of(EIGHT) && (from.columns + zeros).is_multiple_of(EIGHT);
    let (kind, units, width) = if aligned {
        ("eights", (from.columns + zeros) / EIGHT, from.columns + zeros)
    } else {
        ("values", from.columns + zeros, from.columns)
    };
    let kernel =
        format!("copies_{kind}_{}_{}", float(OPERATION, from.dtype())?, float(OPERATION, to.dtype())?);
    let address = to.values.address + (first * to.dtype().bits() / 8) as u64;
    let mut arguments = vec![
        from.address(),
        Argument::U64(padded(from.columns) as u64),
        Argument::U64(0),
        Argument::U64(address),
        Argument::U64(padded(to.columns) as u64),
        count(OPERATION, "rows", from.rows)?,
        count(OPERATION, "columns", width)?,
    ];
    if !aligned {
        arguments.push(count(OPERATION, "zeros", zeros)?);
    }
    let blocks = (from.rows * units).div_ceil(THREADS as usize);
    // SAFETY: the columns lie within `to`, checked above; by eights only where both sides begin on 16 bytes.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, [blocks, 1, 1], THREADS, 0, &arguments)
    }
}
