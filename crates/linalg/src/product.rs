mod left;
mod right;

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use half::bf16;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use skillweld_simd::vectorize;

use self::right::Panelled;
use crate::aligned::Aligned;
use crate::kernels::{Bands, COLUMNS, Element, Kernel, PANELS_TOGETHER, Shape, multiply};
use crate::packed::{PackedWeight, Panels};
use crate::{LinalgError, Threads};

/// Rows that are whole bands of every kernel: of 4, 6, 12 and 16 rows.
const WHOLE_BANDS: usize = 96;
/// Bytes of x that stay in an L2 cache while panels are used against all of them.
const BLOCK_BYTES: usize = 384 << 10;
/// Pieces for each thread, at least, where columns alone do not give as many.
const PIECES: usize = 3;

/// The right-hand side of a [`Product`].
#[derive(Debug, Clone, Copy)]
pub enum Right<'a> {
    /// B, k × n, any strides: `weight.t()` for a PyTorch weight, `keys.t()` for QKᵀ, `values` for PV. Packed in passing.
    Matrix(ArrayView2<'a, f32>),
    /// Wᵀ of a weight packed before.
    Weight(&'a PackedWeight),
}

impl<'a> From<ArrayView2<'a, f32>> for Right<'a> {
    fn from(matrix: ArrayView2<'a, f32>) -> Self {
        Self::Matrix(matrix)
    }
}

impl<'a> From<&'a PackedWeight> for Right<'a> {
    fn from(weight: &'a PackedWeight) -> Self {
        Self::Weight(weight)
    }
}

/// out = x · B, or x · Wᵀ + bias, and what comes after it while it is in the cache.
///
/// f32 against f32 multiplies and adds in f32. Against a bf16 weight, x is rounded to bf16 (to nearest, ties to even) and
/// products, which are exact, are added in f32, as PyTorch's bf16 `linear` does but for its last rounding: here the
/// result stays f32. The sum over k runs in blocks of 256 steps, or where both sides are multiplied as bf16 of 512 (384 with AMX), each a
/// chain from 0, the blocks added one after the other; which kernel runs decides about fusing and pairing. So the result
/// depends on the kernel, but not on the number of threads nor on where in the matrix an element lies. AMX and AVX-512
/// BF16 treat subnormal numbers as zero.
///
/// ```
/// use ndarray::{Array2, array};
/// use skillweld_linalg::{PackedWeight, Product, Threads};
///
/// let x = array![[1.0, 2.0], [3.0, 4.0]];
/// let weight = array![[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
/// let mut out = Array2::zeros((2, 3));
/// Product::new(&x, weight.t()).bias(&[0.0, 0.0, 0.5][..]).write(Threads::ONE, &mut out.view_mut())?;
/// assert_eq!(out, array![[1.0, 2.0, 3.5], [3.0, 4.0, 7.5]]);
///
/// let packed = PackedWeight::from_f32(&weight.view());
/// let relu = |_row: usize, _column: usize, values: &mut [f32]| {
///     values.iter_mut().for_each(|value| *value = value.max(0.0));
/// };
/// Product::new(&x, &packed).then(&relu).write(Threads::available(), &mut out.view_mut())?;
/// assert_eq!(out, array![[1.0, 2.0, 3.0], [3.0, 4.0, 7.0]]);
/// # Ok::<(), skillweld_linalg::LinalgError>(())
/// ```
#[derive(Clone, Copy)]
#[must_use = "a product is computed by `write`"]
pub struct Product<'a> {
    x: ArrayView2<'a, f32>,
    right: Right<'a>,
    bias: Option<&'a [f32]>,
    then: Option<&'a Then<'a>>,
    kernel: Option<Kernel>,
    narrow: bool,
}

/// What [`Product::then`] takes.
pub type Then<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

impl<'a> Product<'a> {
    /// x · B or x · Wᵀ, x being m × k with any strides.
    pub fn new(x: impl Into<ArrayView2<'a, f32>>, right: impl Into<Right<'a>>) -> Self {
        Self { x: x.into(), right: right.into(), bias: None, then: None, kernel: None, narrow: false }
    }

    /// Adds `bias`, of n values, to every row.
    pub fn bias(self, bias: impl Into<Option<&'a [f32]>>) -> Self {
        Self { bias: bias.into(), ..self }
    }

