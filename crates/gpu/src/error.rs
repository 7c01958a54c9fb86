/// What an operation on a GPU returns.
pub type Result<T> = std::result::Result<T, GpuError>;

/// Why a GPU, or a kernel on it, could not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no GPU to use.
    #[error("no GPU to use: {reason}; leave out `--device cuda` to compute on the CPU")]
    Unavailable {
        /// Such as "no NVIDIA driver (libcuda) is installed".
        reason: String,
    },
    /// The driver refused.
    #[error("{operation}: the CUDA driver says {message}")]
    Driver {
        /// What was being done.
        operation: String,
        /// The driver's words.
        message: String,
    },
    /// No image holds this kernel.
    #[error("no kernel `{kernel}` in the images this binary carries; `cargo xtask kernels` rebuilds them")]
    NoKernel {
        /// Its name.
        kernel: String,
    },
    /// A plugin's device code is of no use here.
    #[error(
        "the device code that holds kernel `{kernel}` {problem}; leave out `--device cuda`, or ask the plugin's author"
    )]
    DeviceCode {
        /// The kernel that was wanted.
        kernel: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Operands that do not fit the operation.
    #[error("{operation}: {problem}")]
    Operands {
        /// Which operation.
        operation: &'static str,
        /// What does not fit.
        problem: String,
    },
    /// The emulation found a defect of a kernel.
    #[error("kernel `{kernel}`: {problem}")]
    Emulation {
        /// Its name.
        kernel: String,
        /// What happened.
        problem: String,
    },
}

/// Refuses operands unless `fits`.
pub(crate) fn require(fits: bool, operation: &'static str, problem: impl FnOnce() -> String) -> Result<()> {
    if fits { Ok(()) } else { Err(GpuError::Operands { operation, problem: problem() }) }
}
