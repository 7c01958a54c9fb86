//! 6 rows by 16 columns in 12 of AVX2's 16 registers, two for the panel and one for a value of x.

use std::arch::x86_64::*;

use super::{Block, COLUMNS};

/// Rows of a band.
const ROWS: usize = 6;

/// # Safety
/// The processor has AVX2 and FMA, and `block` points to what [`Block`] says.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn block(block: &Block<f32>) {
    for panel in 0..block.columns / COLUMNS {
        for row in (0..block.rows).step_by(ROWS) {
            // SAFETY: as the caller's; each call takes rows that exist.
            unsafe {
                match block.rows - row {
                    1 => tile::<1>(block, row, panel),
                    2 => tile::<2>(block, row, panel),
                    3 => tile::<3>(block, row, panel),
                    4 => tile::<4>(block, row, panel),
                    5 => tile::<5>(block, row, panel),
                    _ => tile::<ROWS>(block, row, panel),
                }
            }
        }
    }
}

/// # Safety
/// As for [`block`]; rows `row .. row + R` exist, and `row` is a band's first.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(block: &Block<f32>, row: usize, panel: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: the band and the panel exist.
    let (x, w) = unsafe {
        (block.x.add(row / ROWS * block.band_stride), block.panels.add(panel * block.panel_stride))
    };
    for k in 0..block.depth {
        // SAFETY: k < depth, so the panel has 16 values for it, and the band one for each row.
        unsafe {
            let w = w.add(k * COLUMNS);
            let w = [_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(8))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*x.add(k * ROWS + r));
                sums[0] = _mm256_fmadd_ps(x, w[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(x, w[1], sums[1]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: 8 values of a row that exists.
            unsafe {
                let out = block.out.add((row + r) * block.out_stride + panel * COLUMNS + 8 * half);
                let before = if block.accumulate { _mm256_loadu_ps(out) } else { _mm256_setzero_ps() };
                _mm256_storeu_ps(out, _mm256_add_ps(before, sum));
            }
        }
    }
}

/// `to[16 · i + r]` = word i of row r, for 16 rows of `words` words, `stride` bytes apart.
///
/// # Safety
/// The processor has AVX2; 16 rows of `words` words lie at `from`, `16 · words` words at `to`, and they do not overlap.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(from: *const u32, stride: usize, words: usize, to: *mut u32) {
    for half in [0, 8] {
        let mut i = 0;
        while i + 8 <= words {
            let mut r = [_mm256_setzero_ps(); 8];
            for (row, r) in r.iter_mut().enumerate() {
                // SAFETY: 8 words from i on exist in rows half .. half + 8.
                *r = unsafe { _mm256_loadu_ps(from.byte_add((half + row) * stride).add(i).cast::<f32>()) };
            }
            // Pairs of rows, then fours, then eights. `pairs[2 j]` begins with columns 0 and 1 of rows 2 j and 2 j + 1,
            // `pairs[2 j + 1]` with 2 and 3; 4 to 7 follow in the upper halves.
            let mut pairs = [_mm256_setzero_ps(); 8];
            for j in 0..4 {
                pairs[2 * j] = _mm256_unpacklo_ps(r[2 * j], r[2 * j + 1]);
                pairs[2 * j + 1] = _mm256_unpackhi_ps(r[2 * j], r[2 * j + 1]);
            }
            for j in 0..2 {
                let [a, b, c, d] = [pairs[j], pairs[2 + j], pairs[4 + j], pairs[6 + j]];
                let low = (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0x44>(c, d));
                let high = (_mm256_shuffle_ps::<0xee>(a, b), _mm256_shuffle_ps::<0xee>(c, d));
                for (column, (upper, lower)) in [(2 * j, low), (2 * j + 1, high)] {
                    // SAFETY: 8 words at each of 16 · (i + column + 0 or 4) + half, below 16 · words.
                    unsafe {
                        let to = to.add(16 * (i + column) + half).cast::<f32>();
                        _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(upper, lower));
                        _mm256_storeu_ps(to.add(64), _mm256_permute2f128_ps::<0x31>(upper, lower));
                    }
                }
            }
            i += 8;
        }
        for i in i..words {
            for r in half..half + 8 {
                // SAFETY: i < words and r < 16; pairs of bf16 may lie at any even address.
                unsafe {
                    to.add(16 * i + r).write_unaligned(from.byte_add(r * stride).add(i).read_unaligned());
                }
            }
        }
    }
}

/// `pairs` times 16 pairs of bf16 as the 16 f32 below, then the 16 above.
///
/// # Safety
/// The processor has AVX2; 32 · `pairs` values lie at `from` and at `to`, and they do not overlap.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn widen(from: *const __m256i, pairs: usize, to: *mut f32) {
    let above = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    for pair in 0..pairs {
        for half in 0..2 {
            // SAFETY: two vectors of 8 pairs at `from` and four of 8 values at `to` for each pair of steps.
            unsafe {
                let both = _mm256_loadu_si256(from.add(2 * pair + half));
                let to = to.add(32 * pair + 8 * half);
                _mm256_storeu_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)));
                _mm256_storeu_ps(to.add(16), _mm256_castsi256_ps(_mm256_and_si256(both, above)));
            }
        }
    }
}
