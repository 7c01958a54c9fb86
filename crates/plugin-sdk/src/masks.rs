//! Bits that a mask method fills.

use skillweld_plugin_abi as abi;

use crate::raw;

/// The masks of one block, all bits zero at first: element 8j + i of the block is bit i of byte j.
pub struct Masks<'a> {
    pointers: &'a [*mut u8],
    len: usize,
}

impl<'a> Masks<'a> {
    /// # Safety
    /// `call` is as the boundary's documentation describes it for `run` of a mask method, and valid for `'a`.
    pub(crate) unsafe fn new(call: &'a abi::Call) -> Self {
        // SAFETY: the caller's promise.
        let pointers = unsafe { raw::slice(call.masks, call.expert_count as usize) };
        Self { pointers, len: call.len as usize }
    }

    /// The packed mask of expert `k`: `ceil(len / 8)` bytes. Bits past the last element stay zero.
    pub fn expert(&mut self, k: usize) -> &mut [u8] {
        // SAFETY: that many bytes, the host's, for this call alone; `&mut self` keeps a second borrow away.
        unsafe { raw::slice_mut(self.pointers[k], self.len.div_ceil(8)) }
    }
}

/// Packs flags into bits, eight a byte, first flag in the lowest bit.
///
/// # Panics
/// When `bits` is shorter than `ceil(flags.len() / 8)`.
#[inline(always)]
pub fn pack_bits(flags: &[bool], bits: &mut [u8]) {
    // Moves flag i of eight (bit 8i) to bit 56 + i: every product 8i + (56 − 7j) is another bit, so nothing carries.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, rest) = flags.as_chunks::<8>();
    let (whole, last) = bits[..flags.len().div_ceil(8)].split_at_mut(eights.len());
    for (byte, flags) in whole.iter_mut().zip(eights) {
        *byte = (u64::from_le_bytes(flags.map(u8::from)).wrapping_mul(GATHER) >> 56) as u8;
    }
    for byte in last {
        *byte = rest.iter().enumerate().fold(0, |byte, (i, &flag)| byte | u8::from(flag) << i);
    }
}
