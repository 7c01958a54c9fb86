//! Matrices as kernels of the forward take them, and what their launches share.

use std::ops::Range;

use skillweld_tensor::Dtype;

use super::pieces::EIGHT;
use crate::error::require;
use crate::{Argument, GpuError, Launch, Result, Target, View, ViewMut};

/// Elements from one row's beginning to the next: columns, and zeros up to a multiple of eight.
pub fn padded(columns: usize) -> usize {
    columns.next_multiple_of(EIGHT)
}

/// A matrix to read. Each row begins on 16 bytes: its values, then zeros up to the next multiple of eight, so that kernels
/// take eight elements at once whatever the width, and matrix units see no garbage.
#[derive(Debug, Clone, Copy)]
pub struct RowsView<'a> {
    pub(super) values: View<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// The same, to write.
#[derive(Debug)]
pub struct RowsViewMut<'a> {
    pub(super) values: ViewMut<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<'a> RowsView<'a> {
    /// `rows` rows of `columns` values in an array of rows · padded(columns) elements.
    ///
    /// # Errors
    /// An array of another length, or one that does not begin on 16 bytes.
    pub fn new(values: View<'a>, rows: usize, columns: usize) -> Result<Self> {
        check(values.address, values.numel, rows, columns)?;
        Ok(Self { values, rows, columns })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.values.dtype
    }

    /// Its elements, zeros after the rows included.
    pub fn values(self) -> View<'a> {
        self.values
    }

    /// Some of its rows.
    ///
    /// # Panics
    /// When there are not as many.
    #[must_use]
    pub fn slice(self, rows: Range<usize>) -> Self {
        let stride = padded(self.columns);
        let values = self.values.slice(rows.start * stride..rows.end * stride);
        Self { values, rows: rows.len(), ..self }
    }

    pub(super) fn address(&self) -> Argument {
        Argument::U64(self.values.address)
    }
}

impl<'a> RowsViewMut<'a> {
    /// As [`RowsView::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(values: ViewMut<'a>, rows: usize, columns: usize) -> Result<Self> {
        check(values.address, values.numel, rows, columns)?;
        Ok(Self { values, rows, columns })
    }

    /// Its elements, zeros after the rows included.
    pub fn into_values(self) -> ViewMut<'a> {
        self.values
    }

    /// Some of its rows.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn slice(&mut self, rows: Range<usize>) -> RowsViewMut<'_> {
        let stride = padded(self.columns);
        let values = self.values.slice_mut(rows.start * stride..rows.end * stride);
        RowsViewMut { values, rows: rows.len(), columns: self.columns }
    }

    pub(super) fn address(&self) -> Argument {
        Argument::U64(self.values.address)
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.values.dtype
    }
}

fn check(address: u64, numel: usize, rows: usize, columns: usize) -> Result<()> {
    const OPERATION: &str = "a matrix";
    let fits = rows.checked_mul(padded(columns)) == Some(numel);
    require(fits, OPERATION, || {
        format!("{numel} elements are not {rows} rows of {columns}, each padded to {}", padded(columns))
    })?;
    let small = u32::try_from(rows).is_ok() && u32::try_from(padded(columns)).is_ok();
    require(small, OPERATION, || format!("{rows} × {columns} is more than kernels can index"))?;
    require(address.is_multiple_of(16), OPERATION, || "it does not begin on 16 bytes".to_owned())
}

/// Refuses a matrix that is not `rows` × `columns`.
pub(super) fn shaped(
    operation: &'static str,
    name: &str,
    (is_rows, is_columns): (usize, usize),
    (rows, columns): (usize, usize),
) -> Result<()> {
    require((is_rows, is_columns) == (rows, columns), operation, || {
        format!("`{name}` is {is_rows} × {is_columns}, and {rows} × {columns} is needed")
    })
}

/// Refuses values of another dtype.
pub(super) fn typed(operation: &'static str, name: &str, is: Dtype, dtype: Dtype) -> Result<()> {
    require(is == dtype, operation, || format!("`{name}` is of {is}, and {dtype} is needed"))
}

/// A vector of f32, one value a column, padded as a row is.
pub(super) fn vector(operation: &'static str, name: &str, vector: View<'_>, columns: usize) -> Result<u64> {
    typed(operation, name, vector.dtype, Dtype::F32)?;
    require(vector.numel == padded(columns) && vector.address.is_multiple_of(16), operation, || {
        format!(
            "`{name}` is {} elements, and {} that begin on 16 bytes are needed",
            vector.numel,
            padded(columns)
        )
    })?;
    Ok(vector.address)
}

/// The part of a kernel's name that says what it reads or writes.
pub(super) fn float(operation: &'static str, dtype: Dtype) -> Result<&'static str> {
    match dtype {
        Dtype::BF16 => Ok("bf16"),
        Dtype::F32 => Ok("f32"),
        other => Err(GpuError::Operands {
            operation,
            problem: format!("{other} elements; it computes with BF16 and F32"),
        }),
    }
}

/// A number as kernels count with.
pub(super) fn count(operation: &'static str, name: &str, value: usize) -> Result<Argument> {
    u32::try_from(value).map(Argument::U32).map_err(|_| GpuError::Operands {
        operation,
        problem: format!("`{name}` is {value}, more than kernels can index"),
    })
}

/// One launch, not cooperative; none when a side of its grid is 0.
///
/// # Safety
/// As [`Target::launch`].
#[expect(unsafe_code, reason = "a kernel trusts its arguments")]
pub(super) unsafe fn start<T: Target>(
    target: &T,
    kernel: &str,
    grid: [usize; 3],
    threads: u32,
    shared_bytes: usize,
    arguments: &[Argument],
) -> Result<()> {
    if grid.contains(&0) {
        return Ok(());
    }
    let too_many = || GpuError::Operands {
        operation: "a launch",
        problem: format!(
            "{grid:?} blocks of `{kernel}` with {shared_bytes} bytes each are more than a GPU runs"
        ),
    };
    let [x, y, z] = grid;
    let fits = i32::try_from(x).is_ok() && y < 1 << 16 && z < 1 << 16;
    let shared_bytes = u32::try_from(shared_bytes).ok().filter(|_| fits).ok_or_else(too_many)?;
    let grid = [x as u32, y as u32, z as u32];
    let launch = Launch { kernel, grid, threads, shared_bytes, cooperative: false, arguments };
    // SAFETY: the caller's promise.
    unsafe { target.launch(&launch) }
}
