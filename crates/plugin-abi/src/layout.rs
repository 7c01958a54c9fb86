//! One number for the memory layout that this compiler gave the structs of version 1.0.

use core::mem::{align_of, offset_of, size_of};

use crate::{Call, Host, Method, Params, Plan, Plugin, Str, Tensor};

/// FNV-1a over sizes, alignments and offsets of every field of version 1.0.
///
/// Fields appended by later minor versions stay out of it, so it is constant within the major version for one data
/// model: it catches plugins built for another pointer width or with other packing rules.
pub const LAYOUT_HASH: u64 = hash(&[
    size_of::<usize>(),
    size_of::<Str>(),
    offset_of!(Plugin, method) + size_of::<usize>(),
    offset_of!(Method, id),
    offset_of!(Method, version),
    offset_of!(Method, summary),
    offset_of!(Method, citation),
    offset_of!(Method, schema),
    offset_of!(Method, mask),
    offset_of!(Method, min_experts),
    offset_of!(Method, flags),
    offset_of!(Method, laws),
    offset_of!(Method, plan),
    offset_of!(Method, observe),
    offset_of!(Method, run),
    offset_of!(Method, rescale),
    offset_of!(Host, error),
    offset_of!(Host, log),
    offset_of!(Host, progress),
    offset_of!(Host, cancelled),
    offset_of!(Params, global),
    offset_of!(Params, per_expert),
    offset_of!(Params, expert_count),
    offset_of!(Plan, sums_len),
    offset_of!(Plan, scratch_per_element),
    offset_of!(Tensor, rank) + size_of::<u64>(),
    offset_of!(Call, params),
    offset_of!(Call, key),
    offset_of!(Call, shape),
    offset_of!(Call, offset),
    offset_of!(Call, seed),
    offset_of!(Call, experts),
    offset_of!(Call, merged),
    offset_of!(Call, totals),
    offset_of!(Call, out),
    offset_of!(Call, masks),
    offset_of!(Call, scratch_len),
    align_of::<Call>(),
]);

const fn hash(numbers: &[usize]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < numbers.len() {
        hash = (hash ^ numbers[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}
