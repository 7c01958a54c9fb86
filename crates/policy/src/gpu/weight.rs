use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use half::bf16;
use skillweld_gpu::ops::{RowsView, padded};
use skillweld_gpu::{Array, Target, View};
use skillweld_linalg::Threads;
use skillweld_tensor::Dtype;

use crate::backend::{ReadBlock, Result, ValuesMut, WeightKind};

/// Elements that one thread reads at once, about: few enough for a core's L2 cache.
const BLOCK: usize = 1 << 14;
/// Elements that are copied to the GPU at once, about.
const CHUNK: usize = 1 << 23;

/// A weight on a GPU. Rows are padded with zeros to a multiple of eight; of what is multiplied with, there are a multiple of
/// eight rows too, so that results come out padded.
pub struct GpuWeight<T: Target> {
    array: Array<T::Memory>,
    kind: WeightKind,
    rows: usize,
    columns: usize,
}

impl<T: Target> fmt::Debug for GpuWeight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuWeight({:?}, {} × {} {})", self.kind, self.rows, self.columns, self.array.dtype())
    }
}

impl<T: Target> GpuWeight<T> {
    /// Zeros.
    pub(super) fn zeros(
        target: &T,
        kind: WeightKind,
        dtype: Dtype,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let dtype = if kind == WeightKind::Vector { Dtype::F32 } else { dtype };
        let stored = if kind == WeightKind::Matrix { padded(rows) } else { rows };
        let mut array = target.array(dtype, stored * padded(columns))?;
        target.fill(array.memory_mut(), 0)?;
        Ok(Self { array, kind, rows, columns })
    }

    /// Number of rows: of a matrix its output features.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: of a matrix its input features.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// All that is stored, padding included.
    pub(super) fn view(&self) -> View<'_> {
        self.array.view()
    }

    /// Its rows.
    pub(super) fn matrix(&self) -> Result<RowsView<'_>> {
        let values = self.array.view().slice(0..self.rows * padded(self.columns));
        Ok(RowsView::new(values, self.rows, self.columns)?)
    }

    /// A vector's values.
    pub(super) fn vector(&self) -> View<'_> {
        debug_assert_eq!(self.kind, WeightKind::Vector, "biases and gains are planned as vectors");
        self.array.view()
    }
}

/// Overwrites weights in place: rows are read in parallel into the host's memory, then copied.
pub(super) fn write<T: Target>(
    target: &T,
    threads: Threads,
    weights: &mut [&mut GpuWeight<T>],
    read: &ReadBlock<'_>,
) -> Result<()> {
    let mut staged = Vec::new();
    for (index, weight) in weights.iter_mut().enumerate() {
        let rows_at_once = (CHUNK / weight.columns.max(1)).max(1);
        for first in (0..weight.rows).step_by(rows_at_once) {
            let rows = first..weight.rows.min(first + rows_at_once);
            let row_bytes = padded(weight.columns) * weight.array.dtype().bits() / 8;
            staged.clear();
            staged.resize(rows.len() * row_bytes, 0);
            stage(threads, &mut staged, weight, rows, |offset, out| read(index, offset, out))?;
            target.upload(weight.array.memory_mut(), first * row_bytes, &staged)?;
        }
    }
    Ok(())
}

/// A thread's values on their way into bytes.
#[derive(Default)]
struct Scratch {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
}

/// Some rows of a weight as they are stored, into `staged`, which is zero.
fn stage<T: Target>(
    threads: Threads,
    staged: &mut [u8],
    weight: &GpuWeight<T>,
    rows: Range<usize>,
    read: impl Fn(usize, ValuesMut<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let (columns, narrow) = (weight.columns, weight.array.dtype() == Dtype::BF16);
    let row_bytes = padded(columns) * if narrow { 2 } else { 4 };
    let rows_of_block = (BLOCK / columns.max(1)).max(1);
    let blocks: Vec<_> = staged.chunks_mut((rows_of_block * row_bytes).max(1)).map(Mutex::new).collect();
    threads.for_each(blocks.len(), Scratch::default, |scratch, index| {
        let mut block = blocks[index].lock().unwrap_or_else(PoisonError::into_inner);
        let first = rows.start + index * rows_of_block;
        let len = block.len() / row_bytes * columns;
        if narrow {
            scratch.bf16.resize(len, bf16::ZERO);
            read(first * columns, ValuesMut::Bf16(&mut scratch.bf16))?;
            lay_out(&mut block, row_bytes, &scratch.bf16, columns, bf16::to_le_bytes);
        } else {
            scratch.f32.resize(len, 0.0);
            read(first * columns, ValuesMut::F32(&mut scratch.f32))?;
            lay_out(&mut block, row_bytes, &scratch.f32, columns, f32::to_le_bytes);
        }
        Ok(())
    })
}

fn lay_out<V: Copy, const N: usize>(
    bytes: &mut [u8],
    row_bytes: usize,
    values: &[V],
    columns: usize,
    encode: impl Fn(V) -> [u8; N],
) {
    for (bytes, row) in bytes.chunks_exact_mut(row_bytes.max(1)).zip(values.chunks_exact(columns.max(1))) {
        for (bytes, &value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(row) {
            *bytes = encode(value);
        }
    }
}
