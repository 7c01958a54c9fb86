//! The right-hand side as kernels read it: panels, stored as such or made for the columns and steps at hand.

use std::ops::Range;

use half::bf16;
use ndarray::{ArrayView2, s};
use skillweld_tensor::rounding;

use crate::aligned::Aligned;
use crate::kernels::{COLUMNS, Element, Kernel, PANELS_TOGETHER, Place, pack_panel, widen_panel};

/// Gives panels.
pub(super) trait Panelled<T>: Sync {
    /// The panels of some columns, only `steps` of each, and the distance from one panel to the next. `columns` begin with
    /// a panel. In `scratch` if they have to be made.
    fn panels<'s>(
        &'s self,
        steps: Range<usize>,
        columns: Range<usize>,
        scratch: &'s mut Aligned<T>,
    ) -> (&'s [T], usize);
}

/// All panels of a packed weight, of `depth` steps each.
pub(super) struct Stored<'a, T> {
    pub(super) panels: &'a [T],
    pub(super) depth: usize,
}

impl<T: Element> Panelled<T> for Stored<'_, T> {
    fn panels<'s>(
        &'s self,
        steps: Range<usize>,
        columns: Range<usize>,
        _: &'s mut Aligned<T>,
    ) -> (&'s [T], usize) {
        (&self.panels[columns.start * self.depth + steps.start * COLUMNS..], COLUMNS * self.depth)
    }
}

/// The panels of a bf16 weight, widened: what costs little for each of x's rows costs registers in the innermost loop.
pub(super) struct Widened<'a> {
    pub(super) narrow: Stored<'a, bf16>,
    pub(super) kernel: Kernel,
}

impl Panelled<f32> for Widened<'_> {
    fn panels<'s>(
        &'s self,
        steps: Range<usize>,
        columns: Range<usize>,
        scratch: &'s mut Aligned<f32>,
    ) -> (&'s [f32], usize) {
        let stride = COLUMNS * steps.len();
        let count = columns.len().div_ceil(COLUMNS);
        scratch.resize(count.next_multiple_of(PANELS_TOGETHER) * stride);
        let mut nothing = Aligned::default();
        let (narrow, narrow_stride) = self.narrow.panels(steps, columns, &mut nothing);
        for (narrow, wide) in narrow.chunks(narrow_stride).zip(scratch.chunks_exact_mut(stride)).take(count) {
            widen_panel(self.kernel, &narrow[..stride], wide);
        }
        (scratch, stride)
    }
}

/// A matrix k × n with any strides.
pub(super) struct Matrix<'a> {
    pub(super) matrix: ArrayView2<'a, f32>,
    pub(super) kernel: Kernel,
}

impl Panelled<f32> for Matrix<'_> {
    fn panels<'s>(
        &'s self,
        steps: Range<usize>,
        columns: Range<usize>,
        scratch: &'s mut Aligned<f32>,
    ) -> (&'s [f32], usize) {
        let stride = COLUMNS * steps.len();
        scratch.resize(columns.len().div_ceil(COLUMNS).next_multiple_of(PANELS_TOGETHER) * stride);
        for (panel, first) in scratch.chunks_exact_mut(stride).zip(columns.clone().step_by(COLUMNS)) {
            let columns = first..columns.end.min(first + COLUMNS);
            pack_panel(self.kernel, &self.matrix.slice(s![steps.clone(), columns]).t(), panel, Place::Cache);
        }
        (scratch, stride)
    }
}

/// A matrix k × n with any strides, rounded to bf16, with zeros up to `depth` steps.
pub(super) struct Rounded<'a> {
    pub(super) matrix: ArrayView2<'a, f32>,
    pub(super) kernel: Kernel,
}

impl Panelled<bf16> for Rounded<'_> {
    fn panels<'s>(
        &'s self,
        steps: Range<usize>,
        columns: Range<usize>,
        scratch: &'s mut Aligned<bf16>,
    ) -> (&'s [bf16], usize) {
        let stride = COLUMNS * steps.len();
        scratch.resize(columns.len().div_ceil(COLUMNS).next_multiple_of(PANELS_TOGETHER) * stride);
        let there = steps.start..steps.end.min(self.matrix.nrows());
        let mut staging = vec![bf16::ZERO; stride];
        for (panel, first) in scratch.chunks_exact_mut(stride).zip(columns.clone().step_by(COLUMNS)) {
            let columns = first..columns.end.min(first + COLUMNS);
            let part = self.matrix.slice(s![there.clone(), columns]);
            if part.ncols() == COLUMNS && part.strides()[1] == 1 {
                // Row-major: two rows make the pairs of one step, as they lie.
                pairs_of_rows(&part, panel);
                continue;
            }
            for (column, values) in
                part.columns().into_iter().zip(staging.chunks_exact_mut(part.nrows().max(1)))
            {
                match column.as_slice() {
                    Some(column) => rounding::to_bf16(column, values),
                    None => values.iter_mut().zip(column).for_each(|(to, x)| *to = bf16::from_f32(*x)),
                }
            }
            let shape = (part.ncols(), part.nrows());
            let rows = ArrayView2::from_shape(shape, &staging[..part.len()]);
            let rows = rows.unwrap_or_else(|_| unreachable!("as many values as the shape says"));
            pack_panel(self.kernel, &rows, panel, Place::Cache);
        }
        (scratch, stride)
    }
}

/// A panel of 16 columns, each row contiguous, with zeros after the last row.
fn pairs_of_rows(part: &ArrayView2<'_, f32>, panel: &mut [bf16]) {
    const NOTHING: [f32; COLUMNS] = [0.0; COLUMNS];
    let row = |k: usize| (k < part.nrows()).then(|| part.row(k).to_slice()).flatten().unwrap_or(&NOTHING);
    for (pair, to) in panel.chunks_exact_mut(2 * COLUMNS).enumerate() {
        rounding::interleave_bf16(row(2 * pair), row(2 * pair + 1), to);
    }
}
