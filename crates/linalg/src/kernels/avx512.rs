//! 8 rows by 32 columns in 16 of AVX-512's 32 registers: enough sums in flight to keep two FMA units busy.
//!
//! With AVX-512 BF16 one instruction multiplies and adds a pair of bf16 steps.

use std::arch::x86_64::*;

use half::bf16;

use super::{Block, COLUMNS, rows_at_once};

const ROWS: usize = 8;

/// Two panels side by side.
const WIDE: usize = 2 * COLUMNS;

/// Calls `$tile::<R, …>` for the rows that are left, at most 8.
macro_rules! by_rows {
    ($block:ident, $tile:ident) => {
        for first in (0..$block.columns).step_by(WIDE) {
            let mut row = 0;
            while row < $block.rows {
                let rows = rows_at_once::<ROWS>($block.rows - row);
                // SAFETY: as the caller's; each call takes rows that exist.
                unsafe {
                    match rows {
                        8 => $tile::<8>($block, row, first),
                        7 => $tile::<7>($block, row, first),
                        6 => $tile::<6>($block, row, first),
                        5 => $tile::<5>($block, row, first),
                        4 => $tile::<4>($block, row, first),
                        3 => $tile::<3>($block, row, first),
                        2 => $tile::<2>($block, row, first),
                        _ => $tile::<1>($block, row, first),
                    }
                }
                row += rows;
            }
        }
    };
}

/// # Safety
/// The processor has AVX-512 F, and `block` points to what [`Block`] says.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn block(block: &Block<f32>) {
    by_rows!(block, tile);
}

/// # Safety
/// The processor has AVX-512 F and BF16, and `block` points to what [`Block`] says.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn block_bf16(block: &Block<bf16>) {
    by_rows!(block, tile_bf16);
}

/// # Safety
/// As for [`block`]; rows `row .. row + R` exist.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(block: &Block<f32>, row: usize, first: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let mut x = [block.x; R];
    for (r, x) in x.iter_mut().enumerate() {
        // SAFETY: the row exists.
        *x = unsafe { block.x.add((row + r) * block.x_stride) };
    }
    // SAFETY: panels are stored in twos.
    let (left, right) = unsafe {
        let left = block.panels.add(first / COLUMNS * block.panel_stride);
        (left, left.add(block.panel_stride))
    };
    for k in 0..block.depth {
        // SAFETY: k < depth, so each panel has 16 values for it, and each row one.
        unsafe {
            let w = [_mm512_loadu_ps(left.add(k * COLUMNS)), _mm512_loadu_ps(right.add(k * COLUMNS))];
            for (sums, x) in sums.iter_mut().zip(&x) {
                let x = _mm512_set1_ps(*x.add(k));
                sums[0] = _mm512_fmadd_ps(x, w[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(x, w[1], sums[1]);
            }
        }
    }
    // SAFETY: rows row .. row + R exist, and first < columns.
    unsafe { store(block, row, first, &sums) };
}

/// # Safety
/// As for [`block_bf16`]; rows `row .. row + R` exist.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_bf16<const R: usize>(block: &Block<bf16>, row: usize, first: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let mut x = [block.x; R];
    for (r, x) in x.iter_mut().enumerate() {
        // SAFETY: the row exists.
        *x = unsafe { block.x.add((row + r) * block.x_stride) };
    }
    // SAFETY: panels are stored in twos.
    let (left, right) = unsafe {
        let left = block.panels.add(first / COLUMNS * block.panel_stride);
        (left, left.add(block.panel_stride))
    };
    for k in (0..block.depth).step_by(2) {
        // SAFETY: depth is even and k below it, so each panel has 32 values, 64 bytes, for k and k + 1, and each row two.
        // The types of vectors are only other names for 512 bits.
        unsafe {
            let w = [
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(left.add(k * COLUMNS).cast())),
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.add(k * COLUMNS).cast())),
            ];
            for (sums, x) in sums.iter_mut().zip(&x) {
                let x = _mm512_set1_epi32(x.add(k).cast::<i32>().read_unaligned());
                let x = std::mem::transmute::<__m512i, __m512bh>(x);
                sums[0] = _mm512_dpbf16_ps(sums[0], x, w[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], x, w[1]);
            }
        }
    }
    // SAFETY: rows row .. row + R exist, and first < columns.
    unsafe { store(block, row, first, &sums) };
}

