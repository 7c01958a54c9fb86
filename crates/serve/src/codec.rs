//! msgpack with NumPy arrays, in the forms of the packers that robots' clients use.
//!
//! In openpi's an array is a map with the *bin* keys `__ndarray__` (true), `data` (its bytes in C order), `dtype` (`"<f4"`) and
//! `shape`; the others are told in the file `numpy.rs`. What is read may be in any form, with inner keys bin or str; what is
//! written is in one form, with that packer's keys, because clients look for nothing else. Pickles are never read.

mod decode;
mod encode;
#[cfg(feature = "zmq")]
mod npy;
mod numpy;

#[cfg(feature = "zmq")]
pub(crate) use decode::decode_noting_form;
pub use decode::{DecodeError, decode};
pub use encode::encode;
pub(crate) use encode::encode_in;
pub(crate) use numpy::Form;

/// How much one message may hold. Frames are bounded before by [`Limits::frame_bytes`](crate::Limits::frame_bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Maps and lists inside one another.
    pub depth: usize,
    /// Values in all: entries of maps and lists, their keys not counted. An array counts as its entries, of which it has two to five. Memory
    /// beside the frame is at most some hundred bytes for each, but never more than some hundred for each byte received.
    pub elements: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { depth: 16, elements: 1 << 16 }
    }
}
