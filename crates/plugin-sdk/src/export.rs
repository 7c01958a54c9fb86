//! The C functions behind a method, and the table that describes it to the host.

use core::any::Any;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use skillweld_plugin_abi as abi;

use crate::params::{Slot, slots};
use crate::{Block, CudaCode, MaskMethod, Masks, MergeMethod, Params, Plan, Result, Spec, Stop, param, raw};

/// A method's entry for the host with the text it points to. It lives in a static of its own.
#[derive(Debug)]
pub struct Entry {
    method: abi::Method,
    pub(crate) spec: Spec,
    slots: Vec<Slot>,
    /// Backs `method.schema`.
    _schema: String,
    /// Backs `method.cuda`.
    _cuda: Option<Box<abi::Cuda>>,
}

impl Entry {
    /// What the plugin's `method` getter returns.
    pub fn method(&self) -> &abi::Method {
        &self.method
    }

    fn new(spec: Spec, kind: u32, functions: &Functions, cuda: Option<CudaCode>) -> Self {
        let schema = param::schema(&spec.params);
        let cuda = cuda.map(|code| Box::new(device_code(code)));
        let method = abi::Method {
            size: size_of::<abi::Method>() as u32,
            kind,
            id: abi::Str::new(spec.id),
            version: abi::Str::new(spec.version),
            summary: abi::Str::new(spec.summary),
            citation: abi::Str::new(spec.citation),
            // The text's heap buffer stays where it is when the entry moves into its static.
            schema: abi::Str::borrow(&schema),
            mask: abi::Str::new(spec.mask),
            min_experts: spec.min_experts,
            max_experts: spec.max_experts,
            flags: spec.flags,
            laws: spec.laws,
            plan: Some(functions.plan),
            observe: Some(functions.observe),
            run: Some(functions.run),
            rescale: functions.rescale,
            // A box's content stays where it is, too.
            cuda: cuda.as_deref().map_or(core::ptr::null(), core::ptr::from_ref),
        };
        Self { method, slots: slots(&spec.params), spec, _schema: schema, _cuda: cuda }
    }
}

fn device_code(CudaCode { image, run, threads }: CudaCode) -> abi::Cuda {
    abi::Cuda {
        size: size_of::<abi::Cuda>() as u32,
        threads,
        extension: abi::Str::new(abi::CUDA_EXTENSION),
        image: image.as_ptr(),
        image_len: image.len() as u64,
        run: abi::Str::new(run),
    }
}

struct Functions {
    plan: unsafe extern "C" fn(*const abi::Host, *const abi::Params, *mut abi::Plan) -> i32,
    observe: unsafe extern "C" fn(*const abi::Call, u32, *mut f64) -> i32,
    run: unsafe extern "C" fn(*const abi::Call) -> i32,
    rescale: Option<unsafe extern "C" fn(*const abi::Call, *mut f32) -> i32>,
}

/// A method that `export_methods!` gave its static entry.
pub trait Exported: 'static {
    /// The entry, made on first use.
    fn entry() -> &'static Entry;
}

/// Builds the entry of a merge method.
pub fn merge_entry<M: MergeMethod + Exported>() -> Entry {
    let functions = Functions {
        plan: plan::<AsMerge<M>>,
        observe: observe::<AsMerge<M>>,
        run: run_merge::<M>,
        rescale: None,
    };
    Entry::new(M::spec(), abi::KIND_MERGE, &functions, M::CUDA)
}

/// Builds the entry of a mask method.
pub fn mask_entry<M: MaskMethod + Exported>() -> Entry {
    let spec = M::spec();
    let rescales = spec.flags & abi::flags::EMITS_MASKS != 0;
    let functions = Functions {
        plan: plan::<AsMask<M>>,
        observe: observe::<AsMask<M>>,
        run: run_mask::<M>,
        rescale: rescales.then_some(rescale::<M> as _),
    };
    Entry::new(spec, abi::KIND_MASK, &functions, M::CUDA)
}

/// The part that both kinds of method share.
trait Passes: 'static {
    fn entry() -> &'static Entry;
    fn plan(params: &Params<'_>) -> Result<Plan>;
    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result;
}

struct AsMerge<M>(PhantomData<M>);
struct AsMask<M>(PhantomData<M>);

