//! Linear layers by NVIDIA's cuBLASLt, where it is installed: faster than our own products, and never needed.
//!
//! cudarc can load the library too, but knows no name newer than CUDA 12's, takes no path, and panics where a function is
//! missing; so the dozen functions are found here.

mod library;

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::{from_ref, null_mut};
use std::sync::Arc;

use skillweld_tensor::Dtype;

pub use library::CUBLASLT_VARIABLE;
use library::{Api, Choice, Opaque, Status};

use crate::ops::{Linear, LinearThen};
use crate::{Device, DeviceMemory, GpuError, Memory, Result, Target};

const OPERATION: &str = "cublaslt";
/// What NVIDIA advises for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// What every operand begins on.
const ALIGNMENT_BYTES: u32 = 16;

// Values of cuBLASLt's enums.
const COMPUTE_F32: c_int = 68;
const TYPE_F32: c_int = 0;
const TYPE_BF16: c_int = 14;
const TRANSPOSED: c_int = 1;
const PRODUCT_TRANSPOSE_A: c_int = 3;
const PRODUCT_EPILOGUE: c_int = 7;
const PRODUCT_BIAS_POINTER: c_int = 8;
const EPILOGUE_NOTHING: c_int = 1;
const EPILOGUE_RELU: c_int = 2;
const EPILOGUE_BIAS: c_int = 4;
const PREFERENCE_WORKSPACE_BYTES: c_int = 1;
const PREFERENCE_REDUCTIONS: c_int = 3;
const PREFERENCE_ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];
/// Parts of a sum are added in f32, never in the result's dtype.
const REDUCTION_IN_COMPUTE_TYPE: u32 = 2;

/// cuBLASLt on one device's stream.
#[derive(Debug)]
pub struct CublasLt {
    /// Before the handle and the library that they need.
    plans: HashMap<Key, Plan>,
    handle: Owned,
    api: Arc<Api>,
    workspace: DeviceMemory,
    device: Device,
}

/// What a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    rows: usize,
    columns: usize,
    inner: usize,
    operands: Dtype,
    out: Dtype,
    epilogue: c_int,
    adds: bool,
}

/// One product, described, and the algorithm that cuBLASLt chose for it.
#[derive(Debug)]
struct Plan {
    product: Owned,
    weight: Owned,
    x: Owned,
    out: Owned,
    choice: Choice,
}

/// Something that cuBLASLt made, and how it is destroyed.
#[derive(Debug)]
struct Owned {
    raw: Opaque,
    destroy: unsafe extern "C" fn(Opaque) -> Status,
    /// Keeps `destroy` loaded.
    _api: Arc<Api>,
}

// SAFETY: a handle or descriptor of cuBLASLt is bound to no thread.
#[expect(unsafe_code, reason = "a raw pointer that any thread may use")]
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: `raw` was made by the function that `destroy` belongs to, and is used by nobody after this.
        #[expect(unsafe_code, reason = "a call into C")]
        unsafe {
            (self.destroy)(self.raw);
        }
    }
}

impl CublasLt {
    /// The library for this device's stream; `None` where it is not installed: neither under the loader's usual names nor
    /// at the path in `SKILLWELD_CUBLASLT`.
    ///
    /// # Errors
    /// A library that is there and does not start; no memory for its workspace.
    pub fn open(device: &Device) -> Result<Option<Self>> {
        let Some(api) = Api::load() else { return Ok(None) };
        let api = Arc::new(api);
        let workspace = device.allocate(WORKSPACE_BYTES)?; // binds the GPU to the thread, which the handle wants
        // SAFETY: the pointer is of a live handle.
        #[expect(unsafe_code, reason = "a call into C")]
        let handle = made(&api, "start", api.destroy, |raw| unsafe { (api.create)(raw) })?;
        Ok(Some(Self { plans: HashMap::new(), handle, api, workspace, device: device.clone() }))
    }

    /// Whether cuBLASLt computes exactly this layer: bf16 operands (or all f32), a bias of the result's dtype or none, and
    /// after it nothing, ReLU, or a residual without scale. Its GELU is the approximation by tanh, which is another function.
    pub fn offers(layer: &Linear<'_>) -> bool {
        let dtypes = (layer.x.dtype, layer.weight.dtype, layer.out.dtype);
        let known = matches!(
            dtypes,
            (Dtype::BF16, Dtype::BF16, Dtype::BF16 | Dtype::F32) | (Dtype::F32, Dtype::F32, Dtype::F32)
        );
        let bias = layer.bias.is_none_or(|bias| bias.dtype == layer.out.dtype);
        let then =
            matches!(layer.then, LinearThen::Keep | LinearThen::Relu | LinearThen::AddTo { scale: None, .. });
        let any = layer.rows > 0 && layer.columns > 0 && layer.inner > 0;
        known && bias && then && any && layer.inner.is_multiple_of(8) && layer.columns.is_multiple_of(8)
    }

