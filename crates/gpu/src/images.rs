//! The compiled kernels that the binary carries: one image a source file, each with machine code for several GPUs.

use std::path::Path;

use crate::{GpuError, Result};

/// A folder of images to use instead of the embedded ones: for who tunes a kernel.
pub const KERNELS_VARIABLE: &str = "SKILLWELD_KERNELS";

macro_rules! images {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../kernels/prebuilt/", $name, ".fatbin")))),+]
    };
}

/// Source file and image, in the order in which `kernels/README.md` lists them.
static IMAGES: &[(&str, &[u8])] = images![
    "masked_apply",
    "masks",
    "merge",
    "threshold",
    "gemm_plain",
    "gemm",
    "low_rank",
    "low_rank_resident",
    "low_rank_split",
    "gated_attention",
    "expert",
    "expert_persistent",
    "norm",
    "rope",
    "activation",
    "copies",
    "patches",
    "prefill_attention",
    "plain_attention",
    "precise_trunk",
    "router",
    "blocks",
];

/// Name and bytes of every embedded image.
pub fn kernel_images() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    IMAGES.iter().copied()
}

/// The image that holds a kernel: the one whose name the kernel's begins with; the longest, if there are several.
pub(crate) fn image_of(kernel: &str) -> Result<(&'static str, Vec<u8>)> {
    let (name, embedded) = kernel_images()
        .filter(|(name, _)| kernel.starts_with(name))
        .max_by_key(|(name, _)| name.len())
        .ok_or_else(|| GpuError::NoKernel { kernel: kernel.to_owned() })?;
    let Some(folder) = std::env::var_os(KERNELS_VARIABLE) else { return Ok((name, embedded.to_vec())) };
    let path = Path::new(&folder).join(name).with_extension("fatbin");
    let image = std::fs::read(&path).map_err(|error| GpuError::Driver {
        operation: format!("read {} (from {KERNELS_VARIABLE})", path.display()),
        message: error.to_string(),
    })?;
    Ok((name, image))
}
