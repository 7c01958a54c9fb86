//! The few functions of cuBLASLt that are called, found in whatever library there is.

use std::ffi::{OsString, c_int, c_void};

use libloading::{Library, Symbol};

/// Path of the library, for who keeps it where the loader does not look.
pub const CUBLASLT_VARIABLE: &str = "SKILLWELD_CUBLASLT";

/// The loader's names, the newest first.
const NAMES: &[&str] = if cfg!(windows) {
    &["cublasLt64_13.dll", "cublasLt64_12.dll"]
} else {
    &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"]
};

/// A handle, descriptor, layout or preference.
pub(super) type Opaque = *mut c_void;
/// 0 is success.
pub(super) type Status = c_int;

/// `cublasLtMatmulHeuristicResult_t`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Choice {
    pub(super) algorithm: [u64; 8],
    pub(super) workspace_bytes: usize,
    pub(super) status: Status,
    pub(super) waves: f32,
    pub(super) reserved: [c_int; 4],
}

type Create = unsafe extern "C" fn(*mut Opaque) -> Status;
type Destroy = unsafe extern "C" fn(Opaque) -> Status;
type SetAttribute = unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> Status;

/// Functions as `cublasLt.h` declares them; enums are `c_int`.
pub(super) struct Api {
    pub(super) create: Create,
    pub(super) destroy: Destroy,
    pub(super) product_create: unsafe extern "C" fn(*mut Opaque, c_int, c_int) -> Status,
    pub(super) product_destroy: Destroy,
    pub(super) product_set: SetAttribute,
    pub(super) layout_create: unsafe extern "C" fn(*mut Opaque, c_int, u64, u64, i64) -> Status,
    pub(super) layout_destroy: Destroy,
    pub(super) preference_create: Create,
    pub(super) preference_destroy: Destroy,
    pub(super) preference_set: SetAttribute,
    pub(super) choose: unsafe extern "C" fn(
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        c_int,
        *mut Choice,
        *mut c_int,
    ) -> Status,
    pub(super) multiply: unsafe extern "C" fn(
        Opaque,
        Opaque,
        *const f32,
        u64,
        Opaque,
        u64,
        Opaque,
        *const f32,
        u64,
        Opaque,
        u64,
        Opaque,
        *const [u64; 8],
        u64,
        usize,
        Opaque,
    ) -> Status,
    /// Last, so that it is closed last.
    _library: Library,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// The library's functions; `None` without a library that has them all.
    pub(super) fn load() -> Option<Self> {
        let named = std::env::var_os(CUBLASLT_VARIABLE).into_iter();
        // SAFETY: the library's initialisers are cuBLASLt's own, and say nothing of this program's state.
        #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
        let library = named
            .chain(NAMES.iter().map(OsString::from))
            .find_map(|name| unsafe { Library::new(name) }.ok())?;
        // SAFETY: the names are of functions with these signatures in every version of cuBLASLt since CUDA 11, and they are
        // called only while the library, which is kept beside them, is loaded.
        #[expect(unsafe_code, reason = "a symbol has no type")]
        unsafe {
            Some(Self {
                create: function(&library, "cublasLtCreate")?,
                destroy: function(&library, "cublasLtDestroy")?,
                product_create: function(&library, "cublasLtMatmulDescCreate")?,
                product_destroy: function(&library, "cublasLtMatmulDescDestroy")?,
                product_set: function(&library, "cublasLtMatmulDescSetAttribute")?,
                layout_create: function(&library, "cublasLtMatrixLayoutCreate")?,
                layout_destroy: function(&library, "cublasLtMatrixLayoutDestroy")?,
                preference_create: function(&library, "cublasLtMatmulPreferenceCreate")?,
                preference_destroy: function(&library, "cublasLtMatmulPreferenceDestroy")?,
                preference_set: function(&library, "cublasLtMatmulPreferenceSetAttribute")?,
                choose: function(&library, "cublasLtMatmulAlgoGetHeuristic")?,
                multiply: function(&library, "cublasLtMatmul")?,
                _library: library,
            })
        }
    }
}

/// # Safety
/// The library's function has the type `F`, and is called only while the library is loaded.
#[expect(unsafe_code, reason = "a symbol has no type")]
unsafe fn function<F: Copy>(library: &Library, name: &str) -> Option<F> {
    // SAFETY: the caller's promise.
    let symbol: Symbol<'_, F> = unsafe { library.get(name) }.ok()?;
    Some(*symbol)
}
