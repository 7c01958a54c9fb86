//! The safetensors format: `[header length, u64 LE][JSON header][data]`, see
//! <https://huggingface.co/docs/safetensors>. The header is parsed here rather than by the `safetensors` crate so that
//! every error can name the tensor, its offsets and a remedy.

mod header;
mod index;
mod writer;

pub(crate) use header::parse as parse_header;
pub(crate) use index::read as read_index;
pub use writer::{SafetensorsWriter, TensorSpec, WrittenFiles};
