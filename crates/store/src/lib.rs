//! Checkpoints on disk: read them without copying, write them so that nothing is ever left half-written.
//!
//! - [`Checkpoint`]: one model's tensors by key, whether they lie in safetensors files, shards or PyTorch zip files.
//! - [`TorchFile`]: PyTorch's zip files through a reader that knows only tensors and plain containers.
//! - [`Adapter`]: a PEFT LoRA adapter, kept as factors.
//! - [`ExpertFiles`]: the action head and other parts beside an expert's weights, and the files to copy along.
//! - [`Family`], [`Modality`], [`LayerKey`]: what model a checkpoint is of, what each key is for, in which layer it is.
//! - [`OutputDir`], [`SafetensorsWriter`]: a directory that appears complete or not at all.
//! - [`TensorHasher`], [`content_hash`]: BLAKE3 of tensors and checkpoints, built block by block in any order.
//!
//! This crate knows files, not mathematics: it converts no dtype except the factors of adapters, merges nothing and
//! starts no threads.

mod aliases;
mod checkpoint;
mod copy;
mod error;
mod expert;
mod family;
mod hash;
mod json;
mod layers;
mod locate;
mod mapped;
mod output;
mod peft;
mod replace;
mod safetensors;
mod stored;
mod torch;
mod torch_writer;

pub use checkpoint::Checkpoint;
pub use copy::{Link, copy_file, link_file, reflink_file};
pub use error::{AdapterProblem, ArchiveProblem, HeaderProblem, IndexProblem, PickleProblem, StoreError};
pub use expert::ExpertFiles;
pub use family::{Family, Modality, is_normalisation_buffer, is_unused};
pub use hash::{ChainingValue, Hash, TensorHasher, content_hash};
pub use json::write_json;
pub use layers::LayerKey;
pub use output::OutputDir;
pub use peft::{Adapter, AdapterDelta};
pub use replace::replace_file;
pub use safetensors::{SafetensorsWriter, TensorSpec, WrittenFiles};
pub use stored::StoredTensor;
pub use torch::{PickleValue, TorchFile};
pub use torch_writer::{TorchNode, TorchTensor, write_torch_file, write_torch_zip};
