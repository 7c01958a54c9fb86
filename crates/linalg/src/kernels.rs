//! The innermost loops: `out (+)= x · panels`, for each instruction set one way. The only unsafe code of this crate beside
//! the thread pool, because vectors, tiles and columns of a row-major matrix shared among threads go through pointers.
//!
//! A *panel* holds 16 columns of the right-hand matrix (16 rows of a PyTorch weight). In f32 it has 16 values for each step
//! of k. In bf16 it has 32 for each pair of steps, each column's two side by side, as AMX and `vdpbf16ps` want them.
//!
//! A *band* holds as many rows of x as a kernel multiplies at once: for each unit of steps, as many values as it reads of a
//! row at a time, the rows' units follow one another. So a kernel walks through x as it lies in memory, however far
//! apart its rows were.

#![allow(
    unsafe_code,
    reason = "vectors, tiles and columns of one matrix for several threads go through pointers"
)]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bands;
mod choice;
mod portable;
#[cfg(test)]
mod tests;

pub(crate) use bands::{Bands, pack_band};
pub use choice::{InstructionSet, Kernel, Refusal};

use std::ops::Range;

use half::bf16;
use ndarray::ArrayView2;

/// Columns of a panel.
pub(crate) const COLUMNS: usize = 16;

/// Panels are stored in twos, so that a kernel may always read two side by side.
pub(crate) const PANELS_TOGETHER: usize = 2;

/// What is multiplied: f32, or bf16 by the kernels that have instructions for it. Sums are f32 in both.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// Values in a 32-bit word of a panel.
    const PER_WORD: usize;
    /// Steps of k that panels and rows of x are padded to: 1, or those of an AMX tile.
    const STEPS: usize;

    /// How a kernel wants x, and how much of it at once.
    fn shape(kernel: Kernel) -> Shape;

    #[doc(hidden)]
    fn routine(kernel: Kernel) -> Routine<Self>;
}

/// How a kernel wants x, and how much of a product it works on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Rows of a band.
    pub(crate) band_rows: usize,
    /// Steps of k of a row that lie side by side in a band.
    pub(crate) unit: usize,
    /// Steps of k at once: so many that reading sums back costs little, so few that two panels stay in an L1 cache of 48
    /// KiB (AVX2: one in 32) while bands stream past them.
    pub(crate) block_depth: usize,
    /// Columns at once, at most: their sums, panels and the bands share an L2 cache.
    pub(crate) chunk_columns: usize,
}

/// What a kernel works on: `rows` rows of x in bands of `depth` steps, `band_stride` apart; so many panels of 16 · `depth`
/// values, `panel_stride` apart, that they cover `columns`, a multiple of 32; and `out`, rows of so many values,
/// `out_stride` apart, that nobody else reads or writes, as many as there are in the bands. `depth` is a positive
/// multiple of [`Element::STEPS`].
pub(crate) struct Block<T> {
    x: *const T,
    band_stride: usize,
    panels: *const T,
    panel_stride: usize,
    out: *mut f32,
    out_stride: usize,
    rows: usize,
    columns: usize,
    depth: usize,
    accumulate: bool,
}

#[cfg(target_arch = "x86_64")]
impl<T> Block<T> {
    /// Asks for the panels after those of columns `first` and on, a share of them for each of `shares` calls: they come from
    /// memory, each for the first time, and waiting for them would take as long as multiplying does.
    ///
    /// They may lie past the last: then nothing happens.
    #[inline(always)]
    fn fetch_next_panels(&self, first: usize, (share, shares): (usize, usize)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let next = first + PANELS_TOGETHER * COLUMNS;
        // After the last of these columns comes the first again, with the steps after these.
        let (panel, step) = if next < self.columns { (next / COLUMNS, 0) } else { (0, self.depth) };
        let lines = COLUMNS * self.depth * size_of::<T>() / LINE_BYTES;
        for panel in panel..panel + PANELS_TOGETHER {
            let panel = self.panels.wrapping_add(panel * self.panel_stride + step * COLUMNS);
            for line in lines * share / shares..lines * (share + 1) / shares {
                // SAFETY: a prefetch reads nothing and faults on no address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(panel.cast::<i8>().wrapping_add(line * LINE_BYTES)) };
            }
        }
    }
}

/// A kernel's entry. Safe to call where the instruction set was detected and the block holds what [`Block`] says.
pub(crate) type Routine<T> = unsafe fn(&Block<T>);

