use half::bf16;
use skillweld_simd::{prefetch, vectorize};

use crate::rounding::rounded;

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

vectorize! {
    /// As [`apply`], with Θ₀ and τ as little-endian bf16: decoded and added in one pass, each byte touched once. Switching
    /// tasks is bound by memory, and this is its inner loop.
    pub fn apply_bf16(base: &[u8], tau: &[u8], bits: &[u8], scale: f32, out: &mut [f32]) {
        let (lines, rest) = out.as_chunks_mut::<LANES>();
        let whole = lines.len();
        let ((base, base_rest), (tau, tau_rest)) = (base.as_chunks(), tau.as_chunks());
        for (((out, base), tau), bits) in lines.iter_mut().zip(base).zip(tau).zip(bits.as_chunks().0) {
            fetch(base, tau);
            for (i, out) in out.iter_mut().enumerate() {
                *out = masked_sum(half(base, i), half(tau, i), bit(*bits, i), scale);
            }
        }
        let (base, tau, bits) = last_line(base_rest, tau_rest, &bits[LANES / 8 * whole..]);
        for (i, out) in rest.iter_mut().enumerate() {
            *out = masked_sum(half(&base, i), half(&tau, i), bit(bits, i), scale);
        }
    }

    /// As [`apply_bf16`], rounded back to bf16: to nearest, ties to even; NaN stays NaN.
    pub fn apply_bf16_narrow(base: &[u8], tau: &[u8], bits: &[u8], scale: f32, out: &mut [bf16]) {
        let (lines, rest) = out.as_chunks_mut::<LANES>();
        let whole = lines.len();
        let ((base, base_rest), (tau, tau_rest)) = (base.as_chunks(), tau.as_chunks());
        for (((out, base), tau), bits) in lines.iter_mut().zip(base).zip(tau).zip(bits.as_chunks().0) {
            fetch(base, tau);
            *out = narrow_line(base, tau, *bits, scale);
        }
        let (base, tau, bits) = last_line(base_rest, tau_rest, &bits[LANES / 8 * whole..]);
        let last = narrow_line(&base, &tau, bits, scale);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Elements of a cache line of bf16, whose bits are four bytes of a mask.
const LANES: usize = 32;
/// Bytes of [`LANES`] elements.
const LINE: usize = 2 * LANES;

/// How far ahead of its use memory is asked for. The processor looks ahead by itself only as far as it has room for
/// instructions that wait for data, and here that is a few lines.
const AHEAD_BYTES: usize = 2048;

#[inline(always)]
fn fetch(base: &[u8; LINE], tau: &[u8; LINE]) {
    prefetch(base, AHEAD_BYTES);
    prefetch(tau, AHEAD_BYTES);
}

/// Element i of a line.
#[inline(always)]
fn half(line: &[u8; LINE], i: usize) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([line[2 * i], line[2 * i + 1]])) << 16)
}

#[inline(always)]
fn bit(bits: [u8; LANES / 8], i: usize) -> bool {
    u32::from_le_bytes(bits) & (1 << i) != 0
}

/// base + scale · τ, or base. Chosen by bits, for of an `if` the compiler makes branches, half of them guessed wrongly.
#[inline(always)]
fn masked_sum(base: f32, tau: f32, keep: bool, scale: f32) -> f32 {
    let (base, sum) = (base.to_bits(), (base + scale * tau).to_bits());
    let keep = 0u32.wrapping_sub(u32::from(keep));
    f32::from_bits((sum & keep) | (base & !keep))
}

/// A line in words of two elements, lower and upper half, as they lie: nothing has to change its place.
#[inline(always)]
fn narrow_line(base: &[u8; LINE], tau: &[u8; LINE], bits: [u8; LANES / 8], scale: f32) -> [bf16; LANES] {
    const UPPER: u32 = 0xffff_0000;
    let word = |line: &[u8; LINE], i: usize| {
        u32::from_le_bytes([line[4 * i], line[4 * i + 1], line[4 * i + 2], line[4 * i + 3]])
    };
    let sum = |base: u32, tau: u32, keep: bool| {
        rounded(masked_sum(f32::from_bits(base), f32::from_bits(tau), keep, scale).to_bits())
    };
    let mut words = [0; LANES / 2];
    for (i, out) in words.iter_mut().enumerate() {
        let (base, tau) = (word(base, i), word(tau, i));
        let lower = sum(base << 16, tau << 16, bit(bits, 2 * i));
        let upper = sum(base & UPPER, tau & UPPER, bit(bits, 2 * i + 1));
        *out = (lower >> 16) | (upper & UPPER);
    }
    std::array::from_fn(|i| bf16::from_bits((words[i / 2] >> (16 * (i % 2))) as u16))
}

/// What is left over whole lines, with zeros behind it.
fn last_line(base: &[u8], tau: &[u8], bits: &[u8]) -> ([u8; LINE], [u8; LINE], [u8; LANES / 8]) {
    let mut line = ([0; LINE], [0; LINE], [0; LANES / 8]);
    let copy = |to: &mut [u8], from: &[u8]| to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    copy(&mut line.0, base);
    copy(&mut line.1, tau);
    copy(&mut line.2, bits);
    line
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
            elements in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<bool>()), 0..150), scale in -2f32..2.0,
        ) {
            // Finite: an infinity may make a NaN, whose sign nobody promises.
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
            let mut rounded = vec![bf16::ZERO; bits.len()];
            apply_bf16_narrow(&base, &tau, mask.as_bytes(), scale, &mut rounded);
            prop_assert_eq!(rounded, expected.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
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
