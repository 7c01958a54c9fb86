use skillweld_tensor::Dtype;

use super::pieces::EIGHT;
use super::rows::{RowsView, RowsViewMut, count, float, padded, shaped, start, typed};
use crate::error::require;
use crate::{Argument, Result, Target};

const OPERATION: &str = "patches";
/// As in `kernels/src/patches.cu`.
const THREADS: u32 = 128;

/// Square patches of images whose channels are rows, pixels row by row in the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchShape {
    /// Number of images.
    pub images: usize,
    /// Rows that an image takes.
    pub channels_per_image: usize,
    /// Which of them are read.
    pub first_channel: usize,
    /// How many are read.
    pub channels: usize,
    /// Side of an image in pixels.
    pub image_side: usize,
    /// Side of a patch in pixels.
    pub patch_side: usize,
}

/// One row a patch, images one after the other, patches row by row; in a row channel, then row, then column. Pixels F32,
/// out BF16 or F32.
///
/// Twin: the policy's CPU backend, `patches`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn patches<T: Target>(
    target: &T,
    pixels: RowsView<'_>,
    shape: PatchShape,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    let PatchShape { images, channels_per_image, first_channel, channels, image_side, patch_side } = shape;
    typed(OPERATION, "pixels", pixels.dtype(), Dtype::F32)?;
    require(patch_side > 0 && image_side >= patch_side && channels > 0, OPERATION, || {
        format!("{channels} channels of patches of side {patch_side} in images of side {image_side}")
    })?;
    require(first_channel + channels <= channels_per_image, OPERATION, || {
        format!("{channels} channels from {first_channel} on, of {channels_per_image}")
    })?;
    shaped(
        OPERATION,
        "pixels",
        (pixels.rows, pixels.columns),
        (images * channels_per_image, image_side * image_side),
    )?;
    let rows = images * (image_side / patch_side).pow(2);
    let columns = channels * patch_side * patch_side;
    shaped(OPERATION, "out", (out.rows, out.columns), (rows, columns))?;
    let arguments = [
        pixels.address(),
        Argument::U64(padded(pixels.columns) as u64),
        count(OPERATION, "images", images)?,
        count(OPERATION, "channels_per_image", channels_per_image)?,
        count(OPERATION, "first_channel", first_channel)?,
        count(OPERATION, "channels", channels)?,
        count(OPERATION, "image_side", image_side)?,
        count(OPERATION, "patch_side", patch_side)?,
        out.address(),
    ];
    let kernel = format!("{OPERATION}_{}", float(OPERATION, out.dtype())?);
    let blocks = (rows * padded(columns) / EIGHT).div_ceil(THREADS as usize);
    // SAFETY: pixels and out have the shapes that the kernel computes from the numbers given, both borrowed here.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, [blocks, 1, 1], THREADS, 0, &arguments)
    }
}
