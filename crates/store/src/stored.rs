use std::ops::Range;
use std::sync::OnceLock;

use skillweld_tensor::{Dtype, TensorError, TensorView};

/// Where a tensor's elements lie in its file, checked against that file.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Bytes of the file: the tensor itself, or the reach of its strides.
    pub(crate) range: Range<usize>,
    /// Absent for row-major tensors, which are borrowed from the file as they lie.
    pub(crate) strided: Option<Strided>,
}

/// A transposed or sliced view of a PyTorch storage. It is gathered into row-major order when first asked for.
#[derive(Debug, Clone)]
pub(crate) struct Strided {
    /// Step in elements for each dimension.
    pub(crate) strides: Vec<usize>,
    pub(crate) gathered: OnceLock<Box<[u8]>>,
}

impl StoredTensor {
    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Borrows the tensor from the bytes of its whole file.
    ///
    /// # Errors
    /// None once the tensor has been validated against the file at opening.
    pub(crate) fn view<'a>(&'a self, file: &'a [u8]) -> Result<TensorView<'a>, TensorError> {
        let bytes = file.get(self.range.clone()).unwrap_or_default();
        let bytes = match &self.strided {
            None => bytes,
            Some(Strided { strides, gathered }) => {
                gathered.get_or_init(|| gather(bytes, &self.shape, strides, self.dtype.bits() / 8))
            }
        };
        TensorView::new(self.dtype, &self.shape, bytes)
    }

    /// Bytes of the tensor in row-major order.
    pub(crate) fn byte_len(&self) -> usize {
        match &self.strided {
            None => self.range.len(),
            Some(_) => self.shape.iter().product::<usize>() * self.dtype.bits() / 8,
        }
    }

    /// True when both names stand for the same bytes, seen the same way.
    pub(crate) fn is_same_view(&self, other: &Self) -> bool {
        let strides = |t: &Self| t.strided.as_ref().map(|s| s.strides.clone());
        !self.range.is_empty()
            && self.range == other.range
            && (self.dtype, &self.shape) == (other.dtype, &other.shape)
            && strides(self) == strides(other)
    }
}

/// Copies strided elements into row-major order. The caller has checked that the last element lies within `bytes`.
fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Box<[u8]> {
    let numel = shape.iter().product::<usize>();
    let mut out = Vec::with_capacity(numel * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..numel {
        let at = index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>() * size;
        out.extend_from_slice(&bytes[at..at + size]);
        // Count up like an odometer, last dimension fastest.
        for (digit, &dimension) in index.iter_mut().zip(shape).rev() {
            *digit += 1;
            if *digit < dimension {
                break;
            }
            *digit = 0;
        }
    }
    out.into_boxed_slice()
}
