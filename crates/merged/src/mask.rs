use std::borrow::Cow;
use std::ops::Range;

use skillweld_tensor::{BitMask, count_ones, pack_flags};

/// A task mask M_k over one tensor, as it lies in its file.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    bytes: &'a [u8],
    len: usize,
    packed: bool,
}

impl<'a> Mask<'a> {
    /// Eight elements a byte, element 8j + i in bit i of byte j. `None` unless `bytes` holds `len` bits.
    pub(crate) fn packed(bytes: &'a [u8], len: usize) -> Option<Self> {
        (bytes.len() == BitMask::byte_len(len)).then_some(Self { bytes, len, packed: true })
    }

    /// One element a byte, as `torch.bool`.
    pub(crate) fn flags(bytes: &'a [u8]) -> Self {
        Self { bytes, len: bytes.len(), packed: false }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a mask of no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bits of a range of elements, element 8j + i of it in bit i of byte j. Borrowed from the file where it keeps
    /// bits, packed into `scratch` where it keeps bytes. Bits past the range mean nothing.
    ///
    /// # Panics
    /// When `range` reaches past the end or starts within a byte.
    pub fn bits<'b>(&self, range: Range<usize>, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        assert!(range.start.is_multiple_of(8), "bits are taken from whole bytes on");
        if self.packed {
            return &self.bytes[range.start / 8..range.end.div_ceil(8)];
        }
        scratch.resize(BitMask::byte_len(range.len()), 0);
        pack_flags(&self.bytes[range], scratch);
        scratch
    }

    /// The whole mask, packed; bits past the end are zero.
    pub fn to_packed(&self) -> Cow<'a, [u8]> {
        let clean = |bytes: &[u8]| {
            self.len.is_multiple_of(8) || bytes.last().is_none_or(|b| b >> (self.len % 8) == 0)
        };
        if self.packed && clean(self.bytes) {
            return Cow::Borrowed(self.bytes);
        }
        let mut scratch = Vec::new();
        let mut bytes = self.bits(0..self.len, &mut scratch).to_vec();
        if let (Some(last), 1..) = (bytes.last_mut(), self.len % 8) {
            *last &= (1 << (self.len % 8)) - 1;
        }
        Cow::Owned(bytes)
    }

    /// Number of elements kept.
    pub fn count_ones(&self) -> usize {
        count_ones(&self.to_packed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_forms_give_the_same_bits(flags in proptest::collection::vec(any::<bool>(), 0..90), from in 0..12usize) {
            let reference = BitMask::from_bools(&flags);
            // A file may hold anything in the bits past the end.
            let mut dirty = reference.as_bytes().to_vec();
            if let (Some(last), 1..) = (dirty.last_mut(), flags.len() % 8) {
                *last |= 0xff << (flags.len() % 8);
            }
            let bytes: Vec<u8> = flags.iter().map(|&flag| u8::from(flag)).collect();
            for mask in [Mask::packed(&dirty, flags.len()).unwrap(), Mask::flags(&bytes)] {
                prop_assert_eq!(&*mask.to_packed(), reference.as_bytes());
                prop_assert_eq!(mask.count_ones(), reference.count_ones());
                let range = (from * 8).min(flags.len() / 8 * 8)..flags.len();
                let mut scratch = vec![0xaa; 3];
                let bits = mask.bits(range.clone(), &mut scratch);
                for (i, element) in range.enumerate() {
                    prop_assert_eq!(bits[i / 8] >> (i % 8) & 1 == 1, flags[element]);
                }
            }
        }
    }

    #[test]
    fn a_mask_of_wrong_length_is_none() {
        assert!(Mask::packed(&[0; 2], 8).is_none());
        assert!(Mask::packed(&[0; 2], 9).is_some());
    }
}