    /// Asks for a layer that it [`offers`](Self::offers). May be recorded in a graph once it was asked for before.
    ///
    /// # Errors
    /// A layer that it does not offer, operands that do not fit, or whatever the library refuses.
    pub fn linear(&mut self, layer: &Linear<'_>) -> Result<()> {
        crate::error::require(Self::offers(layer), OPERATION, || {
            format!("does not offer {:?} after {} × {}", layer.then, layer.rows, layer.columns)
        })?;
        layer.check_with_bias(layer.out.dtype)?;
        let residual = match layer.then {
            LinearThen::AddTo { residual, .. } => Some(residual.address),
            _ => None,
        };
        let mut epilogue = if matches!(layer.then, LinearThen::Relu) { EPILOGUE_RELU } else { 0 };
        epilogue |= if layer.bias.is_some() { EPILOGUE_BIAS } else { 0 };
        let key = Key {
            rows: layer.rows,
            columns: layer.columns,
            inner: layer.inner,
            operands: layer.x.dtype,
            out: layer.out.dtype,
            epilogue: epilogue.max(EPILOGUE_NOTHING),
            adds: residual.is_some(),
        };
        let bias = layer.bias.map_or(0, |bias| bias.address);
        if !self.plans.contains_key(&key) {
            let plan = self.plan(key, bias)?;
            self.plans.insert(key, plan);
        }
        let plan = &self.plans[&key];
        if bias != 0 {
            set(self.api.product_set, plan.product.raw, PRODUCT_BIAS_POINTER, &bias)?;
        }
        let (one, beta) = (1.0f32, if residual.is_some() { 1.0f32 } else { 0.0 });
        // SAFETY: handle, descriptors and algorithm are live and were made for these shapes and dtypes, which `check` found
        // the operands to have; alpha and beta are read before the call returns; the workspace is this value's own, used on
        // one stream only.
        #[expect(unsafe_code, reason = "a call into C")]
        let status = unsafe {
            (self.api.multiply)(
                self.handle.raw,
                plan.product.raw,
                &raw const one,
                layer.weight.address,
                plan.weight.raw,
                layer.x.address,
                plan.x.raw,
                &raw const beta,
                residual.unwrap_or(layer.out.address),
                plan.out.raw,
                layer.out.address,
                plan.out.raw,
                &raw const plan.choice.algorithm,
                self.workspace.address(),
                WORKSPACE_BYTES,
                self.device.stream.cu_stream().cast(),
            )
        };
        fine("multiply", status)
    }

    /// cuBLASLt counts columns first: yᵀ (columns × rows) = W · xᵀ, W stored as inner × columns and transposed.
    fn plan(&self, key: Key, bias: u64) -> Result<Plan> {
        let api = &self.api;
        let (operands, out) = (number_of(key.operands), number_of(key.out));
        // SAFETY: in each the pointer is of a live variable.
        #[expect(unsafe_code, reason = "a call into C")]
        let product = made(api, "describe a product", api.product_destroy, |raw| unsafe {
            (api.product_create)(raw, COMPUTE_F32, TYPE_F32)
        })?;
        let layout = |number: c_int, rows: usize, columns: usize| {
            // SAFETY: as above.
            #[expect(unsafe_code, reason = "a call into C")]
            made(api, "describe a matrix", api.layout_destroy, |raw| unsafe {
                (api.layout_create)(raw, number, rows as u64, columns as u64, rows as i64)
            })
        };
        set(api.product_set, product.raw, PRODUCT_TRANSPOSE_A, &TRANSPOSED)?;
        set(api.product_set, product.raw, PRODUCT_EPILOGUE, &key.epilogue)?;
        if bias != 0 {
            set(api.product_set, product.raw, PRODUCT_BIAS_POINTER, &bias)?;
        }
        let weight = layout(operands, key.inner, key.columns)?;
        let x = layout(operands, key.inner, key.rows)?;
        let out = layout(out, key.columns, key.rows)?;
        // SAFETY: as above.
        #[expect(unsafe_code, reason = "a call into C")]
        let preference = made(api, "state preferences", api.preference_destroy, |raw| unsafe {
            (api.preference_create)(raw)
        })?;
        set(api.preference_set, preference.raw, PREFERENCE_WORKSPACE_BYTES, &WORKSPACE_BYTES)?;
        set(api.preference_set, preference.raw, PREFERENCE_REDUCTIONS, &REDUCTION_IN_COMPUTE_TYPE)?;
        for alignment in PREFERENCE_ALIGNMENTS {
            set(api.preference_set, preference.raw, alignment, &ALIGNMENT_BYTES)?;
        }
        let (mut choice, mut count) = (Choice::default(), 0);
        // SAFETY: everything passed is live, and there is room for the one result that is asked for.
        #[expect(unsafe_code, reason = "a call into C")]
        let status = unsafe {
            (api.choose)(
                self.handle.raw,
                product.raw,
                weight.raw,
                x.raw,
                out.raw,
                out.raw,
                preference.raw,
                1,
                &raw mut choice,
                &raw mut count,
            )
        };
        fine("choose an algorithm", status)?;
        fine("choose an algorithm", if count == 0 { -1 } else { choice.status })?;
        Ok(Plan { product, weight, x, out, choice })
    }
}

fn number_of(dtype: Dtype) -> c_int {
    if dtype == Dtype::BF16 { TYPE_BF16 } else { TYPE_F32 }
}

fn made(
    api: &Arc<Api>,
    what: &str,
    destroy: unsafe extern "C" fn(Opaque) -> Status,
    create: impl FnOnce(*mut Opaque) -> Status,
) -> Result<Owned> {
    let mut raw = null_mut();
    fine(what, create(&raw mut raw))?;
    Ok(Owned { raw, destroy, _api: Arc::clone(api) })
}

fn set<T: Copy>(
    function: unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> Status,
    object: Opaque,
    attribute: c_int,
    value: &T,
) -> Result<()> {
    // SAFETY: the object is live and its setter given with it, and the value is as long as said.
    #[expect(unsafe_code, reason = "a call into C")]
    let status = unsafe { function(object, attribute, from_ref(value).cast(), size_of::<T>()) };
    fine("set an attribute", status)
}

fn fine(what: &str, status: Status) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(GpuError::Driver { operation: format!("{OPERATION}: {what}"), message: format!("status {status}") })
}
