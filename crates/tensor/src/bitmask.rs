use skillweld_simd::vectorize;

/// One bit an element: element 8j + i is bit i of byte j, as numpy's `packbits(bitorder="little")` writes it.
///
/// Bits past the last element are zero. This is how task masks M_k (arXiv 2511.18810) are stored and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitMask {
    len: usize,
    bytes: Vec<u8>,
}

impl BitMask {
    /// Bytes that `len` bits take.
    pub const fn byte_len(len: usize) -> usize {
        len.div_ceil(8)
    }

    /// A mask of `len` zero bits.
    pub fn zeros(len: usize) -> Self {
        Self { len, bytes: vec![0; Self::byte_len(len)] }
    }

    /// Packs one `bool` an element.
    pub fn from_bools(bits: &[bool]) -> Self {
        let mut mask = Self::zeros(bits.len());
        for (byte, bits) in mask.bytes.iter_mut().zip(bits.chunks(8)) {
            *byte = bits.iter().enumerate().fold(0, |byte, (i, &bit)| byte | u8::from(bit) << i);
        }
        mask
    }

    /// Takes packed bytes as they come from a file; bits past the end are cleared. `None` unless `bytes` is exactly
    /// `ceil(len / 8)` long.
    pub fn from_bytes(len: usize, mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() != Self::byte_len(len) {
            return None;
        }
        if let (Some(last), 1..) = (bytes.last_mut(), len % 8) {
            *last &= (1 << (len % 8)) - 1;
        }
        Some(Self { len, bytes })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a mask of no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bit of element `index`.
    ///
    /// # Panics
    /// When `index` is past the end.
    pub fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "bit {index} of a mask of {} bits", self.len);
        self.bytes[index / 8] >> (index % 8) & 1 == 1
    }

    /// Number of elements kept.
    pub fn count_ones(&self) -> usize {
        count_ones(&self.bytes)
    }
}

vectorize! {
    /// Number of one bits in packed bytes.
    pub fn count_ones(bytes: &[u8]) -> usize {
        bytes.iter().map(|b| b.count_ones() as usize).sum()
    }

    /// Number of positions where both are one: |A ∩ B|, for Jaccard agreement with |A ∪ B| = |A| + |B| − |A ∩ B|.
    pub fn count_both(a: &[u8], b: &[u8]) -> usize {
        a.iter().zip(b).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// Packs one byte an element (0 = dropped, anything else = kept) into bits. `bits` holds `ceil(flags.len() / 8)`
    /// bytes and is overwritten.
    pub fn pack(flags: &[u8], bits: &mut [u8]) {
        for (byte, flags) in bits.iter_mut().zip(flags.chunks(8)) {
            *byte = flags.iter().enumerate().fold(0, |byte, (i, &f)| byte | u8::from(f != 0) << i);
        }
    }

    /// out\[i\] = base\[i\] + scale · τ\[i\] where bit i is one, base\[i\] elsewhere: Θ₀ + rescaler · M ⊙ τ.
    pub fn apply(base: &[f32], tau: &[f32], bits: &[u8], scale: f32, out: &mut [f32]) {
        // Eight elements share a byte: groups of eight vectorise to a masked add.
        let (out, out_rest) = out.as_chunks_mut::<8>();
        let ((base, base_rest), (tau, tau_rest)) = (base.as_chunks::<8>(), tau.as_chunks::<8>());
        for (((out, base), tau), &bits) in out.iter_mut().zip(base).zip(tau).zip(bits) {
            for i in 0..8 {
                let sum = base[i] + scale * tau[i];
                out[i] = if bits & (1 << i) == 0 { base[i] } else { sum };
            }
        }
        let last = bits.get(base.len()).copied().unwrap_or(0);
        for (i, ((out, base), tau)) in out_rest.iter_mut().zip(base_rest).zip(tau_rest).enumerate() {
            *out = if last & (1 << i) == 0 { *base } else { base + scale * tau };
        }
    }
}

#[inline(always)]
fn bf16(bytes: &[u8], i: usize) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])) << 16)
}

