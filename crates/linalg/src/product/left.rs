//! x as kernels read it: `depth` values a row, with zeros beyond k, in f32 or bf16.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use half::bf16;
use ndarray::{ArrayView1, ArrayView2, CowArray, ShapeBuilder};
use skillweld_tensor::rounding;

use crate::Threads;
use crate::aligned::Aligned;
use crate::kernels::Element;

/// Values that a worker converts at once.
const COPIED_AT_ONCE: usize = 1 << 15;

/// Calls `work` with x in f32, read where it lies if its rows are contiguous.
pub(super) fn plain<R>(
    threads: Threads,
    x: &ArrayView2<'_, f32>,
    work: impl FnOnce(ArrayView2<'_, f32>) -> R,
) -> R {
    if x.strides()[0] >= 0 && (x.ncols() <= 1 || x.strides()[1] == 1) {
        return work(x.view());
    }
    SCRATCH_F32.with(|scratch| copied(threads, x, x.dim(), scratch, <[f32]>::copy_from_slice, work))
}

/// Calls `work` with x rounded to bf16, as f32, in rows of `depth`.
pub(super) fn rounded<R>(
    threads: Threads,
    x: &ArrayView2<'_, f32>,
    depth: usize,
    work: impl FnOnce(ArrayView2<'_, f32>) -> R,
) -> R {
    let convert = |to: &mut [f32], x: &[f32]| rounding::through_bf16(x, to);
    SCRATCH_F32.with(|scratch| copied(threads, x, (x.nrows(), depth), scratch, convert, work))
}

/// Calls `work` with x rounded to bf16, in rows of `depth`, with rows of zeros up to whole tiles.
pub(super) fn narrow<R>(
    threads: Threads,
    x: &ArrayView2<'_, f32>,
    depth: usize,
    work: impl FnOnce(ArrayView2<'_, bf16>) -> R,
) -> R {
    let rows = x.nrows().next_multiple_of(bf16::ROWS);
    let convert = |to: &mut [bf16], x: &[f32]| rounding::to_bf16(x, to);
    SCRATCH_BF16.with(|scratch| copied(threads, x, (rows, depth), scratch, convert, work))
}

thread_local! {
    // The largest x so far of each thread that computed products: fresh memory for each would cost more than filling it.
    static SCRATCH_F32: Cell<Aligned<f32>> = Cell::default();
    static SCRATCH_BF16: Cell<Aligned<bf16>> = Cell::default();
}

/// Calls `work` with a copy of x, `rows` × `depth`, converted row by row.
fn copied<T: Element, R>(
    threads: Threads,
    x: &ArrayView2<'_, f32>,
    (rows, depth): (usize, usize),
    scratch: &Cell<Aligned<T>>,
    convert: impl Fn(&mut [T], &[f32]) + Sync,
    work: impl FnOnce(ArrayView2<'_, T>) -> R,
) -> R {
    let (m, k) = x.dim();
    // Rows an odd number of cache lines apart do not crowd into the same sets of a cache.
    let line = 64 / size_of::<T>();
    let stride = (depth.div_ceil(line) | 1) * line;
    let mut copy = scratch.take();
    copy.resize(rows * stride);
    let x = if k <= 1 || x.strides()[1] == 1 { CowArray::from(x) } else { x.as_standard_layout() };
    let rows_each = (COPIED_AT_ONCE / stride).max(1);
    let parts: Vec<_> = copy.chunks_mut(rows_each * stride).map(Mutex::new).collect();
    let Ok(()) = threads.for_each(
        parts.len(),
        || (),
        |(), part| {
            let mut to = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
            for (row, to) in (part * rows_each..).zip(to.chunks_exact_mut(stride)) {
                let from = if row < m { x.row(row) } else { ArrayView1::from(&[]) };
                let (values, zeros) = to.split_at_mut(from.len());
                if let Some(from) = from.to_slice() {
                    convert(values, from);
                }
                zeros.fill(T::default());
            }
            Ok::<_, Infallible>(())
        },
    );
    drop(parts);
    #[allow(clippy::expect_used, reason = "the buffer was made for this shape above")]
    let view =
        ArrayView2::from_shape((rows, depth).strides((stride, 1)), &copy).expect("rows of `stride` values");
    let result = work(view);
    scratch.set(copy);
    result
}