    /// Calls `then(row, column, values)` for pieces of finished rows, `values` beginning at `column`: an activation, a
    /// residual to add, a gate. Every element is in one piece; order and length of the pieces are not said.
    pub fn then(self, then: &'a Then<'a>) -> Self {
        Self { then: Some(then), ..self }
    }

    /// Whether to round, where bf16 is multiplied faster than f32, both sides to bf16 (to nearest, ties to even). Only
    /// [`Right::Matrix`] asks: a packed weight says by itself what it is.
    pub fn narrow(self, narrow: bool) -> Self {
        Self { narrow, ..self }
    }

    /// Computes with this kernel and not the fastest. One that multiplies bf16 takes AVX-512's against f32.
    pub fn kernel(self, kernel: Kernel) -> Self {
        Self { kernel: Some(kernel), ..self }
    }

    /// Computes into `out`, m × n with contiguous rows.
    ///
    /// # Errors
    /// If shapes do not fit one another or rows of `out` are not contiguous.
    pub fn write(self, threads: Threads, out: &mut ArrayViewMut2<'_, f32>) -> Result<(), LinalgError> {
        let (k, n) = match self.right {
            Right::Matrix(matrix) => matrix.dim(),
            Right::Weight(weight) => (weight.in_features(), weight.out_features()),
        };
        let shapes = |operation, left, right| Err(LinalgError::Shapes { operation, left, right });
        if self.x.ncols() != k {
            return shapes("a product", self.x.dim(), (k, n));
        }
        if out.dim() != (self.x.nrows(), n) {
            return shapes("writing a product", (self.x.nrows(), n), out.dim());
        }
        if let Some(bias) = self.bias.filter(|bias| bias.len() != n) {
            return shapes("adding a bias to a product", out.dim(), (1, bias.len()));
        }
        if out.is_empty() {
            return Ok(());
        }
        if out.strides()[0] < 0 || (n > 1 && out.strides()[1] != 1) {
            return Err(LinalgError::NotContiguous { rows: out.nrows(), cols: n });
        }
        if k == 0 {
            let nothing = vec![0.0; n];
            self.finish(0, 0, std::iter::repeat(&nothing[..]), out);
            return Ok(());
        }
        let x = &self.x;
        let kernel = |fastest: fn() -> Kernel| self.kernel.unwrap_or_else(fastest);
        match self.right {
            Right::Matrix(matrix) if self.narrow && kernel(Kernel::fastest_bf16).takes_bf16() => {
                let kernel = kernel(Kernel::fastest_bf16);
                let right = right::Rounded { matrix, kernel };
                let depth = k.next_multiple_of(bf16::STEPS);
                left::narrow(threads, kernel, x, depth, |x| self.run(kernel, threads, x, &right, out));
            }
            Right::Matrix(matrix) => {
                let kernel = kernel(Kernel::fastest_f32);
                let right = right::Matrix { matrix, kernel };
                left::plain(threads, kernel, x, |x| self.run(kernel, threads, x, &right, out));
            }
            Right::Weight(weight) => match &weight.panels {
                Panels::F32(panels) => {
                    let (kernel, right) = (kernel(Kernel::fastest_f32), right::Stored { panels, depth: k });
                    left::plain(threads, kernel, x, |x| self.run(kernel, threads, x, &right, out));
                }
                Panels::Bf16(panels) => {
                    let kernel = kernel(Kernel::fastest_bf16);
                    let depth = k.next_multiple_of(bf16::STEPS);
                    let right = right::Stored { panels, depth };
                    if kernel.takes_bf16() {
                        left::narrow(threads, kernel, x, depth, |x| {
                            self.run(kernel, threads, x, &right, out);
                        });
                    } else {
                        let right = right::Widened { narrow: right, kernel };
                        left::rounded(threads, kernel, x, depth, |x| {
                            self.run(kernel, threads, x, &right, out);
                        });
                    }
                }
            },
        }
        Ok(())
    }

