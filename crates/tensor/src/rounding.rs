//! f32 to bf16, to nearest, ties to even, as PyTorch and the instructions do; NaN stays NaN.

use half::bf16;

skillweld_simd::vectorize! {
    /// `out[i]` = bf16(`x[i]`).
    pub fn to_bf16(x: &[f32], out: &mut [bf16]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = bf16::from_bits((rounded(x.to_bits()) >> 16) as u16);
        }
    }

    /// `out[2 i]` = bf16(`a[i]`), `out[2 i + 1]` = bf16(`b[i]`).
    pub fn interleave_bf16(a: &[f32], b: &[f32], out: &mut [bf16]) {
        for ((out, a), b) in out.as_chunks_mut::<2>().0.iter_mut().zip(a).zip(b) {
            let word = (rounded(a.to_bits()) >> 16) | (rounded(b.to_bits()) & 0xffff_0000);
            *out = [bf16::from_bits(word as u16), bf16::from_bits((word >> 16) as u16)];
        }
    }

    /// `out[i]` = bf16(`x[i]`), again as f32.
    pub fn through_bf16(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = f32::from_bits(rounded(x.to_bits()) & 0xffff_0000);
        }
    }
}

/// The bits whose upper half is the rounded value. Without branches, so that loops over it become vectors.
#[inline(always)]
pub(crate) fn rounded(bits: u32) -> u32 {
    // Half a unit in the last place, less one bit where the last place is even. A NaN gets its quiet bit instead.
    let near = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let nan = 0u32.wrapping_sub(u32::from(bits & 0x7fff_ffff > 0x7f80_0000));
    (near & !nan) | ((bits | 0x0040_0000) & nan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_is_that_of_half(bits in proptest::collection::vec(any::<u32>(), 1..70)) {
            let edges = [0x7f80_0000, 0xff80_0000, 0x7f80_0001, 0x7f7f_ffff, 0x3f80_8000, 0x3f81_8000, 1, 0];
            let x: Vec<f32> = bits.iter().copied().chain(edges).map(f32::from_bits).collect();
            let expected: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
            let (mut narrow, mut wide) = (vec![bf16::ZERO; x.len()], vec![0.0; x.len()]);
            let mut pairs = vec![bf16::ZERO; 2 * x.len()];
            to_bf16(&x, &mut narrow);
            interleave_bf16(&x, &x.iter().rev().copied().collect::<Vec<_>>(), &mut pairs);
            let expected_pairs = expected.iter().zip(expected.iter().rev()).flat_map(|(a, b)| [a.to_bits(), b.to_bits()]);
            prop_assert!(pairs.iter().map(|x| x.to_bits()).eq(expected_pairs));
            through_bf16(&x, &mut wide);
            for ((narrow, wide), expected) in narrow.iter().zip(&wide).zip(&expected) {
                prop_assert_eq!(narrow.to_bits(), expected.to_bits());
                prop_assert_eq!(wide.to_bits(), expected.to_f32().to_bits());
            }
        }
    }
}
