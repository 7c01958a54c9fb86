//! 12 rows by 32 columns in 24 of AVX-512's 32 registers: enough sums in flight to keep two FMA units busy, and few enough
//! reads beside them.
//!
//! With AVX-512 BF16 one instruction multiplies and adds a pair of bf16 steps.

use std::arch::x86_64::*;

use half::bf16;

use super::{Block, COLUMNS};

/// Rows of a band.
const ROWS: usize = 12;

/// Two panels side by side.
const WIDE: usize = 2 * COLUMNS;

/// Calls `$tile::<R>` for every two panels and every band of R rows, 12 or what is left.
macro_rules! by_bands {
    ($block:ident, $tile:ident) => {
        for first in (0..$block.columns).step_by(WIDE) {
            for row in (0..$block.rows).step_by(ROWS) {
                $block.fetch_next_panels(first, (row / ROWS, $block.rows.div_ceil(ROWS)));
                // SAFETY: as the caller's; each call takes rows that exist.
                unsafe {
                    match $block.rows - row {
                        1 => $tile::<1>($block, row, first),
                        2 => $tile::<2>($block, row, first),
                        3 => $tile::<3>($block, row, first),
                        4 => $tile::<4>($block, row, first),
                        5 => $tile::<5>($block, row, first),
                        6 => $tile::<6>($block, row, first),
                        7 => $tile::<7>($block, row, first),
                        8 => $tile::<8>($block, row, first),
                        9 => $tile::<9>($block, row, first),
                        10 => $tile::<10>($block, row, first),
                        11 => $tile::<11>($block, row, first),
                        _ => $tile::<ROWS>($block, row, first),
                    }
                }
            }
        }
    };
}

/// # Safety
/// The processor has AVX-512 F, and `block` points to what [`Block`] says.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn block(block: &Block<f32>) {
    by_bands!(block, tile);
}

/// # Safety
/// The processor has AVX-512 F and BF16, and `block` points to what [`Block`] says.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn block_bf16(block: &Block<bf16>) {
    by_bands!(block, tile_bf16);
}

/// Where a tile reads: its band, and its two panels.
///
/// # Safety
/// As for [`block`]; `row` is a band's first, and `first` a column that two panels begin with.
unsafe fn operands<T>(block: &Block<T>, row: usize, first: usize) -> (*const T, *const T, *const T) {
    // SAFETY: the band exists, and panels come in twos.
    unsafe {
        let left = block.panels.add(first / COLUMNS * block.panel_stride);
        (block.x.add(row / ROWS * block.band_stride), left, left.add(block.panel_stride))
    }
}

/// # Safety
/// As for [`block`]; rows `row .. row + R` exist, and `row` is a band's first.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(block: &Block<f32>, row: usize, first: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: as the caller's.
    let (x, left, right) = unsafe { operands(block, row, first) };
    for k in 0..block.depth {
        // SAFETY: k < depth, so each panel has 16 values for it, and the band one for each row.
        unsafe {
            let w = [_mm512_loadu_ps(left.add(k * COLUMNS)), _mm512_loadu_ps(right.add(k * COLUMNS))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(k * ROWS + r));
                sums[0] = _mm512_fmadd_ps(x, w[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(x, w[1], sums[1]);
            }
        }
    }
    // SAFETY: rows row .. row + R exist, and columns first .. first + 32.
    unsafe { store(block, row, first, &sums) };
}

/// # Safety
/// As for [`block_bf16`]; rows `row .. row + R` exist, and `row` is a band's first.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_bf16<const R: usize>(block: &Block<bf16>, row: usize, first: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: as the caller's.
    let (x, left, right) = unsafe { operands(block, row, first) };
    for k in (0..block.depth).step_by(2) {
        // SAFETY: depth is even and k below it, so each panel has 32 values, 64 bytes, for k and k + 1, and the band two for
        // each row. The types of vectors are only other names for 512 bits.
        unsafe {
            let w = [
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(left.add(k * COLUMNS).cast())),
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.add(k * COLUMNS).cast())),
            ];
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(x.add(k * ROWS + 2 * r).cast::<i32>().read_unaligned());
                let x = std::mem::transmute::<__m512i, __m512bh>(x);
                sums[0] = _mm512_dpbf16_ps(sums[0], x, w[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], x, w[1]);
            }
        }
    }
    // SAFETY: rows row .. row + R exist, and columns first .. first + 32.
    unsafe { store(block, row, first, &sums) };
}

/// # Safety
/// Rows `row .. row + R` of `out` exist, and columns `first .. first + 32`.
#[target_feature(enable = "avx512f")]
unsafe fn store<const R: usize, T>(block: &Block<T>, row: usize, first: usize, sums: &[[__m512; 2]; R]) {
    for (r, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: 16 values of a row that exists.
            unsafe {
                let out = block.out.add((row + r) * block.out_stride + first + COLUMNS * half);
                let before = if block.accumulate { _mm512_loadu_ps(out) } else { _mm512_setzero_ps() };
                _mm512_storeu_ps(out, _mm512_add_ps(before, *sum));
            }
        }
    }
}

/// `to[rows · i + r]` = word i of row r, for `rows` rows, at most 16, of `words` words, `stride` bytes apart.
///
/// # Safety
/// The processor has AVX-512 F; that many rows of that many words lie at `from`, room for all of them at `to`, and they do
/// not overlap.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_band(from: *const u32, stride: usize, rows: usize, words: usize, to: *mut u32) {
    let row_mask = u16::MAX >> (16 - rows);
    for first in (0..words).step_by(16) {
        let count = (words - first).min(16);
        let mask = u16::MAX >> (16 - count);
        let mut lines = [_mm512_setzero_ps(); 16];
        for (r, line) in lines.iter_mut().enumerate().take(rows) {
            // SAFETY: the mask lets only words of the row be read.
            *line = unsafe { _mm512_maskz_loadu_ps(mask, from.byte_add(r * stride).add(first).cast()) };
        }
        for (i, column) in transposed(&lines).into_iter().enumerate().take(count) {
            // SAFETY: first + i < words, and the mask lets only `rows` words be written.
            unsafe { _mm512_mask_storeu_ps(to.add(rows * (first + i)).cast(), row_mask, column) };
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
