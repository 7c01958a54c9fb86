//! Device code of a method: the extension `skillweld.cuda/1`, and what its kernel is handed.

use crate::Str;

/// [`Cuda::extension`]: what this version of the boundary calls device code. A host ignores what it does not know.
pub const CUDA_EXTENSION: &str = "skillweld.cuda/1";

/// A kernel that does what [`Method::run`](crate::Method::run) does, bit for bit. Since 1.2; only for methods with
/// [`ELEMENTWISE`](crate::flags::ELEMENTWISE). `observe` and `rescale` stay on the CPU.
///
/// The kernel takes one parameter, a pointer to a [`CudaCall`] in device memory, and is launched in blocks of `threads`
/// threads in one dimension, in a grid of any size: it loops over groups of 8 elements. It gets no scratch and cannot
/// fail: a method refuses in `plan` what it cannot compute.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Cuda {
    /// Size in bytes of this struct as the author compiled it.
    pub size: u32,
    /// Threads of a block: a multiple of 32, at most 1024.
    pub threads: u32,
    /// [`CUDA_EXTENSION`].
    pub extension: Str,
    /// A fatbin, as nvcc writes it: machine code for GPUs that the author knows, PTX for those to come. Lives as long as
    /// the library.
    pub image: *const u8,
    /// Its length in bytes.
    pub image_len: u64,
    /// Name of the kernel in it: letters, digits and `_`.
    pub run: Str,
}

// SAFETY: read-only; the image lives as long as the library.
unsafe impl Send for Cuda {}
// SAFETY: as above: read-only.
unsafe impl Sync for Cuda {}

/// What a kernel is handed: a [`Call`](crate::Call) whose pointers are of device memory. Read-only but for `out` and the
/// masks. Arrays begin on 16 bytes; those of `len` f32 may be read, and `out` written, up to the next multiple of 8, where
/// the values mean nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CudaCall {
    /// Size in bytes of this struct as the host compiled it.
    pub size: u64,
    /// Elements in this block.
    pub len: u64,
    /// First element of this block within the flattened tensor. A multiple of 8.
    pub offset: u64,
    /// Elements of the whole tensor.
    pub numel: u64,
    /// Differs for every tensor and recipe seed; the same for every block of a tensor.
    pub seed: u64,
    /// Number of experts.
    pub expert_count: u64,
    /// `expert_count` pointers to `len` values each: task vectors or weights (see [`flags`](crate::flags)).
    pub experts: *const *const f32,
    /// Θ₀, `len` values; null unless [`NEEDS_BASE`](crate::flags::NEEDS_BASE).
    pub base: *const f32,
    /// Mask methods: the merged task vector τ, `len` values. Else null.
    pub merged: *const f32,
    /// Totals of all passes, one pass after the other.
    pub totals: *const f64,
    /// Length of `totals`.
    pub totals_len: u64,
    /// One value each for the parameters without `x-per-expert`.
    pub global: *const f64,
    /// Length of `global`.
    pub global_count: u64,
    /// Values of the j-th `x-per-expert` parameter for expert k at `per_expert[j * expert_count + k]`.
    pub per_expert: *const f64,
    /// Number of `x-per-expert` parameters.
    pub per_expert_count: u64,
    /// Merge methods: `len` values to fill. Else null.
    pub out: *mut f32,
    /// Mask methods: `expert_count` pointers to `ceil(len / 8)` zeroed bytes; element 8j + i of the block is bit i of byte
    /// j, and bits past the last element are of no account. Else null.
    pub masks: *const *mut u8,
}
