//! From a storage and its strides to a range of the file.

use std::sync::{Arc, OnceLock};

use skillweld_tensor::{Dtype, numel};

use crate::PickleProblem;
use crate::stored::{StoredTensor, Strided};
use crate::torch::archive::Archive;

/// Gathered copies of strided tensors may take this many times the size of the file: broadcast tensors, which have
/// fewer elements stored than shown, must not become a way to exhaust memory.
const MAX_GATHERED_PER_FILE_BYTE: usize = 4;

/// A storage as a persistent id names it.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// `None` for an untyped storage, measured in bytes.
    pub(crate) dtype: Option<Dtype>,
    pub(crate) key: Arc<str>,
    pub(crate) numel: usize,
}

/// The dtype behind a name in module `torch`: `FloatStorage`, or `float32` itself.
pub(crate) fn dtype_of_storage(class: &str) -> Option<Dtype> {
    Some(match class {
        "BoolStorage" => Dtype::Bool,
        "ByteStorage" => Dtype::U8,
        "CharStorage" => Dtype::I8,
        "ShortStorage" => Dtype::I16,
        "IntStorage" => Dtype::I32,
        "LongStorage" => Dtype::I64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "ComplexFloatStorage" => Dtype::C64,
        _ => return None,
    })
}

/// A `torch.dtype` by its name.
pub(crate) fn dtype_by_name(name: &str) -> Option<Dtype> {
    Some(match name {
        "bool" => Dtype::Bool,
        "uint8" => Dtype::U8,
        "int8" => Dtype::I8,
        "int16" => Dtype::I16,
        "uint16" => Dtype::U16,
        "int32" => Dtype::I32,
        "uint32" => Dtype::U32,
        "int64" => Dtype::I64,
        "uint64" => Dtype::U64,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "complex64" => Dtype::C64,
        "float8_e4m3fn" => Dtype::F8E4M3,
        "float8_e5m2" => Dtype::F8E5M2,
        "float8_e8m0fnu" => Dtype::F8E8M0,
        "float8_e4m3fnuz" => Dtype::F8E4M3Fnuz,
        "float8_e5m2fnuz" => Dtype::F8E5M2Fnuz,
        _ => return None,
    })
}

/// Builds tensors of one archive and keeps account of what gathering them would take.
#[derive(Debug)]
pub(crate) struct TensorBuilder<'a> {
    archive: &'a Archive<'a>,
    gathered_bytes: usize,
}

impl<'a> TensorBuilder<'a> {
    pub(crate) fn new(archive: &'a Archive<'a>) -> Self {
        Self { archive, gathered_bytes: 0 }
    }

    /// `torch._utils._rebuild_tensor`: `shape` and `strides` in elements, from element `offset` of the storage on.
    pub(crate) fn build(
        &mut self,
        storage: &Storage,
        dtype: Dtype,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<StoredTensor, PickleProblem> {
        let member = format!("data/{}", storage.key);
        let record = self.archive.member(&member);
        let record = record.ok_or_else(|| PickleProblem::MissingStorage { member: member.clone() })?;
        let out_of_range = || PickleProblem::OutOfStorage { member: member.clone(), shape: shape.clone() };
        let size = dtype.bits() / 8;
        let storage_size = storage.dtype.map_or(1, |dtype| dtype.bits() / 8);
        if storage.numel.checked_mul(storage_size).is_none_or(|bytes| bytes > record.len()) {
            return Err(out_of_range());
        }
        if shape.len() != strides.len() {
            return Err(PickleProblem::Malformed {
                reason: "a tensor has more dimensions than strides, or fewer",
            });
        }
        let count = numel(&shape).ok_or_else(out_of_range)?;
        let is_contiguous = is_row_major(&shape, &strides);
        // Elements from the first to the last that is shown, both included.
        let reach = if count == 0 { Some(0) } else { reach(&shape, &strides) };
        let begin = offset.checked_mul(size);
        let end = reach.and_then(|reach| reach.checked_add(offset)?.checked_mul(size));
        let range = match (begin, end) {
            _ if count == 0 => record.start..record.start,
            (Some(begin), Some(end)) if end <= record.len() => record.start + begin..record.start + end,
            _ => return Err(out_of_range()),
        };
        if count == 0 || is_contiguous {
            return Ok(StoredTensor { dtype, shape, range, strided: None });
        }
        let bytes = count.checked_mul(size).and_then(|bytes| self.gathered_bytes.checked_add(bytes));
        let limit = self.archive.file.len().saturating_mul(MAX_GATHERED_PER_FILE_BYTE);
        self.gathered_bytes = bytes.filter(|&bytes| bytes <= limit).ok_or(PickleProblem::Limit {
            what: "broadcast tensors that are many times larger than the file; save them with .contiguous()",
        })?;
        Ok(StoredTensor {
            dtype,
            shape,
            range,
            strided: Some(Strided { strides, gathered: OnceLock::new() }),
        })
    }
}

/// True when the strides are those of a freshly made tensor; dimensions of length 1 are never stepped along.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().filter(|&(&dimension, _)| dimension != 1).all(|(&dimension, &stride)| {
        let fits = stride == expected;
        expected = expected.saturating_mul(dimension);
        fits
    })
}

/// One more than the largest element index of a tensor with elements; `None` on overflow.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let last = shape.iter().zip(strides).try_fold(0usize, |last, (dimension, stride)| {
        last.checked_add((dimension - 1).checked_mul(*stride)?)
    })?;
    last.checked_add(1)
}
