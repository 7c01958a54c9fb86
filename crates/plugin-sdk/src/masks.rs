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

/// Packs flags into bits, eight a byte, first flag in the lowest bit. A tile of up to 64 at a time becomes one machine
/// word, which is how processors with mask registers do it in one instruction.
///
/// # Panics
/// When `bits` is shorter than `ceil(flags.len() / 8)`.
#[inline(always)]
pub fn pack_bits(flags: &[bool], bits: &mut [u8]) {
    let (words, rest) = flags.as_chunks::<64>();
    for (word, flags) in words.iter().enumerate() {
        let packed = flags.iter().enumerate().fold(0, |word, (i, &flag)| word | u64::from(flag) << i);
        bits[8 * word..8 * word + 8].copy_from_slice(&packed.to_le_bytes());
    }
    for (byte, flags) in bits[8 * words.len()..].iter_mut().zip(rest.chunks(8)) {
        *byte = flags.iter().enumerate().fold(0, |byte, (i, &flag)| byte | u8::from(flag) << i);
    }
}