impl Element for f32 {
    const PER_WORD: usize = 1;
    const STEPS: usize = 1;

    fn shape(kernel: Kernel) -> Shape {
        let band_rows = match kernel.instruction_set() {
            InstructionSet::Portable => 4,
            InstructionSet::Avx2 => 6,
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => 12,
        };
        Shape { band_rows, unit: 1, block_depth: 256, chunk_columns: 128 }
    }

    fn routine(kernel: Kernel) -> Routine<Self> {
        match kernel.instruction_set() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2::block,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => avx512::block,
            _ => portable::block,
        }
    }
}

impl Element for bf16 {
    const PER_WORD: usize = 2;
    const STEPS: usize = 32;

    fn shape(kernel: Kernel) -> Shape {
        if kernel.instruction_set() == InstructionSet::Amx {
            Shape { band_rows: 16, unit: 32, block_depth: 384, chunk_columns: 256 }
        } else {
            Shape { band_rows: 12, unit: 2, block_depth: 512, chunk_columns: 128 }
        }
    }

    fn routine(kernel: Kernel) -> Routine<Self> {
        match kernel.instruction_set() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => avx512::block_bf16,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => amx::block,
            set => unreachable!("{set} multiplies f32; `Kernel::takes_bf16` says so"),
        }
    }
}

/// out = x · panels, or out += x · panels, as `accumulate` says, for some rows of x (from a band's first on) and some steps.
///
/// `panels[panel · panel_stride ..]` holds 16 · `steps.len()` values of each panel, in twos. `out` has rows of `out_stride`
/// values, as many as the bands have; of each the first `columns`, rounded up to 32, are written, and beyond `rows` what
/// is there says nothing. The sum over k is one chain of additions for each element (two, in AMX's and `vdpbf16ps`'s
/// pairs), the same wherever in `out` the element lies.
///
/// # Panics
/// When the shapes do not fit one another.
#[allow(clippy::too_many_arguments, reason = "one product's operands, each needed")]
pub(crate) fn multiply<T: Element>(
    kernel: Kernel,
    x: Bands<'_, T>,
    (rows, steps): (Range<usize>, Range<usize>),
    (panels, panel_stride): (&[T], usize),
    columns: usize,
    (out, out_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    let Shape { band_rows, .. } = T::shape(kernel);
    let (depth, columns) = (steps.len(), columns.next_multiple_of(PANELS_TOGETHER * COLUMNS));
    if rows.is_empty() || columns == 0 {
        return;
    }
    let count = columns / COLUMNS;
    assert!(
        rows.start.is_multiple_of(band_rows)
            && rows.end.next_multiple_of(band_rows) * x.depth <= x.values.len(),
        "rows {rows:?} of {} values in bands of {band_rows} × {}",
        x.values.len(),
        x.depth
    );
    assert!(
        depth > 0
            && depth.is_multiple_of(T::STEPS)
            && steps.start.is_multiple_of(T::STEPS)
            && steps.end <= x.depth,
        "steps {steps:?} of {}, by {}",
        x.depth,
        T::STEPS
    );
    assert!(
        panel_stride >= COLUMNS * depth && panels.len() >= (count - 1) * panel_stride + COLUMNS * depth,
        "{} values for {count} panels of depth {depth}",
        panels.len()
    );
    assert!(
        out_stride >= columns && out.len() >= rows.len().next_multiple_of(band_rows) * out_stride,
        "{} values for {} rows of {columns}, {out_stride} apart",
        out.len(),
        rows.len()
    );
    let block = Block {
        x: x.values[rows.start * x.depth + steps.start * band_rows..].as_ptr(),
        band_stride: band_rows * x.depth,
        panels: panels.as_ptr(),
        panel_stride,
        out: out.as_mut_ptr(),
        out_stride,
        rows: rows.len(),
        columns,
        depth,
        accumulate,
    };
    // SAFETY: everything that `Block` says was checked above, and `out` is borrowed mutably. A `Kernel` exists only for an
    // instruction set that was detected.
    unsafe { T::routine(kernel)(&block) }
}

/// Where a packed panel is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a cache: it is read at once.
    Cache,
    /// In memory, past the caches, where the kernel can do that: nothing else is driven out of them, and lines that are
    /// wholly overwritten need not be fetched first, which spares a third of what a large copy moves.
    Memory,
}

