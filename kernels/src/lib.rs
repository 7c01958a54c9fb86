//! The kernels on a CPU, and what must hold of them wherever they run.
//!
//! The folder's `.cu` files are compiled twice: by nvcc into the images that `skillweld-gpu` carries, and by a C++ compiler
//! into this crate, one fiber a thread (`emulation/`). [`properties::all`] is written once over
//! [`Target`](skillweld_gpu::Target); `tests/emulated.rs` and `tests/device.rs` run it on both.

pub mod cases;
mod emulator;
pub mod properties;

pub use emulator::{EmulatedMemory, EmulatedStaging, Emulator, Emulators};
