use crate::Dtype;

/// What can be wrong with a tensor. The caller knows its name and adds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The bytes do not hold exactly the elements that dtype and shape promise.
    #[error("{dtype} tensor of shape {shape:?} needs {expected_bytes} bytes, got {actual_bytes}")]
    WrongSize {
        /// Element type promised.
        dtype: Dtype,
        /// Shape promised.
        shape: Vec<usize>,
        /// Bytes that dtype and shape need.
        expected_bytes: usize,
        /// Bytes that were given.
        actual_bytes: usize,
    },
    /// The number of elements or bytes does not fit into this machine's addresses.
    #[error("shape {shape:?} has more elements than this machine can address")]
    TooLarge {
        /// The offending shape.
        shape: Vec<usize>,
    },
    /// The dtype is stored and copied but has no arithmetic here.
    #[error(
        "{dtype} tensors are copied, never computed with; merge needs one of F64, F32, F16, BF16, F8_E4M3, F8_E5M2"
    )]
    NotComputable {
        /// The offending dtype.
        dtype: Dtype,
    },
    /// Two shapes that must agree do not.
    #[error("{what}: shape {actual:?} does not fit {expected:?}")]
    ShapeMismatch {
        /// What was being checked.
        what: &'static str,
        /// The shape it must have.
        expected: Vec<usize>,
        /// The shape it has.
        actual: Vec<usize>,
    },
}
