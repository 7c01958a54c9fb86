//! The binary boundary between Skillweld and a merge-method plugin: `repr(C)` structs, nothing else.
//!
//! A plugin is a shared library that exports one *data* symbol, [`SYMBOL`], of type [`Plugin`]. The same structs for C
//! authors stand in `include/skillweld_plugin.h`, what kernels see in `include/skillweld_cuda.h`; `tests/header.rs` keeps the two equal. Rust authors use the
//! `plugin-sdk` crate and never see this one.
//!
//! # Rules of the boundary
//! - **Versions.** The symbol's name carries the major version. Within it structs only grow at the end. Whoever reads
//!   a struct copies `min(their size, our size)` bytes into a zeroed local, so either side may be the newer one.
//! - **Memory.** The host allocates inputs, outputs, masks and scratch. Nothing a plugin returns is ever freed.
//! - **Errors.** A function returns a status and pushes its message through [`Host::error`].
//! - **Threads.** Any function may be called from several threads at once; a plugin starts none and keeps no state.
//! - **Purity.** Results depend on the [`Call`] alone. Statistics over more than one block are a map-reduce: `observe`
//!   adds to `f64` sums, the host adds those up in a fixed order and hands the totals to the next pass and to `run`.
//! - **Panics and exceptions** never cross the boundary (the SDK catches them).

#![allow(unsafe_code, reason = "raw pointers in repr(C) structs need Sync to stand in statics")]

mod cuda;
mod layout;

pub use cuda::{CUDA_EXTENSION, Cuda, CudaCall};
pub use layout::LAYOUT_HASH;

/// Name of the exported data symbol; it carries the major version.
pub const SYMBOL: &str = "skillweld_plugin_v1";
/// First field of [`Plugin`]: the bytes `SKILLWLD` read as a little-endian integer.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SKILLWLD");
/// Minor version of this boundary: counts the times a struct has grown.
pub const ABI_MINOR: u32 = 3;
/// Most `observe` passes a method may ask for.
pub const MAX_PASSES: usize = 8;

/// [`Method::kind`]: experts → one tensor or one task vector.
pub const KIND_MERGE: u32 = 1;
/// [`Method::kind`]: expert task vectors and the merged one → one bit an element and expert.
pub const KIND_MASK: u32 = 2;

/// Values of [`Method::flags`].
pub mod flags {
    /// Works on task vectors: the host hands over τ_k = Θ_k − Θ₀ and adds Θ₀ to what comes out. Needs a base model.
    /// Without it a method sees the weights Θ_k themselves and its output is the merged tensor.
    pub const TASK_VECTORS: u64 = 1 << 0;
    /// Reads [`Call::base`](crate::Call::base): the host hands over Θ₀ (f32). Needs a base model.
    pub const NEEDS_BASE: u64 = 1 << 1;
    /// Every element of the output depends on the same element of the inputs (and on totals): the host may cut
    /// tensors into blocks. Exactly one of this, [`ROWS`] and [`MATRIX`] is set.
    pub const ELEMENTWISE: u64 = 1 << 2;
    /// Wants whole matrices, never blocks; a merge averages tensors of other than two dimensions, but for [`ANY_SHAPE`].
    pub const MATRIX: u64 = 1 << 3;
    /// Accepts experts as factors B·A ([`Tensor::b`](crate::Tensor::b)). Without it the host multiplies them out.
    pub const LOW_RANK: u64 = 1 << 4;
    /// The result does not depend on [`Call::seed`](crate::Call::seed).
    pub const DETERMINISTIC: u64 = 1 << 5;
    /// The merge makes sense only with the masks of [`Method::mask`](crate::Method::mask), or a mask method gives a
    /// rescaler: `rescale` is called after the last pass.
    pub const EMITS_MASKS: u64 = 1 << 6;
    /// NaN and infinity in an input come out as NaN or infinity, never as a plausible number. Without it they may
    /// come out as anything.
    pub const PROPAGATES_NON_FINITE: u64 = 1 << 7;
    /// With [`TASK_VECTORS`]: where a recipe has no base model the method sees weights and gives weights. An older host
    /// asks for a base model. Since 1.3.
    pub const OPTIONAL_BASE: u64 = 1 << 8;
    /// Every row of the output depends on the same row of the inputs (and on totals): the host may cut tensors between
    /// rows. A row is what lies under one index of the first axis; a vector is one row. Since 1.3; older hosts refuse it.
    pub const ROWS: u64 = 1 << 9;
    /// Merge methods: wants statistics of every expert ([`Tensor::statistics`](crate::Tensor::statistics)). The host takes
    /// them from files that the user names, and averages tensors that no expert has statistics of. Since 1.3; an older
    /// host hands over null pointers.
    pub const NEEDS_STATISTICS: u64 = 1 << 10;
    /// With [`MATRIX`]: takes tensors of other than two dimensions too, as whole. Since 1.3; an older host averages them.
    pub const ANY_SHAPE: u64 = 1 << 11;
}

