use skillweld_tensor::Dtype;

use super::rows::{RowsView, RowsViewMut, count, float, padded, shaped, start, typed, vector};
use crate::{Argument, Result, Target, View};

const OPERATION: &str = "plain_product";
/// As in `kernels/src/plain_product.cu`.
const THREADS: u32 = 256;
const TILE: usize = 64;
const DEPTH: usize = 16;
const PITCH: usize = TILE + 4;

/// x · Wᵀ + bias in f32: x (rows × columns) and weight (features × columns) of one dtype, BF16 or F32; bias and out F32.
///
/// Twin: `skillweld_linalg::Product`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn plain_product<T: Target>(
    target: &T,
    x: RowsView<'_>,
    weight: RowsView<'_>,
    bias: Option<View<'_>>,
    out: RowsViewMut<'_>,
) -> Result<()> {
    shaped(OPERATION, "weight", (weight.rows, weight.columns), (weight.rows, x.columns))?;
    shaped(OPERATION, "out", (out.rows, out.columns), (x.rows, weight.rows))?;
    typed(OPERATION, "weight", weight.dtype(), x.dtype())?;
    typed(OPERATION, "out", out.dtype(), Dtype::F32)?;
    let bias = bias.map_or(Ok(0), |bias| vector(OPERATION, "bias", bias, weight.rows))?;
    let arguments = [
        x.address(),
        weight.address(),
        Argument::U64(bias),
        out.address(),
        count(OPERATION, "rows", x.rows)?,
        count(OPERATION, "features", weight.rows)?,
        count(OPERATION, "columns", x.columns)?,
    ];
    let kernel = format!("{OPERATION}_{}", float(OPERATION, x.dtype())?);
    let grid = [padded(weight.rows).div_ceil(TILE), x.rows.div_ceil(TILE), 1];
    // SAFETY: shapes that fit one another, rows padded as `RowsView` says, all borrowed here.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, grid, THREADS, 2 * DEPTH * PITCH * size_of::<f32>(), &arguments)
    }
}
