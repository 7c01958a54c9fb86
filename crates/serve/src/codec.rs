//! msgpack with NumPy arrays, as `openpi_client.msgpack_numpy` writes and reads it.
//!
//! An array is a map with the *bin* keys `__ndarray__` (true), `data` (its bytes in C order), `dtype` (`"<f4"`) and `shape`; a
//! NumPy scalar is one with `__npgeneric__`, `data` and `dtype`. All other keys are str. What is read may have these inner
//! keys as str, too; what is written has bin, because openpi's client looks for nothing else.

mod decode;
mod encode;

pub use decode::{DecodeError, decode};
pub use encode::encode;

/// How much one message may hold. Frames are bounded before by [`Limits::frame_bytes`](crate::Limits::frame_bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Maps and lists inside one another.
    pub depth: usize,
    /// Values in all: entries of maps and lists, their keys not counted. An array counts as its four entries. Memory
    /// beside the frame is at most some hundred bytes for each, but never more than some hundred for each byte received.
    pub elements: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { depth: 16, elements: 1 << 16 }
    }
}
