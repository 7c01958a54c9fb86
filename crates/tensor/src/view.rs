use half::bf16;
use ndarray::{ArrayD, IxDyn};

use crate::{Dtype, TensorError, convert, rounding};

/// Number of elements of a shape; `None` when it does not fit into `usize`. The empty shape is a scalar: 1.
pub fn numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Elements of a row: of what lies under one index of the first axis, or of all of a vector. At least 1.
pub fn row_len(shape: &[usize]) -> usize {
    let row = if shape.len() > 1 { &shape[1..] } else { shape };
    row.iter().product::<usize>().max(1)
}

/// The fewest elements that are whole rows and whole bytes of a mask.
pub fn row_step(shape: &[usize]) -> usize {
    let row = row_len(shape);
    row << 3u32.saturating_sub(row.trailing_zeros())
}

/// A tensor as it lies in a file or a buffer: dtype, shape and borrowed little-endian, row-major bytes.
/// The bytes need no alignment.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Joins bytes with what they mean.
    ///
    /// # Errors
    /// [`TensorError::WrongSize`] unless `bytes` holds exactly the elements of `shape`; [`TensorError::TooLarge`] when
    /// their number overflows.
    pub fn new(dtype: Dtype, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self, TensorError> {
        let too_large = || TensorError::TooLarge { shape: shape.to_vec() };
        let expected_bytes = numel(shape).and_then(|n| dtype.byte_len(n)).ok_or_else(too_large)?;
        if bytes.len() != expected_bytes {
            return Err(TensorError::WrongSize {
                dtype,
                shape: shape.to_vec(),
                expected_bytes,
                actual_bytes: bytes.len(),
            });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The raw little-endian bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        // Cannot overflow: `new` checked it.
        self.shape.iter().product()
    }

    /// Decodes elements `offset .. offset + out.len()` of the flattened tensor to f32; true when all are finite.
    ///
    /// # Errors
    /// [`TensorError::NotComputable`] for integers, booleans and packed types.
    ///
    /// # Panics
    /// When the range reaches past the end: ranges come from our own planning, never from a file.
    pub fn decode_block(&self, offset: usize, out: &mut [f32]) -> Result<bool, TensorError> {
        convert::decode(self.dtype, self.block(offset, out.len())?, out)
    }

    /// The same elements less those of `base`: a block of a task vector. True when all of the tensor's are finite.
    ///
    /// # Errors
    /// As [`TensorView::decode_block`].
    ///
    /// # Panics
    /// As [`TensorView::decode_block`], and when `base` is not as long as `out`.
    pub fn decode_difference(
        &self,
        offset: usize,
        base: &[f32],
        out: &mut [f32],
    ) -> Result<bool, TensorError> {
        convert::decode_difference(self.dtype, self.block(offset, out.len())?, base, out)
    }

    /// As [`TensorView::decode_block`], rounded to bf16 (to nearest, ties to even): what is bf16 already is only copied.
    ///
    /// # Errors
    /// As [`TensorView::decode_block`].
    ///
    /// # Panics
    /// As [`TensorView::decode_block`].
    pub fn decode_block_bf16(&self, offset: usize, out: &mut [bf16]) -> Result<(), TensorError> {
        /// Values that are decoded at once, on the stack.
        const AT_ONCE: usize = 1024;
        if self.dtype == Dtype::BF16 {
            let stored = self.block(offset, out.len())?;
            for (out, bytes) in out.iter_mut().zip(stored.as_chunks().0) {
                *out = bf16::from_le_bytes(*bytes);
            }
            return Ok(());
        }
        for (offset, out) in (offset..).step_by(AT_ONCE).zip(out.chunks_mut(AT_ONCE)) {
            let values = &mut [0.0; AT_ONCE][..out.len()];
            self.decode_block(offset, values)?;
            rounding::to_bf16(values, out);
        }
        Ok(())
    }

    fn block(&self, offset: usize, len: usize) -> Result<&'a [u8], TensorError> {
        if !self.dtype.is_computable() {
            return Err(TensorError::NotComputable { dtype: self.dtype });
        }
        let size = self.dtype.bits() / 8;
        Ok(&self.bytes[offset * size..(offset + len) * size])
    }

    /// The whole tensor as an f32 array of the same shape.
    ///
    /// # Errors
    /// As [`TensorView::decode_block`].
    pub fn to_f32(&self) -> Result<ArrayD<f32>, TensorError> {
        let mut values = vec![0.0; self.numel()];
        self.decode_block(0, &mut values)?;
        let mismatch = |_| TensorError::TooLarge { shape: self.shape.to_vec() };
        ArrayD::from_shape_vec(IxDyn(self.shape), values).map_err(mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_must_fit_exactly() {
        assert!(TensorView::new(Dtype::F32, &[2, 3], &[0; 24]).is_ok());
        let short = TensorView::new(Dtype::F32, &[2, 3], &[0; 23]).unwrap_err();
        assert_eq!(short.to_string(), "F32 tensor of shape [2, 3] needs 24 bytes, got 23");
        let huge = TensorView::new(Dtype::F32, &[usize::MAX, 2], &[]).unwrap_err();
        assert!(matches!(huge, TensorError::TooLarge { .. }));
    }

    #[test]
    fn scalars_and_empty_tensors_exist() {
        let bytes = 1.5f32.to_le_bytes();
        let scalar = TensorView::new(Dtype::F32, &[], &bytes).unwrap();
        assert_eq!(scalar.to_f32().unwrap().into_raw_vec_and_offset().0, vec![1.5]);
        let empty = TensorView::new(Dtype::BF16, &[0, 7], &[]).unwrap();
        assert_eq!(empty.to_f32().unwrap().shape(), &[0, 7]);
    }

    #[test]
    fn integers_are_not_computed_with() {
        let view = TensorView::new(Dtype::I64, &[1], &[0; 8]).unwrap();
        assert_eq!(view.to_f32().unwrap_err(), TensorError::NotComputable { dtype: Dtype::I64 });
    }
}