/// Values of [`Method::laws`]: algebraic laws a method claims to keep, checked by the conformance kit (`plugin-check`).
pub mod laws {
    /// Identical experts give that expert (with default parameters).
    pub const IDENTITY: u64 = 1 << 0;
    /// Reordering the experts, with their parameters, changes nothing beyond rounding.
    pub const PERMUTATION: u64 = 1 << 1;
    /// With two experts, parameter `t` = 0 gives the first (the base, where one is needed) and `t` = 1 the second.
    pub const ENDPOINTS: u64 = 1 << 2;
    /// merge(x + y) = merge(x) + merge(y) for every parameter value: linear in the experts.
    pub const LINEAR: u64 = 1 << 3;
    /// merge(c·x) = c·merge(x) for c > 0.
    pub const HOMOGENEOUS: u64 = 1 << 4;
    /// One more expert whose task vector is zero changes nothing but a possible normalisation: with every task vector
    /// zero the result is zero.
    pub const ZERO: u64 = 1 << 5;
    /// Every nonzero element has the sign of the (weighted) sum of the experts' elements that took part.
    pub const SIGN_AGREEMENT: u64 = 1 << 6;
    /// Mask methods: a single expert masked against itself keeps all its nonzero elements.
    pub const KEEPS_ITSELF: u64 = 1 << 7;
}

/// What every function returns.
pub mod status {
    /// Done.
    pub const OK: i32 = 0;
    /// Failed; the message went to [`Host::error`](crate::Host::error).
    pub const ERROR: i32 = 1;
    /// The plugin panicked; the SDK caught it and pushed the message.
    pub const PANIC: i32 = 2;
    /// Stopped because [`Host::cancelled`](crate::Host::cancelled) said so.
    pub const CANCELLED: i32 = 3;
}

/// [`Plan::scope`]: totals are summed over each tensor by itself.
pub const SCOPE_TENSOR: u32 = 1;
/// [`Plan::scope`]: totals are summed over all tensors of the merge.
pub const SCOPE_GLOBAL: u32 = 2;

/// Borrowed UTF-8 text, not NUL-terminated. Valid as long as the struct that holds it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Str {
    /// First byte; may be null when `len` is 0.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
}

// SAFETY: a `Str` is a read-only view; whoever makes one keeps the text alive and unchanged (see its docs).
unsafe impl Send for Str {}
// SAFETY: as above: read-only.
unsafe impl Sync for Str {}

impl Str {
    /// Points to static text.
    pub const fn new(text: &'static str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }

    /// Points to text that the caller keeps alive for as long as the other side may read it.
    pub fn borrow(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }
}

/// What the exported symbol holds.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// [`MAGIC`].
    pub magic: u64,
    /// Size in bytes of this struct as the author compiled it.
    pub size: u32,
    /// [`ABI_MINOR`] as the author compiled it.
    pub abi_minor: u32,
    /// [`LAYOUT_HASH`] as the author compiled it: sizes and offsets of version 1.0.
    pub layout_hash: u64,
    /// Number of methods.
    pub method_count: u32,
    /// Zero.
    pub reserved: u32,
    /// The `index`-th method, `index < method_count`; it lives as long as the library.
    pub method: Option<unsafe extern "C" fn(index: u32) -> *const Method>,
}

