//! Tensors as numpy arrays.

use numpy::{Element, PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::prelude::*;
use skillweld_merged::{Scratch, TaskWeight};
use skillweld_tensor::{Dtype, TensorView};

use crate::{Error, error};

/// A copy in numpy's dtype: F64, integers and booleans as they are, every other float as float32, which holds it exactly.
pub(crate) fn array<'py>(py: Python<'py>, view: &TensorView<'_>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let (bytes, shape) = (view.bytes(), view.shape());
    match view.dtype() {
        Dtype::F64 => shaped(py, numbers(bytes, f64::from_le_bytes), shape),
        Dtype::Bool => shaped(py, bytes.iter().map(|&byte| byte != 0).collect(), shape),
        Dtype::U8 => shaped(py, bytes.to_vec(), shape),
        Dtype::I8 => shaped(py, numbers(bytes, i8::from_le_bytes), shape),
        Dtype::I16 => shaped(py, numbers(bytes, i16::from_le_bytes), shape),
        Dtype::U16 => shaped(py, numbers(bytes, u16::from_le_bytes), shape),
        Dtype::I32 => shaped(py, numbers(bytes, i32::from_le_bytes), shape),
        Dtype::U32 => shaped(py, numbers(bytes, u32::from_le_bytes), shape),
        Dtype::I64 => shaped(py, numbers(bytes, i64::from_le_bytes), shape),
        Dtype::U64 => shaped(py, numbers(bytes, u64::from_le_bytes), shape),
        dtype if dtype.is_computable() => {
            let mut values = vec![0.0f32; view.numel()];
            view.decode_block(0, &mut values).map_err(|e| error(&e))?;
            shaped(py, values, shape)
        }
        dtype => Err(Error::new_err(format!("{dtype} tensors have no numpy dtype"))),
    }
}

/// One tensor of one task's model, in float32.
pub(crate) fn task_array<'py>(
    py: Python<'py>,
    weight: &TaskWeight<'_>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    if matches!(weight.weight, skillweld_merged::Weight::Shared(_)) {
        return array(py, &weight.weight.stored());
    }
    let mut values = vec![0.0f32; weight.shape().iter().product()];
    weight.decode_block(0, &mut values, &mut Scratch::default()).map_err(|e| error(&e))?;
    shaped(py, values, weight.shape())
}

fn numbers<T, const SIZE: usize>(bytes: &[u8], read: fn([u8; SIZE]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().copied().map(read).collect()
}

fn shaped<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyUntypedArray>> {
    Ok(PyArray1::from_vec(py, values).reshape(shape.to_vec())?.as_untyped().clone())
}