/// # Safety
/// Rows `row .. row + R` of `out` exist, and `first < columns`.
#[target_feature(enable = "avx512f")]
unsafe fn store<const R: usize, T>(block: &Block<T>, row: usize, first: usize, sums: &[[__m512; 2]; R]) {
    let columns = WIDE.min(block.columns - first);
    let mask = u32::MAX >> (WIDE - columns);
    for (r, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            let mask = (mask >> (COLUMNS * half)) as u16;
            // SAFETY: the mask lets only values below `columns` be touched; the address itself may lie past them.
            unsafe {
                let out = block.out.wrapping_add((row + r) * block.out_stride + first + COLUMNS * half);
                let before =
                    if block.accumulate { _mm512_maskz_loadu_ps(mask, out) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(out, mask, _mm512_add_ps(before, *sum));
            }
        }
    }
}

/// A line of a cache, and a register.
pub(super) const LINE_BYTES: usize = 64;

/// `to[16 · i + r]` = word i of row r, for 16 rows of `words` words, `stride` bytes apart; past the caches if `STREAM`.
///
/// # Safety
/// The processor has AVX-512 F; 16 rows of `words` words lie at `from`, `16 · words` words at `to`, and they do not
/// overlap. If `STREAM`, `to` begins on a cache line.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose<const STREAM: bool>(
    from: *const u32,
    stride: usize,
    words: usize,
    to: *mut u32,
) {
    for first in (0..words).step_by(16) {
        let count = (words - first).min(16);
        let mask = u16::MAX >> (16 - count);
        let mut rows = [_mm512_setzero_ps(); 16];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: the mask lets only words of the row be read.
            *row = unsafe { _mm512_maskz_loadu_ps(mask, from.byte_add(r * stride).add(first).cast()) };
        }
        for (i, column) in transposed(&rows).into_iter().enumerate().take(count) {
            // SAFETY: first + i < words; lines follow one another from a line's beginning.
            unsafe {
                let to = to.add(16 * (first + i)).cast();
                if STREAM { _mm512_stream_ps(to, column) } else { _mm512_storeu_ps(to, column) }
            }
        }
    }
    if STREAM {
        // Streamed lines may be seen after what is written later: not after this.
        _mm_sfence();
    }
}

/// Rows to columns: pairs of rows, then fours within the 128-bit lanes, then the lanes among each other.
#[target_feature(enable = "avx512f")]
fn transposed(rows: &[__m512; 16]) -> [__m512; 16] {
    let wide = _mm512_castps_pd;
    // Lane l of `fours[4 g + c]` holds column 4 l + c of rows 4 g .. 4 g + 4.
    let mut fours = [_mm512_setzero_ps(); 16];
    for (rows, fours) in rows.as_chunks::<4>().0.iter().zip(fours.as_chunks_mut::<4>().0) {
        let [a, b, c, d] = *rows;
        let low = [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)];
        let high = [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)];
        for (half, [upper, lower]) in [low, high].into_iter().enumerate() {
            let (upper, lower) = (wide(upper), wide(lower));
            fours[2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
            fours[2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
        }
    }
    // 0x88 takes lanes 0 and 2 of both, 0xdd lanes 1 and 3.
    let mut columns = [_mm512_setzero_ps(); 16];
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let even = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(d, e));
        let odd = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(d, e));
        columns[c] = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
        columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
        columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
        columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
    }
    columns
}
