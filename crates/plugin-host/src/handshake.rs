//! Reads the structs of a plugin that may be older, newer or broken, and believes nothing it can check.

use core::mem::{MaybeUninit, offset_of};
use std::path::Path;

use skillweld_plugin_abi::{self as abi, flags};

use crate::method::{CudaCode, Functions, Kind, Method, MethodInfo};
use crate::{PluginError, schema};

/// More methods than any family has; a larger count means that something else is read as one.
const MAX_METHODS: u32 = 256;
const MAX_ID_LEN: usize = 64;
const MAX_TEXT_LEN: usize = 4 * 1024;
const MAX_SCHEMA_LEN: usize = 64 * 1024;
/// Larger than any kernel's machine code for every GPU there is.
const MAX_IMAGE_LEN: u64 = 256 << 20;
/// First bytes of a fatbin.
const FATBIN_MAGIC: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
/// Most threads that a block can have.
const MAX_THREADS: u32 = 1024;

/// The methods of the plugin whose exported symbol is `symbol`.
///
/// # Safety
/// `symbol` points to the symbol [`abi::SYMBOL`] of a library that is never unloaded.
pub(crate) unsafe fn read_methods(
    symbol: *const abi::Plugin,
    path: &Path,
) -> Result<Vec<Method>, PluginError> {
    let bad = |reason: String| PluginError::BadPlugin { path: path.to_owned(), reason };
    // SAFETY: whatever stands behind that name has at least the magic number, the first field in every version.
    let magic = unsafe { symbol.cast::<u64>().read_unaligned() };
    if magic != abi::MAGIC {
        return Err(bad(format!("the magic number is {magic:#018x} instead of {:#018x}", abi::MAGIC)));
    }
    // SAFETY: the magic number says that this is the struct `Plugin`, whose second field is its size.
    let size =
        unsafe { symbol.byte_add(offset_of!(abi::Plugin, size)).cast::<u32>().read_unaligned() } as usize;
    let needed = offset_of!(abi::Plugin, method) + size_of::<usize>();
    if size < needed {
        return Err(bad(format!("its header has {size} bytes, version 1.0 has {needed}")));
    }
    // SAFETY: `symbol` points to `size` bytes by the plugin's own word, which the magic number vouches for.
    let plugin = unsafe { copy_prefix(symbol, size) };
    if plugin.layout_hash != abi::LAYOUT_HASH {
        return Err(bad(format!(
            "its structs are laid out differently (layout hash {:#x} instead of {:#x}): rebuild it for this machine's \
             pointer width, without packing pragmas",
            plugin.layout_hash,
            abi::LAYOUT_HASH
        )));
    }
    if !(1..=MAX_METHODS).contains(&plugin.method_count) {
        return Err(bad(format!(
            "it claims {} methods, allowed are 1 to {MAX_METHODS}",
            plugin.method_count
        )));
    }
    let method_at = plugin.method.ok_or_else(|| bad("its function `method` is null".into()))?;
    let mut methods: Vec<Method> = Vec::new();
    for index in 0..plugin.method_count {
        // SAFETY: `index` is below `method_count`, which is all that the boundary asks of a caller.
        let pointer = unsafe { method_at(index) };
        // SAFETY: the boundary promises null or a `Method` that lives as long as the library, which stays loaded.
        let method = unsafe { read_method(pointer, path) }.map_err(|bad_method| PluginError::BadMethod {
            path: path.to_owned(),
            method: bad_method.id.unwrap_or_else(|| format!("number {index}")),
            reason: bad_method.reason,
        })?;
        if methods.iter().any(|other| other.id() == method.id() && other.kind() == method.kind()) {
            return Err(bad(format!("it has two {} methods called `{}`", method.kind(), method.id())));
        }
        methods.push(method);
    }
    Ok(methods)
}

/// Why a method is refused, and its id once that is known.
struct BadMethod {
    id: Option<String>,
    reason: String,
}

impl From<String> for BadMethod {
    fn from(reason: String) -> Self {
        Self { id: None, reason }
    }
}

/// # Safety
/// `pointer` is null or points to an [`abi::Method`] of any minor version that lives as long as the process.
unsafe fn read_method(pointer: *const abi::Method, path: &Path) -> Result<Method, BadMethod> {
    if pointer.is_null() {
        return Err("the pointer to it is null".to_owned().into());
    }
    // SAFETY: not null, and the size is the first field of every version.
    let size = unsafe { pointer.cast::<u32>().read_unaligned() } as usize;
    let needed = offset_of!(abi::Method, run) + size_of::<usize>();
    if size < needed {
        return Err(format!("its struct has {size} bytes, at least {needed} are needed").into());
    }
    // SAFETY: the struct is `size` bytes long by its own word.
    let raw = unsafe { copy_prefix(pointer, size) };
    // SAFETY: every `Str` of a `Method` is static text by the boundary's rules.
    let id = unsafe { text("id", raw.id, MAX_ID_LEN) }?;
    check_id(&id)?;
    // SAFETY: `raw` came from the plugin's static, as `describe` asks, and so did what it says of device code.
    let read = unsafe { describe(&raw, id.clone()).and_then(|info| Ok((info, device_code(&raw)?))) };
    match read {
        Ok((info, cuda)) => Ok(Method::new(info, functions(&raw), cuda, path)),
        Err(reason) => Err(BadMethod { id: Some(id), reason }),
    }
}