    fn run<T: Element>(
        &self,
        kernel: Kernel,
        threads: Threads,
        x: Bands<'_, T>,
        right: &impl Panelled<T>,
        out: &mut ArrayViewMut2<'_, f32>,
    ) {
        let Shape { band_rows, block_depth, chunk_columns, .. } = T::shape(kernel);
        let rows_at_once = BLOCK_BYTES / (block_depth * size_of::<T>()) / WHOLE_BANDS * WHOLE_BANDS;
        let pieces = cut(out, threads, chunk_columns);
        let scratch = || (Aligned::default(), Aligned::default());
        let Ok(()) = threads.for_each(pieces.len(), scratch, |(panels, sums), index| {
            let mut piece = pieces[index].lock().unwrap_or_else(PoisonError::into_inner);
            let Piece { row, column, out } = &mut *piece;
            let (rows, columns) = out.dim();
            // Sums lie side by side until they are whole: rows of `out` may be pages apart.
            let stride = columns.next_multiple_of(PANELS_TOGETHER * COLUMNS);
            sums.resize(rows.next_multiple_of(band_rows) * stride);
            for start in (0..x.depth()).step_by(block_depth) {
                let steps = start..x.depth().min(start + block_depth);
                let panels = right.panels(steps.clone(), *column..*column + columns, panels);
                for first in (0..rows).step_by(rows_at_once) {
                    let block = *row + first..*row + rows.min(first + rows_at_once);
                    let sums = (&mut sums[first * stride..], stride);
                    multiply(kernel, x, (block, steps.clone()), panels, columns, sums, start > 0);
                }
            }
            self.finish(*row, *column, sums.chunks(stride), out);
            Ok::<_, Infallible>(())
        });
    }

    /// Writes sums with the bias, then calls what comes after.
    fn finish<'s>(
        &self,
        first_row: usize,
        column: usize,
        sums: impl Iterator<Item = &'s [f32]>,
        out: &mut ArrayViewMut2<'_, f32>,
    ) {
        let bias = self.bias.map(|bias| &bias[column..column + out.ncols()]);
        for ((row, mut values), sums) in out.rows_mut().into_iter().enumerate().zip(sums) {
            // Contiguous: checked by `write`.
            let Some(values) = values.as_slice_mut() else { continue };
            let sums = &sums[..values.len()];
            match bias {
                Some(bias) => add(sums, bias, values),
                None => values.copy_from_slice(sums),
            }
            if let Some(then) = self.then {
                then(first_row + row, column, values);
            }
        }
    }
}

vectorize! {
    /// out = a + b.
    fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = a + b);
    }
}

/// A part of the result, with the place of its first element.
struct Piece<'a> {
    row: usize,
    column: usize,
    out: ArrayViewMut2<'a, f32>,
}

/// Cuts the result into pieces of about `most` columns that workers take one after the other. Where it is cut changes no
/// value.
fn cut<'a>(out: &'a mut ArrayViewMut2<'_, f32>, threads: Threads, most: usize) -> Vec<Mutex<Piece<'a>>> {
    let (m, n) = out.dim();
    let width = chunk_columns(n, threads.count(), most);
    let chunks = n.div_ceil(width);
    let parts = match threads.count() {
        1 => 1,
        count => (PIECES * count).div_ceil(chunks),
    };
    let rows = m.div_ceil(parts).next_multiple_of(WHOLE_BANDS);
    let mut pieces = Vec::with_capacity(chunks * m.div_ceil(rows));
    let mut rest = out.view_mut();
    for column in (0..n).step_by(width) {
        let (chunk, after) = rest.split_at(Axis(1), width.min(n - column));
        rest = after;
        let mut rest = chunk;
        for row in (0..m).step_by(rows) {
            let (out, after) = rest.split_at(Axis(0), rows.min(m - row));
            rest = after;
            pieces.push(Mutex::new(Piece { row, column, out }));
        }
    }
    pieces
}

/// Columns of a piece: as many as `most`, or fewer, down to half, if so the last thread is done sooner.
fn chunk_columns(n: usize, threads: usize, most: usize) -> usize {
    let pair = PANELS_TOGETHER * COLUMNS;
    let longest = |width: usize| n.div_ceil(width).div_ceil(threads) * width;
    let widths = (0..=most / 2 / pair).map(|fewer| most - fewer * pair);
    widths.min_by_key(|&width| longest(width)).unwrap_or(most)
}