impl<M: MergeMethod + Exported> Passes for AsMerge<M> {
    fn entry() -> &'static Entry {
        M::entry()
    }
    fn plan(params: &Params<'_>) -> Result<Plan> {
        M::plan(params)
    }
    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        M::observe(block, pass, sums)
    }
}

impl<M: MaskMethod + Exported> Passes for AsMask<M> {
    fn entry() -> &'static Entry {
        M::entry()
    }
    fn plan(params: &Params<'_>) -> Result<Plan> {
        M::plan(params)
    }
    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        M::observe(block, pass, sums)
    }
}

unsafe extern "C" fn plan<P: Passes>(
    host: *const abi::Host,
    params: *const abi::Params,
    plan: *mut abi::Plan,
) -> i32 {
    // SAFETY: the host hands over valid structs that start with their size, and a plan to fill.
    let (host, params) = unsafe { (raw::read_sized(host), raw::read_sized(params)) };
    guard(host, || {
        let params = params.ok_or("the host gave no parameters")?;
        // SAFETY: the host's arrays are valid during this call.
        let wanted = P::plan(&unsafe { Params::new(&params, &P::entry().slots) })?;
        if wanted.sums.len() > abi::MAX_PASSES {
            return Err(
                format!("{} passes asked for; {} is the most", wanted.sums.len(), abi::MAX_PASSES).into()
            );
        }
        let mut sums_len = [0; abi::MAX_PASSES];
        for (len, wanted) in sums_len.iter_mut().zip(&wanted.sums) {
            *len = *wanted as u64;
        }
        // SAFETY: `plan` points to a plan of at least version 1.0's size, this call's to write. Its own size stays.
        unsafe {
            (*plan).passes = wanted.sums.len() as u32;
            (*plan).scope = if wanted.global { abi::SCOPE_GLOBAL } else { abi::SCOPE_TENSOR };
            (*plan).sums_len = sums_len;
            (*plan).scratch_per_element = wanted.scratch_per_element as u64;
            // A host of version 1.0 has no room for it, and shows every pass everything.
            if (*plan).size as usize >= offset_of!(abi::Plan, whole) {
                (*plan).sample = wanted.sample.map(|sample| sample as u64);
            }
            if (*plan).size as usize >= offset_of!(abi::Plan, whole) + size_of::<u64>() {
                (*plan).whole = u64::from(wanted.whole);
            } else if wanted.whole {
                return Err("with these parameters the method needs whole tensors, which this program only hands out \
                            from version 1.3 of the plugin boundary on: update it"
                    .into());
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn observe<P: Passes>(call: *const abi::Call, pass: u32, sums: *mut f64) -> i32 {
    // SAFETY: the host's call and arrays are valid during this call.
    unsafe {
        with_block(call, &P::entry().slots, |block, _| {
            let plan = P::plan(block)?;
            let len = plan.sums.get(pass as usize).ok_or("a pass that the plan does not have")?;
            P::observe(block, pass as usize, raw::slice_mut(sums, *len))
        })
    }
}

unsafe extern "C" fn run_merge<M: MergeMethod + Exported>(call: *const abi::Call) -> i32 {
    // SAFETY: the host's call and arrays are valid during this call; `out` is this call's alone.
    unsafe {
        with_block(call, &M::entry().slots, |block, call| {
            M::run(block, raw::slice_mut(call.out, block.len()))
        })
    }
}

unsafe extern "C" fn run_mask<M: MaskMethod + Exported>(call: *const abi::Call) -> i32 {
    // SAFETY: the host's call and arrays are valid during this call; the masks are this call's alone.
    unsafe { with_block(call, &M::entry().slots, |block, call| M::run(block, &mut Masks::new(call))) }
}

unsafe extern "C" fn rescale<M: MaskMethod + Exported>(call: *const abi::Call, rescalers: *mut f32) -> i32 {
    // SAFETY: the host's call and arrays are valid during this call; there is one rescaler an expert.
    unsafe {
        with_block(call, &M::entry().slots, |block, _| {
            M::rescale(block, raw::slice_mut(rescalers, block.experts()))
        })
    }
}

/// # Safety
/// `call` points to a call as the boundary's documentation describes it, valid until this returns.
unsafe fn with_block(
    call: *const abi::Call,
    slots: &[Slot],
    method: impl FnOnce(&Block<'_>, &abi::Call) -> Result,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(call) = (unsafe { raw::read_sized(call) }) else { return abi::status::ERROR };
    // SAFETY: the caller's promise.
    let host = unsafe { raw::read_sized(call.host) };
    guard(host, || {
        // SAFETY: the caller's promise.
        let block =
            unsafe { Block::new(&call, slots) }.ok_or("the host gave no parameters or no callbacks")?;
        method(&block, &call)
    })
}

/// Runs the body; pushes the message of an error or panic to the host; returns the status.
fn guard(host: Option<abi::Host>, body: impl FnOnce() -> Result) -> i32 {
    let (status, message) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return abi::status::OK,
        Ok(Err(Stop::Cancelled)) => return abi::status::CANCELLED,
        Ok(Err(Stop::Failed(message))) => (abi::status::ERROR, message),
        Err(panic) => (abi::status::PANIC, panic_text(&*panic)),
    };
    if let Some((host, error)) = host.and_then(|host| Some((host, host.error?))) {
        // SAFETY: the host's own callback and context, during the call.
        unsafe { error(host.context, abi::Str::borrow(&message)) }
    }
    status
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|s| s.as_str()));
    text.unwrap_or("the method panicked").to_owned()
}

/// The `index`-th entry, for the plugin's `method` getter. Null past the end, or when a spec panics.
pub fn method_at(entries: &[fn() -> &'static Entry], index: u32) -> *const abi::Method {
    let entry = entries.get(index as usize);
    entry.and_then(|entry| catch_unwind(entry).ok()).map_or(core::ptr::null(), |entry| entry.method())
}

/// What the exported symbol holds.
pub const fn plugin(
    method_count: usize,
    method: unsafe extern "C" fn(index: u32) -> *const abi::Method,
) -> abi::Plugin {
    abi::Plugin {
        magic: abi::MAGIC,
        size: size_of::<abi::Plugin>() as u32,
        abi_minor: abi::ABI_MINOR,
        layout_hash: abi::LAYOUT_HASH,
        method_count: method_count as u32,
        reserved: 0,
        method: Some(method),
    }
}

/// Exports methods from a plugin: `export_methods!(merge: [Linear, Passthrough], mask: [Tall]);`, once a crate.
///
/// Either list may be left out. The crate's `crate-type` is `["cdylib"]`, or `["cdylib", "rlib"]`.
///
/// Each plugin defines the one symbol. A crate may depend on many plugins, as tests do that want their libraries built
/// (`use skillweld_plugin_x as _`); one that also *names items* of several links them with `-Wl,-z,muldefs`.
#[macro_export]
macro_rules! export_methods {
    ($(merge: [$($merge:ty),+ $(,)?] $(,)?)? $(mask: [$($mask:ty),+ $(,)?] $(,)?)?) => {
        $($($crate::export_methods!(@entry $merge, merge_entry);)+)?
        $($($crate::export_methods!(@entry $mask, mask_entry);)+)?

        /// What the host finds in this library.
        mod skillweld_plugin {
            #[allow(unused_imports, reason = "a method may be named by its path")]
            use super::*;
            use $crate::export::{Entry, Exported};

            const ENTRIES: &[fn() -> &'static Entry] = &[
                $($(<$merge as Exported>::entry,)+)?
                $($(<$mask as Exported>::entry,)+)?
            ];

            extern "C" fn method(index: u32) -> *const $crate::abi::Method {
                $crate::export::method_at(ENTRIES, index)
            }

            #[allow(unsafe_code, reason = "the one symbol of the plugin boundary")]
            // SAFETY: no other symbol of this name is linked into the library; the host reads it as this type.
            #[unsafe(export_name = "skillweld_plugin_v1")]
            static PLUGIN: $crate::abi::Plugin = $crate::export::plugin(ENTRIES.len(), method);
        }
    };
    (@entry $method:ty, $make:ident) => {
        impl $crate::export::Exported for $method {
            fn entry() -> &'static $crate::export::Entry {
                static ENTRY: ::std::sync::OnceLock<$crate::export::Entry> = ::std::sync::OnceLock::new();
                ENTRY.get_or_init($crate::export::$make::<$method>)
            }
        }
    };
}