/// The method's device code; `None` also for another extension than this host knows, which it may ignore.
///
/// # Safety
/// `raw.cuda` is null or points to an [`abi::Cuda`] of any minor version that lives as long as the process.
unsafe fn device_code(raw: &abi::Method) -> Result<Option<CudaCode>, String> {
    if raw.cuda.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the size is the first field of every version.
    let size = unsafe { raw.cuda.cast::<u32>().read_unaligned() } as usize;
    let needed = offset_of!(abi::Cuda, run) + size_of::<abi::Str>();
    if size < needed {
        return Err(format!("the struct of its device code has {size} bytes, at least {needed} are needed"));
    }
    // SAFETY: the struct is `size` bytes long by its own word.
    let code = unsafe { copy_prefix(raw.cuda, size) };
    // SAFETY: static text by the boundary's rules.
    if unsafe { text("device code's extension", code.extension, MAX_ID_LEN) }? != abi::CUDA_EXTENSION {
        return Ok(None);
    }
    if raw.flags & flags::ELEMENTWISE == 0 {
        return Err("it has device code without the flag ELEMENTWISE".into());
    }
    // SAFETY: as above.
    let run = unsafe { text("device code's kernel name", code.run, MAX_TEXT_LEN) }?;
    if !run.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("its kernel's name `{run}` must consist of letters, digits and _"));
    }
    if code.threads == 0 || !code.threads.is_multiple_of(32) || code.threads > MAX_THREADS {
        return Err(format!(
            "its kernel wants blocks of {} threads, allowed are multiples of 32 up to {MAX_THREADS}",
            code.threads
        ));
    }
    if code.image.is_null() || !(4..=MAX_IMAGE_LEN).contains(&code.image_len) {
        return Err(format!(
            "its device code has {} bytes, allowed are 4 to {MAX_IMAGE_LEN}, and no null pointer",
            code.image_len
        ));
    }
    // SAFETY: not null, that long, and as long-lived as the library, by the boundary's rules.
    let image = unsafe { core::slice::from_raw_parts(code.image, code.image_len as usize) };
    if image[..4] != FATBIN_MAGIC {
        return Err("its device code is no fatbin: compile it with `nvcc -fatbin`".into());
    }
    Ok(Some(CudaCode { image, run, threads: code.threads }))
}

/// # Safety
/// Every `Str` in `raw` is null or points to static text.
unsafe fn describe(raw: &abi::Method, id: String) -> Result<MethodInfo, String> {
    let kind = match raw.kind {
        abi::KIND_MERGE => Kind::Merge,
        abi::KIND_MASK => Kind::Mask,
        other => return Err(format!("kind {other} is neither merge (1) nor mask (2)")),
    };
    // SAFETY: by the caller's word, here and in the four lines below.
    let version = unsafe { text("version", raw.version, MAX_ID_LEN) }?;
    // SAFETY: as above.
    let summary = unsafe { text("summary", raw.summary, MAX_TEXT_LEN) }?;
    // SAFETY: as above.
    let citation = unsafe { optional_text("citation", raw.citation, MAX_TEXT_LEN) }?;
    // SAFETY: as above.
    let schema = unsafe { raw_text("schema", raw.schema, MAX_SCHEMA_LEN) }?;
    // SAFETY: as above.
    let mask = unsafe { optional_text("mask", raw.mask, MAX_ID_LEN) }?;
    let params = schema::parse(&schema)?;
    let info = MethodInfo {
        id,
        kind,
        version,
        summary,
        citation,
        schema,
        params,
        mask: (!mask.is_empty()).then_some(mask),
        min_experts: raw.min_experts as usize,
        max_experts: (raw.max_experts > 0).then_some(raw.max_experts as usize),
        flags: raw.flags,
        laws: raw.laws,
    };
    check_consistency(&info, raw)?;
    Ok(info)
}

