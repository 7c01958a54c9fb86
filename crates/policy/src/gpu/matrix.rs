use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ndarray::Array2;
use skillweld_gpu::Target;
use skillweld_gpu::ops::{RowsView, RowsViewMut, padded};
use skillweld_tensor::{Dtype, convert};

use super::shared::{Buffer, Shared, State};
use crate::PolicyError;
use crate::backend::{Matrix, Result};

/// Activations on a GPU in f32 or bf16, rows padded with zeros to a multiple of eight. Rows of one may be part of another.
pub struct GpuMatrix<T: Target> {
    buffer: Arc<Buffer<T>>,
    first_row: usize,
    rows: usize,
    columns: usize,
}

impl<T: Target> fmt::Debug for GpuMatrix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuMatrix({} × {} {})", self.rows, self.columns, self.dtype())
    }
}

impl<T: Target> GpuMatrix<T> {
    /// A matrix whose values are not said.
    pub(super) fn new(
        shared: &Arc<Shared<T>>,
        state: &State<T>,
        dtype: Dtype,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let buffer = Arc::new(shared.array(state, dtype, rows * padded(columns))?);
        Ok(Self { buffer, first_row: 0, rows, columns })
    }

    /// Where its first element is, and what it is: the same for matrices that kernels cannot tell apart.
    pub(super) fn identity(&self) -> Result<(u64, usize, usize, Dtype)> {
        Ok((self.view()?.values().address(), self.rows, self.columns, self.dtype()))
    }

    /// How many matrices share its memory.
    pub(super) fn sharing(&self) -> usize {
        Arc::strong_count(&self.buffer)
    }

    /// Whether both share memory.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.buffer.array().dtype()
    }

    /// Its elements, padding included.
    pub(super) fn view(&self) -> Result<RowsView<'_>> {
        let stride = padded(self.columns);
        let values = self.buffer.array().view();
        let values = values.slice(self.first_row * stride..(self.first_row + self.rows) * stride);
        Ok(RowsView::new(values, self.rows, self.columns)?)
    }

    /// The same, to write; `None` when others read them too.
    pub(super) fn view_mut(&mut self) -> Option<Result<RowsViewMut<'_>>> {
        let stride = padded(self.columns);
        let array = Arc::get_mut(&mut self.buffer)?.array_mut();
        let (_, values) = array.view_mut().split_at(self.first_row * stride);
        let (values, _) = values.split_at(self.rows * stride);
        Some(RowsViewMut::new(values, self.rows, self.columns).map_err(PolicyError::from))
    }

    /// What was just made, to write.
    pub(super) fn fresh(&mut self) -> Result<RowsViewMut<'_>> {
        self.view_mut().unwrap_or_else(|| unreachable!("nobody else has it yet"))
    }

    /// Some of its rows, without a copy.
    pub(super) fn slice(&self, rows: Range<usize>) -> Self {
        let first_row = self.first_row + rows.start;
        Self { buffer: Arc::clone(&self.buffer), first_row, rows: rows.len(), columns: self.columns }
    }

    /// Writes values of the host, f32, row by row.
    pub(super) fn upload(&mut self, state: &State<T>, values: &[f32]) -> Result<()> {
        let wide = widened(values, self.columns);
        let mut bytes = vec![0; wide.len() * 4];
        convert::encode(Dtype::F32, &wide, &mut bytes)
            .unwrap_or_else(|_| unreachable!("f32 has an encoding"));
        let array = Arc::get_mut(&mut self.buffer).map(Buffer::array_mut);
        let array = array.unwrap_or_else(|| unreachable!("nobody else has it yet"));
        state.upload(array, &bytes)
    }
}

/// Rows of `columns` values with zeros after each up to a multiple of eight.
pub(super) fn widened<V: Copy + Default>(values: &[V], columns: usize) -> Vec<V> {
    let stride = padded(columns).max(1);
    let mut wide = vec![V::default(); values.len() / columns.max(1) * stride];
    for (wide, row) in wide.chunks_mut(stride).zip(values.chunks(columns.max(1))) {
        wide[..columns].copy_from_slice(row);
    }
    wide
}

impl<T: Target + Send> Matrix for GpuMatrix<T> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn to_host(&self) -> Result<Array2<f32>> {
        let (stride, dtype) = (padded(self.columns), self.dtype());
        let element = dtype.bits() / 8;
        let mut bytes = vec![0; self.rows * stride * element];
        let offset = self.first_row * stride * element;
        let memory = self.buffer.array().memory();
        self.buffer.shared().state().target.download(memory, offset, &mut bytes)?;
        let mut values = vec![0.0; self.rows * stride];
        convert::decode(dtype, &bytes, &mut values)
            .unwrap_or_else(|_| unreachable!("matrices are f32 or bf16"));
        let at = |(row, column)| values[row * stride + column];
        Ok(Array2::from_shape_fn((self.rows, self.columns), at))
    }
}