/// One merge or mask method.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// Size in bytes of this struct as the author compiled it.
    pub size: u32,
    /// [`KIND_MERGE`] or [`KIND_MASK`].
    pub kind: u32,
    /// The name in recipes: `[a-z0-9_]+`, unique per kind.
    pub id: Str,
    /// Version of the method, such as `1.0.0`.
    pub version: Str,
    /// One line: what it does.
    pub summary: Str,
    /// Paper or source to cite.
    pub citation: Str,
    /// JSON Schema of the parameters, an object. Each property has `type` (`number`, `integer`, `boolean`, or `string`
    /// with `enum`), optionally `minimum`, `maximum`, `exclusiveMinimum`, `default`, `description`, and
    /// `"x-per-expert": true` when each expert may have its own, `"x-no-effect": true` when the method takes it and does
    /// nothing with it: the user is warned. No `default` means required.
    pub schema: Str,
    /// With [`flags::EMITS_MASKS`] on a merge method: id of the mask method that belongs to it. Else empty.
    pub mask: Str,
    /// Fewest experts.
    pub min_experts: u32,
    /// Most experts; 0 = no limit.
    pub max_experts: u32,
    /// Bits of [`flags`].
    pub flags: u64,
    /// Bits of [`laws`].
    pub laws: u64,
    /// Fills in the passes for these parameters. Null = no `observe` passes, no scratch.
    pub plan: Option<unsafe extern "C" fn(host: *const Host, params: *const Params, plan: *mut Plan) -> i32>,
    /// Adds one block's statistics of pass `pass` to `sums` (zeroed by the host, `plan.sums_len[pass]` long). The
    /// totals of earlier passes stand in [`Call::totals`]. May be null without passes.
    pub observe: Option<unsafe extern "C" fn(call: *const Call, pass: u32, sums: *mut f64) -> i32>,
    /// Merge: fills [`Call::out`]. Mask: fills [`Call::masks`].
    pub run: Option<unsafe extern "C" fn(call: *const Call) -> i32>,
    /// Mask methods with [`flags::EMITS_MASKS`]: fills one rescaler an expert from [`Call::totals`]; no tensor data.
    pub rescale: Option<unsafe extern "C" fn(call: *const Call, rescalers: *mut f32) -> i32>,
    /// Device code for `run`; null without. It lives as long as the library. Since 1.2.
    pub cuda: *const Cuda,
}

// SAFETY: read-only: text, functions and device code that live as long as the library.
unsafe impl Send for Method {}
// SAFETY: as above: read-only.
unsafe impl Sync for Method {}

/// Callbacks into the host. Each may be called from the thread that runs the plugin's function, during the call only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Size in bytes of this struct as the host compiled it.
    pub size: u64,
    /// Handed back to every callback.
    pub context: *mut core::ffi::c_void,
    /// Takes the message of a failure; the last one before a non-zero status counts.
    pub error: Option<unsafe extern "C" fn(context: *mut core::ffi::c_void, message: Str)>,
    /// Takes a line for the log: 1 error, 2 warning, 3 info, 4 debug.
    pub log: Option<unsafe extern "C" fn(context: *mut core::ffi::c_void, level: u32, message: Str)>,
    /// Takes the fraction done (0..=1) of a long call.
    pub progress: Option<unsafe extern "C" fn(context: *mut core::ffi::c_void, fraction: f64)>,
    /// Non-zero when the user wants to stop: return [`status::CANCELLED`] soon.
    pub cancelled: Option<unsafe extern "C" fn(context: *mut core::ffi::c_void) -> i32>,
    /// Told in `observe` that this pass has nothing to add, here or in any other block, because the totals of earlier
    /// passes settle what it is for: the host may leave out what remains of it, and takes zeros for its sums. Since 1.1;
    /// null in older hosts.
    pub settled: Option<unsafe extern "C" fn(context: *mut core::ffi::c_void)>,
    /// Takes, in `run`, the name of the way by which the method computes this tensor, `[a-z0-9_]+`, such as `factored` or
    /// `dense`; the last one counts. Since 1.3; null in older hosts.
    pub path: Option<unsafe extern "C" fn(context: *mut core::ffi::c_void, name: Str)>,
}

/// Parameters as numbers, in the order in which the schema lists them: booleans are 0 or 1, strings are the position
/// in `enum`. The host has checked types and ranges and filled in defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// Size in bytes of this struct as the host compiled it.
    pub size: u64,
    /// One value each for the parameters without `x-per-expert`.
    pub global: *const f64,
    /// Length of `global`.
    pub global_count: u64,
    /// Values of the j-th `x-per-expert` parameter for expert k at `per_expert[j * expert_count + k]`.
    pub per_expert: *const f64,
    /// Number of `x-per-expert` parameters.
    pub per_expert_count: u64,
    /// Number of experts.
    pub expert_count: u64,
}