/// Flags, counts and functions must tell one story. Unknown flags and laws are left alone: a newer minor version may
/// have them, and only ones that an older host may ignore are ever added.
fn check_consistency(info: &MethodInfo, raw: &abi::Method) -> Result<(), String> {
    let has = |flag: u64| info.flags & flag != 0;
    let cuts = [flags::ELEMENTWISE, flags::ROWS, flags::MATRIX].into_iter().filter(|&flag| has(flag));
    if cuts.count() != 1 {
        return Err("exactly one of the flags ELEMENTWISE, ROWS and MATRIX must be set".into());
    }
    if has(flags::OPTIONAL_BASE) && (!has(flags::TASK_VECTORS) || has(flags::NEEDS_BASE)) {
        return Err("the flag OPTIONAL_BASE goes with TASK_VECTORS, and without NEEDS_BASE".into());
    }
    if has(flags::ANY_SHAPE) && !has(flags::MATRIX) {
        return Err("the flag ANY_SHAPE goes with MATRIX".into());
    }
    if has(flags::NEEDS_STATISTICS) && (info.kind == Kind::Mask || !raw.cuda.is_null()) {
        return Err("the flag NEEDS_STATISTICS is for merge methods without device code".into());
    }
    if info.min_experts == 0 || info.max_experts.is_some_and(|max| max < info.min_experts) {
        return Err(format!(
            "min_experts {} and max_experts {} make no range",
            raw.min_experts, raw.max_experts
        ));
    }
    if raw.run.is_none() {
        return Err("its function `run` is null".into());
    }
    match (info.kind, has(flags::EMITS_MASKS)) {
        (Kind::Merge, true) => match &info.mask {
            None => return Err("a merge method with EMITS_MASKS must name its mask method".into()),
            Some(mask) => check_id(mask)?,
        },
        (_, false) if info.mask.is_some() => return Err("`mask` is set without the flag EMITS_MASKS".into()),
        (Kind::Mask, _) if info.mask.is_some() => return Err("`mask` is set on a mask method".into()),
        (Kind::Mask, true) if raw.rescale.is_none() => {
            return Err(
                "a mask method with EMITS_MASKS gives rescalers, but its function `rescale` is null".into()
            );
        }
        _ => {}
    }
    Ok(())
}

fn functions(raw: &abi::Method) -> Functions {
    Functions { plan: raw.plan, observe: raw.observe, run: raw.run, rescale: raw.rescale }
}

fn check_id(id: &str) -> Result<(), String> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Ok(());
    }
    Err(format!("the id `{}` must consist of a-z, 0-9 and _", id.escape_debug()))
}

/// One line that must be there.
///
/// # Safety
/// As [`raw_text`].
unsafe fn text(what: &str, str: abi::Str, max_len: usize) -> Result<String, String> {
    // SAFETY: by the caller's word.
    let text = unsafe { optional_text(what, str, max_len) }?;
    if text.is_empty() { Err(format!("its {what} is empty")) } else { Ok(text) }
}

/// One line that may be empty. Control characters could rewrite the user's terminal.
///
/// # Safety
/// As [`raw_text`].
unsafe fn optional_text(what: &str, str: abi::Str, max_len: usize) -> Result<String, String> {
    // SAFETY: by the caller's word.
    let text = unsafe { raw_text(what, str, max_len) }?;
    if text.chars().any(char::is_control) {
        Err(format!("its {what} has control characters"))
    } else {
        Ok(text)
    }
}

/// # Safety
/// `str.ptr` is null or points to `str.len` readable bytes.
unsafe fn raw_text(what: &str, str: abi::Str, max_len: usize) -> Result<String, String> {
    if str.len == 0 {
        return Ok(String::new());
    }
    if str.ptr.is_null() {
        return Err(format!("its {what} is null"));
    }
    if str.len > max_len {
        return Err(format!("its {what} has {} bytes, allowed are {max_len}", str.len));
    }
    // SAFETY: not null, and readable for `len` bytes by the caller's word.
    let bytes = unsafe { core::slice::from_raw_parts(str.ptr, str.len) };
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("its {what} is not UTF-8"))
}

/// Copies the first `min(their_size, our size)` bytes into a zeroed struct, so either side may be the newer one.
///
/// # Safety
/// `T` is one of the boundary's structs, for which zero bytes are valid values (null pointers, absent functions, 0);
/// `source` is readable for `their_size` bytes.
unsafe fn copy_prefix<T>(source: *const T, their_size: usize) -> T {
    let mut local = MaybeUninit::<T>::zeroed();
    let len = their_size.min(size_of::<T>());
    // SAFETY: `len` bytes are readable by the caller's word and fit into `local`; a fresh local overlaps nothing.
    // Bytes past `len` are zero, which is valid for every field, and so is any value in the fields copied.
    unsafe {
        core::ptr::copy_nonoverlapping(source.cast::<u8>(), local.as_mut_ptr().cast::<u8>(), len);
        local.assume_init()
    }
}
