use std::ops::Range;

use bytes::Bytes;
use half::f16;

/// What the numbers of an [`Array`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

/// Every dtype with the kind and width that NumPy calls it by.
const NAMES: [(Dtype, &str); 12] = [
    (Dtype::Bool, "b1"),
    (Dtype::U8, "u1"),
    (Dtype::I8, "i1"),
    (Dtype::U16, "u2"),
    (Dtype::I16, "i2"),
    (Dtype::U32, "u4"),
    (Dtype::I32, "i4"),
    (Dtype::U64, "u8"),
    (Dtype::I64, "i8"),
    (Dtype::F16, "f2"),
    (Dtype::F32, "f4"),
    (Dtype::F64, "f8"),
];

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether it is one of the floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// Whether it is one of the integers that may be negative.
    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    /// NumPy's array-protocol string of the little-endian type: `<f4`, `|u1`.
    pub fn numpy_name(self) -> String {
        let (_, name) = NAMES[self as usize];
        format!("{}{name}", if self.size() == 1 { '|' } else { '<' })
    }

    /// Reads NumPy's array-protocol string; also says whether the numbers are big-endian.
    pub(crate) fn from_numpy_name(name: &str) -> Option<(Self, bool)> {
        let big_endian = name.starts_with('>');
        let bare = name.strip_prefix(['<', '>', '|', '=']).unwrap_or(name);
        let (dtype, _) = NAMES.iter().find(|(_, known)| *known == bare)?;
        Some((*dtype, big_endian))
    }
}

/// Why numbers are no array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The bytes are not as many as the shape asks for.
    #[error("an array of shape {shape:?} and dtype {} takes {expected} bytes, not {found}", .dtype.numpy_name())]
    Length {
        /// What the numbers are.
        dtype: Dtype,
        /// Lengths of the dimensions.
        shape: Vec<usize>,
        /// Bytes that it takes.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// The shape's product is no number of bytes.
    #[error("an array of shape {shape:?} is larger than memory can be")]
    TooLarge {
        /// Lengths of the dimensions.
        shape: Vec<usize>,
    },
    /// More dimensions than anything here has.
    #[error("an array of {rank} dimensions; at most {} are read", Array::MAX_RANK)]
    Rank {
        /// How many dimensions there are.
        rank: usize,
    },
}

/// Numbers in C order, little-endian, in bytes that may belong to a received frame: cloning and slicing copy nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Bytes,
}

impl Array {
    /// The most dimensions that an array may have.
    pub const MAX_RANK: usize = 8;

    /// Takes little-endian numbers in C order.
    ///
    /// # Errors
    /// [`ArrayError`] if shape, dtype and number of bytes do not fit one another.
    pub fn new(dtype: Dtype, shape: Vec<usize>, data: Bytes) -> Result<Self, ArrayError> {
        if shape.len() > Self::MAX_RANK {
            return Err(ArrayError::Rank { rank: shape.len() });
        }
        let bytes = shape.iter().try_fold(dtype.size(), |product, &length| product.checked_mul(length));
        let Some(expected) = bytes else {
            return Err(ArrayError::TooLarge { shape });
        };
        if expected != data.len() {
            return Err(ArrayError::Length { dtype, shape, expected, found: data.len() });
        }
        Ok(Self { dtype, shape, data })
    }

