//! What operations over many tensors share: tables of pieces, and the names of kernels by dtype.

use skillweld_tensor::{BitMask, Dtype};

use crate::error::require;
use crate::{GpuError, Result, Target};

/// Elements a thread takes at once.
pub(super) const EIGHT: usize = 8;

/// The end of a kernel's name that says what it stores.
pub(super) fn suffix(operation: &'static str, dtype: Dtype) -> Result<&'static str> {
    match dtype {
        Dtype::BF16 => Ok("bf16"),
        Dtype::F16 => Ok("f16"),
        Dtype::F32 => Ok("f32"),
        other => Err(GpuError::Operands {
            operation,
            problem: format!("{other} elements; kernels compute with BF16, F16 and F32"),
        }),
    }
}

/// Refuses an operand that does not have this dtype and length, or does not begin on 16 bytes.
pub(super) fn check(
    operation: &'static str,
    name: &str,
    operand: (u64, Dtype, usize),
    dtype: Dtype,
    numel: usize,
) -> Result<()> {
    let (address, is, has) = operand;
    require(is == dtype && has == numel, operation, || {
        format!("`{name}` is {has} elements of {is}, and {numel} of {dtype} are needed")
    })?;
    require(address.is_multiple_of(16), operation, || format!("`{name}` does not begin on 16 bytes"))
}

/// Refuses what is no packed mask of `numel` elements. Kernels read and write masks byte by byte, from anywhere.
pub(super) fn check_mask(operation: &'static str, (dtype, has): (Dtype, usize), numel: usize) -> Result<()> {
    let bytes = BitMask::byte_len(numel);
    require(dtype == Dtype::U8 && has == bytes, operation, || {
        format!("a mask is {has} elements of {dtype}, and {bytes} of U8 are needed")
    })
}

/// A table of 64-bit words as bytes, as kernels read structs of pointers and counts.
pub(super) fn table(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Blocks of a launch, if a grid can have as many.
pub(super) fn grid(operation: &'static str, blocks: usize) -> Result<u32> {
    i32::try_from(blocks).map(i32::unsigned_abs).map_err(|_| GpuError::Operands {
        operation,
        problem: format!("{blocks} blocks are more than a launch can have"),
    })
}

/// Bytes in a target's memory, for a table that a kernel reads.
pub(super) fn uploaded<T: Target>(target: &T, bytes: &[u8]) -> Result<T::Memory> {
    let mut memory = target.allocate(bytes.len())?;
    target.upload(&mut memory, 0, bytes)?;
    Ok(memory)
}
