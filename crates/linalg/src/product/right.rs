//! The right-hand side as kernels read it: panels, stored as such or made for the columns and steps at hand.

use std::ops::Range;

use half::bf16;
use ndarray::{ArrayView2, s};

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
