//! The GPU: what is there, our kernels' images, memory, streams, graphs, and one typed launch a kernel.
//!
//! - [`Device::open`] probes, and says in one sentence why there is none.
//! - [`Target`]: where kernels run. [`Device`] is one; the emulation that tests use on a CPU is another, so that everything
//!   in [`ops`] runs the same on both, launch shapes included.
//! - [`CublasLt`]: NVIDIA's products, where they are installed.
//! - [`ops`]: one function or struct a kernel, shapes and dtypes checked before anything is launched.
//!
//! The kernels' sources are in `kernels/`; `images` holds what `cargo xtask kernels` compiled from them.

mod array;
mod cublaslt;
mod device;
mod error;
mod graph;
mod images;
mod loaded;
pub mod ops;
mod staged;
mod target;

pub use array::{Array, View, ViewMut};
pub use cublaslt::{CUBLASLT_VARIABLE, CublasLt};
pub use device::{Device, DeviceMemory};
pub use error::{GpuError, Result};
pub use graph::Graph;
pub use images::{KERNELS_VARIABLE, kernel_images};
pub use staged::PinnedMemory;
pub use target::{Argument, Fork, Launch, Memory, Staging, Target};