/// How a method wants to be run with given parameters. Zeroed by the host before `plan`, but for `size`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Size in bytes of this struct as the host compiled it.
    pub size: u64,
    /// Number of `observe` passes, at most [`MAX_PASSES`].
    pub passes: u32,
    /// [`SCOPE_TENSOR`] or [`SCOPE_GLOBAL`]; ignored without passes.
    pub scope: u32,
    /// Length of the sums of each pass.
    pub sums_len: [u64; MAX_PASSES],
    /// f32 of scratch wanted for each element of a block.
    pub scratch_per_element: u64,
    /// For each pass: one element of so many is enough for it, taken anywhere; 0 or 1: it must see all. The host may show
    /// such a pass shorter blocks with gaps between them, or everything. Since 1.1.
    pub sample: [u64; MAX_PASSES],
    /// Non-zero: with these parameters an elementwise method wants each tensor in one piece, of whatever dimensions, because
    /// it needs its rows or the order of its elements. Since 1.3.
    pub whole: u64,
}

/// One expert's values in a block: dense, or as factors when the method has [`flags::LOW_RANK`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Tensor {
    /// [`Call::len`] values; null when the expert comes as factors.
    pub dense: *const f32,
    /// B, m × rank, row-major, any scale folded in; null when dense.
    pub b: *const f32,
    /// A, rank × n, row-major; null when dense.
    pub a: *const f32,
    /// Inner dimension of the factors; 0 when dense.
    pub rank: u64,
    /// With [`flags::NEEDS_STATISTICS`]: what the expert's owner measured of this tensor, else null. For
    /// [`flags::ELEMENTWISE`] and [`flags::ROWS`] one value an element, [`Call::len`] of them; for [`flags::MATRIX`] and a tensor of m × n the
    /// whole n × n matrix of its inputs, row-major. Finite; nothing else is checked. Since 1.3.
    pub statistics: *const f32,
    /// Length of `statistics`.
    pub statistics_len: u64,
}

/// One call of `observe`, `run` or `rescale`. All values are f32, row-major.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Size in bytes of this struct as the host compiled it.
    pub size: u64,
    /// Callbacks; never null.
    pub host: *const Host,
    /// Parameters; never null.
    pub params: *const Params,
    /// Name of the tensor.
    pub key: Str,
    /// Shape of the whole tensor.
    pub shape: *const u64,
    /// Length of `shape`.
    pub ndim: u64,
    /// Elements of the whole tensor.
    pub numel: u64,
    /// First element of this block within the flattened tensor. A multiple of 8.
    pub offset: u64,
    /// Elements in this block. Whole rows for [`flags::ROWS`], the whole tensor for [`flags::MATRIX`].
    pub len: u64,
    /// Differs for every tensor and recipe seed; the same for every block of a tensor.
    pub seed: u64,
    /// Number of experts.
    pub expert_count: u64,
    /// First of `expert_count` inputs, `expert_stride` bytes apart: task vectors or weights (see [`flags`]).
    pub experts: *const Tensor,
    /// Bytes from one `Tensor` to the next (the host's `sizeof`).
    pub expert_stride: u64,
    /// Θ₀, `len` values; null unless [`flags::NEEDS_BASE`].
    pub base: *const f32,
    /// Mask methods: the merged task vector τ, `len` values. Else null.
    pub merged: *const f32,
    /// Totals of all finished passes, one pass after the other.
    pub totals: *const f64,
    /// Length of `totals`.
    pub totals_len: u64,
    /// Merge methods, in `run`: `len` values to fill. Else null.
    pub out: *mut f32,
    /// Mask methods, in `run`: `expert_count` pointers to `ceil(len / 8)` zeroed bytes; element 8j + i of the block is
    /// bit i of byte j. Else null.
    pub masks: *const *mut u8,
    /// `plan.scratch_per_element * len` values of unspecified content. Null when none was asked for.
    pub scratch: *mut f32,
    /// Length of `scratch`.
    pub scratch_len: u64,
}
