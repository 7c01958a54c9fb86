use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::Array2;
use skillweld_gpu::ops::{LinearScratch, RowsView, RowsViewMut, padded};
use skillweld_gpu::{Array, Memory, Target};
use skillweld_tensor::{Dtype, convert};

use crate::PolicyError;
use crate::backend::{Matrix, Result};
use crate::pool::Pool;

/// A target, and memory of dropped matrices, kept for the next: asking a driver for memory takes as long as many a kernel,
/// and cannot be recorded in a graph. All work is asked for in one order, so memory may be written again as soon as
/// nobody can ask for what it held.
pub(super) struct Shared<T: Target> {
    state: Mutex<State<T>>,
    pool: Pool<T::Memory>,
}

pub(super) struct State<T: Target> {
    pub(super) target: T,
    pub(super) scratch: LinearScratch<T::Memory>,
}

impl<T: Target> Shared<T> {
    pub(super) fn new(target: T) -> Result<Self> {
        let scratch = LinearScratch::new(&target)?;
        Ok(Self { state: Mutex::new(State { target, scratch }), pool: Pool::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An array whose elements are not said; NaN in debug builds.
    pub(super) fn array(self: &Arc<Self>, target: &T, dtype: Dtype, numel: usize) -> Result<Buffer<T>> {
        let bytes = numel * dtype.bits() / 8;
        let mut memory = match self.pool.take(bytes) {
            Some(memory) => memory,
            None => target.allocate(bytes)?,
        };
        if cfg!(debug_assertions) {
            target.fill(&mut memory, 0xff)?;
        }
        Ok(Buffer { array: Some(Array::in_memory(memory, dtype, numel)?), shared: Arc::clone(self) })
    }

    /// A matrix whose values are not said.
    pub(super) fn matrix(
        self: &Arc<Self>,
        target: &T,
        dtype: Dtype,
        rows: usize,
        columns: usize,
    ) -> Result<GpuMatrix<T>> {
        let buffer = Arc::new(self.array(target, dtype, rows * padded(columns))?);
        Ok(GpuMatrix { buffer, first_row: 0, rows, columns })
    }
}

/// An array whose memory goes back to the pool.
pub(super) struct Buffer<T: Target> {
    /// `None` only while it is dropped.
    array: Option<Array<T::Memory>>,
    shared: Arc<Shared<T>>,
}

impl<T: Target> Buffer<T> {
    pub(super) fn array(&self) -> &Array<T::Memory> {
        self.array.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }

    pub(super) fn array_mut(&mut self) -> &mut Array<T::Memory> {
        self.array.as_mut().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }
}

impl<T: Target> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(array) = self.array.take() {
            let memory = array.into_memory();
            self.shared.pool.put(memory.byte_len(), memory);
        }
    }
}

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
    pub(super) fn upload(&mut self, target: &T, values: &[f32]) -> Result<()> {
        let wide = widened(values, self.columns);
        let mut bytes = vec![0; wide.len() * 4];
        convert::encode(Dtype::F32, &wide, &mut bytes)
            .unwrap_or_else(|_| unreachable!("f32 has an encoding"));
        let array = Arc::get_mut(&mut self.buffer).map(Buffer::array_mut);
        let array = array.unwrap_or_else(|| unreachable!("nobody else has it yet"));
        Ok(target.upload(array.memory_mut(), 0, &bytes)?)
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
        self.buffer.shared.state().target.download(memory, offset, &mut bytes)?;
        let mut values = vec![0.0; self.rows * stride];
        convert::decode(dtype, &bytes, &mut values)
            .unwrap_or_else(|_| unreachable!("matrices are f32 or bf16"));
        let at = |(row, column)| values[row * stride + column];
        Ok(Array2::from_shape_fn((self.rows, self.columns), at))
    }
}
