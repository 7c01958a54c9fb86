//! x as kernels read it: in bands, with zeros beyond k, in f32 or bf16.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use half::bf16;
use ndarray::{ArrayView1, ArrayView2, CowArray};
use skillweld_tensor::rounding;

use crate::Threads;
use crate::aligned::Aligned;
use crate::kernels::{Bands, Element, Kernel, pack_band};

/// Steps that a worker takes through its first cache at once.
const STEPS_AT_ONCE: usize = 480;

/// Calls `work` with x in f32.
pub(super) fn plain<R>(
    threads: Threads,
    kernel: Kernel,
    x: &ArrayView2<'_, f32>,
    work: impl FnOnce(Bands<'_, f32>) -> R,
) -> R {
    let copy = |to: &mut [f32], x: &[f32]| to.copy_from_slice(x);
    SCRATCH_F32.with(|scratch| banded(threads, kernel, x, x.ncols(), scratch, copy, work))
}

/// Calls `work` with x rounded to bf16, as f32, in rows of `depth`.
pub(super) fn rounded<R>(
    threads: Threads,
    kernel: Kernel,
    x: &ArrayView2<'_, f32>,
    depth: usize,
    work: impl FnOnce(Bands<'_, f32>) -> R,
) -> R {
    let round = |to: &mut [f32], x: &[f32]| rounding::through_bf16(x, to);
    SCRATCH_F32.with(|scratch| banded(threads, kernel, x, depth, scratch, round, work))
}

/// Calls `work` with x rounded to bf16, in rows of `depth`.
pub(super) fn narrow<R>(
    threads: Threads,
    kernel: Kernel,
    x: &ArrayView2<'_, f32>,
    depth: usize,
    work: impl FnOnce(Bands<'_, bf16>) -> R,
) -> R {
    let round = |to: &mut [bf16], x: &[f32]| rounding::to_bf16(x, to);
    SCRATCH_BF16.with(|scratch| banded(threads, kernel, x, depth, scratch, round, work))
}

thread_local! {
    // The largest x so far of each thread that computed products: fresh memory for each would cost more than filling it.
    static SCRATCH_F32: Cell<Aligned<f32>> = Cell::default();
    static SCRATCH_BF16: Cell<Aligned<bf16>> = Cell::default();
}

/// Calls `work` with x in bands of `depth` steps, converted by `convert(to, from)`.
fn banded<T: Element, R>(
    threads: Threads,
    kernel: Kernel,
    x: &ArrayView2<'_, f32>,
    depth: usize,
    scratch: &Cell<Aligned<T>>,
    convert: impl Fn(&mut [T], &[f32]) + Sync,
    work: impl FnOnce(Bands<'_, T>) -> R,
) -> R {
    let band_rows = T::shape(kernel).band_rows;
    let x = if x.ncols() <= 1 || x.strides()[1] == 1 { CowArray::from(x) } else { x.as_standard_layout() };
    let mut values = scratch.take();
    values.resize(x.nrows().next_multiple_of(band_rows) * depth);
    let bands: Vec<_> = values.chunks_mut(band_rows * depth).map(Mutex::new).collect();
    let staging = || vec![T::default(); band_rows * STEPS_AT_ONCE];
    let Ok(()) = threads.for_each(bands.len(), staging, |staging, index| {
        let mut band = bands[index].lock().unwrap_or_else(PoisonError::into_inner);
        for first in (0..depth).step_by(STEPS_AT_ONCE) {
            let steps = STEPS_AT_ONCE.min(depth - first);
            for (row, to) in (index * band_rows..).zip(staging.chunks_exact_mut(STEPS_AT_ONCE)) {
                let from = if row < x.nrows() { x.row(row) } else { ArrayView1::from(&[]) };
                let from = from.to_slice().unwrap_or_default();
                let from = &from[first.min(from.len())..(first + steps).min(from.len())];
                let (values, zeros) = to[..steps].split_at_mut(from.len());
                convert(values, from);
                zeros.fill(T::default());
            }
            pack_band(kernel, staging, STEPS_AT_ONCE, steps, &mut band[band_rows * first..]);
        }
        Ok::<_, Infallible>(())
    });
    drop(bands);
    let result = work(Bands::new(&values, depth));
    scratch.set(values);
    result
}