    /// Copies f32 numbers.
    ///
    /// # Errors
    /// [`ArrayError`] if they are not as many as the shape asks for.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Self, ArrayError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Dtype::F32, shape.to_vec(), bytes.into())
    }

    /// What the numbers are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Lengths of the dimensions; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The numbers as they lie in memory: little-endian, C order, not aligned.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The same numbers under another shape.
    ///
    /// # Errors
    /// [`ArrayError`] if the shape is of another number of elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, ArrayError> {
        Self::new(self.dtype, shape, self.data.clone())
    }

    /// Some columns of a row of a matrix, as a vector that shares the memory; none if there are no such.
    pub(crate) fn part(&self, row: usize, columns: Range<usize>) -> Option<Self> {
        let &[_, dim] = &*self.shape else { return None };
        if columns.end > dim {
            return None;
        }
        let bytes = |column: usize| (row * dim + column).checked_mul(self.dtype.size());
        let (start, end) = (bytes(columns.start)?, bytes(columns.end)?);
        if start > end || end > self.data.len() {
            return None;
        }
        Some(Self { dtype: self.dtype, shape: vec![columns.len()], data: self.data.slice(start..end) })
    }

    /// Some columns of a matrix, copied; none if there are no such.
    #[cfg(feature = "zmq")]
    pub(crate) fn columns(&self, columns: Range<usize>) -> Option<Self> {
        let rows = *self.shape.first()?;
        let parts = (0..rows).map(|row| self.part(row, columns.clone())).collect::<Option<Vec<_>>>()?;
        let data: Vec<u8> = parts.iter().flat_map(|part| part.data.iter().copied()).collect();
        Some(Self { dtype: self.dtype, shape: vec![rows, columns.len()], data: data.into() })
    }

    /// Every number as f64; booleans are 0 and 1, integers beyond 2⁵³ are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        macro_rules! numbers {
            ($type:ty, $to_f64:expr) => {{
                let (numbers, _) = self.data.as_chunks::<{ size_of::<$type>() }>();
                numbers.iter().map(|bytes| $to_f64(<$type>::from_le_bytes(*bytes))).collect()
            }};
        }
        match self.dtype {
            Dtype::Bool => self.data.iter().map(|&byte| f64::from(byte != 0)).collect(),
            Dtype::U8 => numbers!(u8, f64::from),
            Dtype::I8 => numbers!(i8, f64::from),
            Dtype::U16 => numbers!(u16, f64::from),
            Dtype::I16 => numbers!(i16, f64::from),
            Dtype::U32 => numbers!(u32, f64::from),
            Dtype::I32 => numbers!(i32, f64::from),
            Dtype::U64 => numbers!(u64, |number| number as f64),
            Dtype::I64 => numbers!(i64, |number| number as f64),
            Dtype::F16 => numbers!(f16, f64::from),
            Dtype::F32 => numbers!(f32, f64::from),
            Dtype::F64 => numbers!(f64, |number| number),
        }
    }

    /// Hands over the numbers as f32, in order, with the index of the first, some thousands at a time: whatever the array's
    /// size, converting it takes little memory.
    ///
    /// # Errors
    /// The first that `each` gives, which also ends it.
    pub(crate) fn try_blocks<E>(
        &self,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        const BLOCK: usize = 4096;
        for start in (0..self.len()).step_by(BLOCK) {
            let end = self.len().min(start + BLOCK);
            let data = self.data.slice(start * self.dtype.size()..end * self.dtype.size());
            each(start, &Self { dtype: self.dtype, shape: vec![end - start], data }.to_f32())?;
        }
        Ok(())
    }

    /// Every number as f32, rounded once.
    pub fn to_f32(&self) -> Vec<f32> {
        if self.dtype == Dtype::F32 {
            let (numbers, _) = self.data.as_chunks::<4>();
            return numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        }
        self.to_f64().into_iter().map(|number| number as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_numpy() {
        for (index, (dtype, name)) in NAMES.into_iter().enumerate() {
            assert_eq!(dtype as usize, index, "the table is in the order of the enum");
            assert_eq!(name[1..].parse(), Ok(dtype.size()));
            assert_eq!(Dtype::from_numpy_name(&dtype.numpy_name()), Some((dtype, false)));
        }
        assert_eq!(Dtype::from_numpy_name(">f4"), Some((Dtype::F32, true)));
        for strange in ["", "<", "<U5", "O", "<c8", "<f3", "V4", "<<f4"] {
            assert_eq!(Dtype::from_numpy_name(strange), None, "{strange}");
        }
    }

    #[test]
    fn bytes_must_fit_the_shape() {
        let data = Bytes::from_static(&[0; 8]);
        assert!(Array::new(Dtype::F32, vec![2], data.clone()).is_ok());
        assert!(Array::new(Dtype::F64, vec![], data.clone()).is_ok());
        let error = Array::new(Dtype::F32, vec![3], data.clone()).unwrap_err();
        assert_eq!(error.to_string(), "an array of shape [3] and dtype <f4 takes 12 bytes, not 8");
        let huge = vec![usize::MAX, 2];
        assert_eq!(
            Array::new(Dtype::U8, huge.clone(), data.clone()),
            Err(ArrayError::TooLarge { shape: huge })
        );
        assert_eq!(Array::new(Dtype::U8, vec![1; 9], data), Err(ArrayError::Rank { rank: 9 }));
    }

    #[test]
    fn every_dtype_converts() {
        let array = |dtype, bytes: &[u8]| {
            Array::new(dtype, vec![bytes.len() / Dtype::size(dtype)], Bytes::copy_from_slice(bytes)).unwrap()
        };
        assert_eq!(array(Dtype::Bool, &[0, 2]).to_f64(), [0.0, 1.0]);
        assert_eq!(array(Dtype::I8, &[0xff]).to_f64(), [-1.0]);
        assert_eq!(array(Dtype::U16, &[1, 2]).to_f64(), [513.0]);
        assert_eq!(array(Dtype::I64, &(-3_i64).to_le_bytes()).to_f32(), [-3.0]);
        assert_eq!(array(Dtype::F16, &f16::from_f32(1.5).to_le_bytes()).to_f32(), [1.5]);
        assert_eq!(array(Dtype::F64, &0.1_f64.to_le_bytes()).to_f32(), [0.1_f32]);
        assert_eq!(Array::from_f32(&[2], &[1.0, -2.5]).unwrap().to_f64(), [1.0, -2.5]);
    }
}
