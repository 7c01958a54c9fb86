//! Picking out the few values that matter.

/// Appends to `kept` the magnitudes of those `values` that lie in `from..end` when read as bits, in their order, and
/// gives the number of those below `from`. Magnitudes compare like their bits, NaN above infinity.
///
/// `kept` is as long as `values` and comes back with its first elements set; their number is the second result.
///
/// # Panics
/// When `kept` is shorter than `values`.
pub fn keep_between(values: &[f32], from: u32, end: u32, kept: &mut [u32]) -> (usize, usize) {
    assert!(kept.len() >= values.len(), "room for {} of {} values", kept.len(), values.len());
    #[cfg(target_arch = "x86_64")]
    if crate::level() == crate::Level::Avx512 {
        // SAFETY: `level` returns Avx512 only after detecting AVX-512 F.
        #[allow(unsafe_code, reason = "calls the copy for a detected instruction set")]
        return unsafe { avx512(values, from, end, kept) };
    }
    plain(values, from, end, kept)
}

fn plain(values: &[f32], from: u32, end: u32, kept: &mut [u32]) -> (usize, usize) {
    let (mut below, mut count) = (0, 0);
    for value in values {
        let bits = value.abs().to_bits();
        kept[count] = bits;
        below += usize::from(bits < from);
        count += usize::from(from <= bits && bits < end);
    }
    (below, count)
}

/// The compiler makes no compressing store of a loop.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,popcnt")]
fn avx512(values: &[f32], from: u32, end: u32, kept: &mut [u32]) -> (usize, usize) {
    use core::arch::x86_64::{
        _mm512_and_si512, _mm512_cmplt_epu32_mask, _mm512_loadu_si512, _mm512_maskz_compress_epi32,
        _mm512_set1_epi32, _mm512_storeu_si512,
    };
    let (lowest, limit) = (_mm512_set1_epi32(from as i32), _mm512_set1_epi32(end as i32));
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let (vectors, rest) = values.as_chunks::<16>();
    let (mut below, mut count) = (0, 0);
    for vector in vectors {
        // SAFETY: reads the 16 values of `vector`.
        #[allow(unsafe_code, reason = "vectors are read through pointers")]
        let bits = unsafe { _mm512_loadu_si512(vector.as_ptr().cast()) };
        let bits = _mm512_and_si512(bits, magnitude);
        let smaller = _mm512_cmplt_epu32_mask(bits, lowest);
        let inside = _mm512_cmplt_epu32_mask(bits, limit) & !smaller;
        below += smaller.count_ones() as usize;
        let room = &mut kept[count..][..16];
        // SAFETY: writes the 16 elements of `room`; what is not kept is overwritten by the next vector.
        #[allow(unsafe_code, reason = "vectors are written through pointers")]
        unsafe {
            _mm512_storeu_si512(room.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(inside, bits));
        }
        count += inside.count_ones() as usize;
    }
    let (rest_below, rest_count) = plain(rest, from, end, &mut kept[count..]);
    (below + rest_below, count + rest_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of numbers without a crate for it.
    fn numbers(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(state)
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn picks_the_same_as_a_filter() {
        let values = numbers(1000);
        let bits: Vec<u32> = values.iter().map(|value| value.abs().to_bits()).collect();
        let edges = [0, 1, bits[3], bits[500], 0x3f80_0000, 0x7f80_0000, 0x8000_0000];
        for len in [0, 1, 15, 16, 17, 100, 1000] {
            for from in edges {
                for end in edges {
                    let mut kept = vec![0; len];
                    let (below, count) = keep_between(&values[..len], from, end, &mut kept);
                    let expected: Vec<u32> =
                        bits[..len].iter().copied().filter(|bits| (from..end).contains(bits)).collect();
                    assert_eq!(
                        (&kept[..count], below),
                        (&*expected, bits[..len].iter().filter(|b| **b < from).count())
                    );
                }
            }
        }
    }
}
