//! The innermost loops: `out (+)= x · panels`, for each instruction set one way. The only unsafe code of this crate beside
//! the thread pool, because vectors, tiles and columns of a row-major matrix shared among threads go through pointers.
//!
//! A *panel* holds 16 columns of the right-hand matrix (16 rows of a PyTorch weight). In f32 it has 16 values for each step
//! of k. In bf16 it has 32 for each pair of steps, each column's two side by side, as AMX and `vdpbf16ps` want them.

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
mod choice;
mod portable;
#[cfg(test)]
mod tests;

pub use choice::{InstructionSet, Kernel, Refusal};

use half::bf16;
use ndarray::{ArrayView2, ArrayViewMut2};

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
    /// Rows that x is padded to: 1, or those of an AMX tile.
    const ROWS: usize;
    /// Steps of k at once. Vector kernels: so many that writing sums costs little, so few that the panels of a tile stay in an
    /// L1 cache (24 or 32 KiB) while rows of x stream past them. AMX computes so much for each byte that reading sums back
    /// would cost more than reading panels from an L2 cache, where 64 columns of so many steps still lie.
    fn block_depth(kernel: Kernel) -> usize;

    #[doc(hidden)]
    fn routine(kernel: Kernel) -> Routine<Self>;
}

/// What a kernel works on: `x` has `rows` rows, rounded up to [`Element::ROWS`], of `depth` values, `x_stride` apart;
/// `panels` so many panels of 16 · `depth` values, `panel_stride` apart, that they cover `columns`, rounded up to
/// [`PANELS_TOGETHER`]; `out` has `rows` rows of `columns` values, `out_stride` apart, that nobody else reads or writes.
/// `depth` is a positive multiple of [`Element::STEPS`].
pub(crate) struct Block<T> {
    x: *const T,
    x_stride: usize,
    panels: *const T,
    panel_stride: usize,
    out: *mut f32,
    out_stride: usize,
    rows: usize,
    columns: usize,
    depth: usize,
    accumulate: bool,
}

/// Rows of the next tile: what is left over a whole tile goes into two of about the same height, for one of few rows
/// takes as long as one of several.
fn rows_at_once<const ROWS: usize>(left: usize) -> usize {
    if left > ROWS && left < 2 * ROWS { left.div_ceil(2) } else { left.min(ROWS) }
}

/// A kernel's entry. Safe to call where the instruction set was detected and the block holds what [`Block`] says.
pub(crate) type Routine<T> = unsafe fn(&Block<T>);

impl Element for f32 {
    const PER_WORD: usize = 1;
    const STEPS: usize = 1;
    const ROWS: usize = 1;

    fn block_depth(_: Kernel) -> usize {
        384
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
    const ROWS: usize = 16;

    fn block_depth(kernel: Kernel) -> usize {
        if kernel.instruction_set() == InstructionSet::Amx { 8192 } else { 512 }
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

/// out = x · panels, or out += x · panels, as `accumulate` says.
///
/// `panels[panel · panel_stride ..]` holds 16 · `x.ncols()` values of each panel. The sum over k is one chain of additions
/// for each element (two, in AMX's and `vdpbf16ps`'s pairs), the same wherever in `out` the element lies.
///
/// # Panics
/// When the shapes do not fit one another, or rows are not contiguous.
pub(crate) fn multiply<T: Element>(
    kernel: Kernel,
    x: &ArrayView2<'_, T>,
    panels: &[T],
    panel_stride: usize,
    out: &mut ArrayViewMut2<'_, f32>,
    accumulate: bool,
) {
    let (rows, columns) = out.dim();
    let depth = x.ncols();
    if rows == 0 || columns == 0 {
        return;
    }
    let count = columns.div_ceil(COLUMNS).next_multiple_of(PANELS_TOGETHER);
    let stride = |strides: &[isize], rows: usize, columns: usize| {
        assert!(columns == 1 || strides[1] == 1, "rows of {strides:?} are not contiguous");
        assert!(rows == 1 || strides[0] >= 0, "rows of {strides:?} go backwards");
        strides[0].unsigned_abs()
    };
    assert!(x.nrows() >= rows.next_multiple_of(T::ROWS), "{} rows of x for {rows} of the result", x.nrows());
    assert!(depth > 0 && depth.is_multiple_of(T::STEPS), "depth {depth} is no multiple of {}", T::STEPS);
    assert!(
        panel_stride >= COLUMNS * depth && panels.len() >= (count - 1) * panel_stride + COLUMNS * depth,
        "{} values for {count} panels of depth {depth}",
        panels.len()
    );
    let block = Block {
        x: x.as_ptr(),
        x_stride: stride(x.strides(), x.nrows(), depth),
        panels: panels.as_ptr(),
        panel_stride,
        out_stride: stride(out.strides(), rows, columns),
        out: out.as_mut_ptr(),
        rows,
        columns,
        depth,
        accumulate,
    };
    // SAFETY: the views promise that their rows exist and that `out` is ours alone; everything else that `Block` says was
    // checked above. A `Kernel` exists only for an instruction set that was detected.
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
