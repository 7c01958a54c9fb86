//! Reading what stands behind the boundary's pointers.

use core::mem::{MaybeUninit, size_of};

use skillweld_plugin_abi as abi;

/// A slice that C may describe by a null pointer and a length of 0.
///
/// # Safety
/// `ptr` points to `len` initialised values that nobody writes during `'a`, or is null with any `len`.
pub(crate) unsafe fn slice<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { core::slice::from_raw_parts(ptr, len) }
}

/// As [`slice`], to write.
///
/// # Safety
/// As [`slice`]; and nobody else reads or writes the values during `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(ptr: *mut T, len: usize) -> &'a mut [T] {
    if ptr.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(ptr, len) }
}

/// Text of the host. What is not UTF-8 is refused rather than believed.
///
/// # Safety
/// `text` holds a valid pointer for `'a`, or a null one.
pub(crate) unsafe fn text<'a>(text: abi::Str) -> &'a str {
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice(text.ptr, text.len) };
    core::str::from_utf8(bytes).unwrap_or("?")
}

/// Structs of the boundary for which all-zero bytes are a value (null pointers, no callbacks, zero counts).
///
/// # Safety
/// Exactly that.
pub(crate) unsafe trait Zeroable: Copy {}
// SAFETY: a size, pointers and optional function pointers.
unsafe impl Zeroable for abi::Host {}
// SAFETY: counts and pointers.
unsafe impl Zeroable for abi::Params {}
// SAFETY: counts, pointers and a `Str` (pointer and length).
unsafe impl Zeroable for abi::Call {}
// SAFETY: pointers and a count.
unsafe impl Zeroable for abi::Tensor {}

/// Copies `min(size, our size)` bytes of a struct into a zeroed one: the other side may be older or newer.
///
/// # Safety
/// `size` bytes at `source` are readable.
pub(crate) unsafe fn read<T: Zeroable>(source: *const T, size: usize) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: at most `size` bytes are read and at most `size_of::<T>()` written; the two do not overlap. Every field
    // is then either zero or what the other side wrote for it, and `Zeroable` types allow both.
    unsafe {
        let bytes = size.min(size_of::<T>());
        core::ptr::copy_nonoverlapping(source.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), bytes);
        value.assume_init()
    }
}

/// Reads a struct that starts with its own size as `u64` (`Host`, `Params`, `Call`). `None` for null.
///
/// # Safety
/// `source` is null or points to such a struct.
pub(crate) unsafe fn read_sized<T: Zeroable>(source: *const T) -> Option<T> {
    if source.is_null() {
        return None;
    }
    // SAFETY: not null; the struct starts with its size and is that long.
    unsafe { Some(read(source, source.cast::<u64>().read() as usize)) }
}