vectorize! {
    /// As [`apply`], with Θ₀ and τ as little-endian bf16: decoded and added in one pass, each byte touched once. Switching
    /// tasks is bound by memory, and this is its inner loop.
    pub fn apply_bf16(base: &[u8], tau: &[u8], bits: &[u8], scale: f32, out: &mut [f32]) {
        let (groups, rest) = out.as_chunks_mut::<8>();
        let ((base, base_rest), (tau, tau_rest)) = (base.as_chunks::<16>(), tau.as_chunks::<16>());
        for (((out, base), tau), &bits) in groups.iter_mut().zip(base).zip(tau).zip(bits) {
            for (i, out) in out.iter_mut().enumerate() {
                let base = bf16(base, i);
                let sum = base + scale * bf16(tau, i);
                *out = if bits & (1 << i) == 0 { base } else { sum };
            }
        }
        let last = bits.get(base.len()).copied().unwrap_or(0);
        for (i, out) in rest.iter_mut().enumerate() {
            let base = bf16(base_rest, i);
            *out = if last & (1 << i) == 0 { base } else { base + scale * bf16(tau_rest, i) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bit_order_is_little() {
        let mask = BitMask::from_bools(&[true, false, false, true, false, false, false, false, false, true]);
        assert_eq!(mask.as_bytes(), &[0b0000_1001, 0b10]);
    }

    #[test]
    fn tail_bits_are_cleared_and_length_is_checked() {
        let mask = BitMask::from_bytes(3, vec![0xff]).unwrap();
        assert_eq!(mask.as_bytes(), &[0b111]);
        assert_eq!(BitMask::from_bytes(9, vec![0]), None);
    }

    proptest! {
        #[test]
        fn counts_equal_those_of_bools(bits in proptest::collection::vec(any::<(bool, bool)>(), 0..200)) {
            let (a, b): (Vec<bool>, Vec<bool>) = bits.iter().copied().unzip();
            let (mask_a, mask_b) = (BitMask::from_bools(&a), BitMask::from_bools(&b));
            prop_assert_eq!(mask_a.count_ones(), a.iter().filter(|&&x| x).count());
            let both = bits.iter().filter(|(a, b)| *a && *b).count();
            prop_assert_eq!(count_both(mask_a.as_bytes(), mask_b.as_bytes()), both);
            for (i, &bit) in a.iter().enumerate() {
                prop_assert_eq!(mask_a.get(i), bit);
            }
            let flags: Vec<u8> = a.iter().map(|&x| u8::from(x)).collect();
            let mut packed = vec![0xaa; BitMask::byte_len(a.len())];
            pack(&flags, &mut packed);
            prop_assert_eq!(&packed, mask_a.as_bytes());
        }

        #[test]
        fn one_pass_over_bf16_is_decoding_and_applying(
            elements in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<bool>()), 0..70), scale in -2f32..2.0,
        ) {
            // Finite: 0x7f is an exponent below the highest.
            let stored = |x: u16| if x & 0x7f80 == 0x7f80 { x & 0xff00 } else { x };
            let stored: Vec<(u16, u16)> = elements.iter().map(|e| (stored(e.0), stored(e.1))).collect();
            let bits: Vec<bool> = elements.iter().map(|e| e.2).collect();
            let mask = BitMask::from_bools(&bits);
            let bytes = |values: &mut dyn Iterator<Item = u16>| values.flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
            let (base, tau) = (bytes(&mut stored.iter().map(|s| s.0)), bytes(&mut stored.iter().map(|s| s.1)));
            let decoded = |bytes: &[u8]| {
                let mut values = vec![0.0; bytes.len() / 2];
                crate::convert::decode(crate::Dtype::BF16, bytes, &mut values).unwrap();
                values
            };
            let (mut expected, mut out) = (vec![9.0; bits.len()], vec![9.0; bits.len()]);
            apply(&decoded(&base), &decoded(&tau), mask.as_bytes(), scale, &mut expected);
            apply_bf16(&base, &tau, mask.as_bytes(), scale, &mut out);
            let to_bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(to_bits(&out), to_bits(&expected));
        }

        #[test]
        fn apply_adds_only_where_kept(elements in proptest::collection::vec((-2f32..2.0, -2f32..2.0, any::<bool>()), 0..70)) {
            let base: Vec<f32> = elements.iter().map(|e| e.0).collect();
            let tau: Vec<f32> = elements.iter().map(|e| e.1).collect();
            let bits: Vec<bool> = elements.iter().map(|e| e.2).collect();
            let mut out = vec![9.0; base.len()];
            apply(&base, &tau, BitMask::from_bools(&bits).as_bytes(), 0.5, &mut out);
            for i in 0..out.len() {
                prop_assert_eq!(out[i], if bits[i] { base[i] + 0.5 * tau[i] } else { base[i] });
            }
        }
    }
}