/// Packs one panel: `columns`, at most 16 rows of k values each (rows of a PyTorch weight, any strides), into `panel`, whose
/// 16 · depth values are all written, with zeros beyond `columns`.
///
/// # Panics
/// When there are more than 16 columns or more values of k than fit.
pub(crate) fn pack_panel<T: Element>(
    kernel: Kernel,
    columns: &ArrayView2<'_, T>,
    panel: &mut [T],
    place: Place,
) {
    let (count, k) = columns.dim();
    assert!(count <= COLUMNS && k * COLUMNS <= panel.len(), "{count} columns of {k} in {}", panel.len());
    let [stride, step] = [columns.strides()[0], columns.strides()[1]];
    let mut packed = 0;
    if count < COLUMNS {
        panel.fill(T::default());
    } else if T::PER_WORD == 1 && stride == 1 {
        // A row-major right-hand matrix: 16 values lie side by side already.
        for (row, to) in columns.columns().into_iter().zip(panel.chunks_exact_mut(COLUMNS)) {
            match row.as_slice() {
                Some(row) => to.copy_from_slice(row),
                None => to.iter_mut().zip(row).for_each(|(to, value)| *to = *value),
            }
        }
        packed = k;
    } else if k >= T::PER_WORD && step == 1 && stride >= 0 {
        packed = transpose(kernel, columns, panel, place);
    }
    if count == COLUMNS {
        panel[COLUMNS * packed..].fill(T::default());
    }
    for k in packed..k {
        for column in 0..count {
            panel[panel_index::<T>(k, column)] = columns[[column, k]];
        }
    }
}

/// Where a panel holds step k of a column.
pub(crate) fn panel_index<T: Element>(k: usize, column: usize) -> usize {
    (k / T::PER_WORD * COLUMNS + column) * T::PER_WORD + k % T::PER_WORD
}

/// Packs the whole words of 16 contiguous columns if the kernel's instruction set makes that fast. How many values of k
/// that were.
#[cfg(target_arch = "x86_64")]
fn transpose<T: Element>(
    kernel: Kernel,
    columns: &ArrayView2<'_, T>,
    panel: &mut [T],
    place: Place,
) -> usize {
    let (count, k) = columns.dim();
    let words = k / T::PER_WORD;
    if kernel.instruction_set() < InstructionSet::Avx2 {
        return 0;
    }
    assert!(count == COLUMNS && columns.strides()[1] == 1 && columns.strides()[0] >= 0);
    assert!(panel.len() >= COLUMNS * k);
    let stride_bytes = columns.strides()[0].unsigned_abs() * size_of::<T>();
    let (from, to) = (columns.as_ptr().cast(), panel.as_mut_ptr().cast::<u32>());
    // SAFETY: 16 rows of at least `words` words can be read, and as many written in the panel, which is borrowed mutably.
    // A kernel of AVX-512 or above, or above AVX2, exists only where that was detected.
    unsafe {
        if kernel.instruction_set() < InstructionSet::Avx512 {
            avx2::transpose(from, stride_bytes, words, to);
        } else if place == Place::Memory && to.addr().is_multiple_of(avx512::LINE_BYTES) {
            avx512::transpose::<true>(from, stride_bytes, words, to);
        } else {
            avx512::transpose::<false>(from, stride_bytes, words, to);
        }
    }
    words * T::PER_WORD
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose<T: Element>(_: Kernel, _: &ArrayView2<'_, T>, _: &mut [T], _: Place) -> usize {
    0
}

/// A bf16 panel, or the first steps of one, as an f32 panel, exactly.
///
/// # Panics
/// When the lengths differ or are no multiple of 32.
pub(crate) fn widen_panel(kernel: Kernel, narrow: &[bf16], wide: &mut [f32]) {
    assert!(narrow.len() == wide.len() && wide.len().is_multiple_of(2 * COLUMNS));
    #[cfg(target_arch = "x86_64")]
    if kernel.instruction_set() >= InstructionSet::Avx2 {
        // SAFETY: both hold so many times 32 values; a kernel above AVX2 exists only where AVX2 was detected.
        unsafe { avx2::widen(narrow.as_ptr().cast(), wide.len() / (2 * COLUMNS), wide.as_mut_ptr()) };
        return;
    }
    for (k, values) in wide.chunks_exact_mut(COLUMNS).enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            *value = narrow[panel_index::<bf16>(k, column)].to_f32();
        }
    }
}
