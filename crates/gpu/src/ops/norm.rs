use skillweld_tensor::Dtype;

use super::rows::{RowsView, RowsViewMut, count, float, shaped, start, vector};
use crate::error::require;
use crate::{Argument, Result, Target, View};

/// As in `kernels/src/norm.cu`.
const THREADS: u32 = 128;
const ROWS_OF_BLOCK: usize = 4;
/// Widths that a kernel keeps in registers, in 256 columns.
const HELD: [usize; 3] = [4, 5, 8];

/// (x − mean) / √(variance + ε) ⊙ gain + bias over each row. `gain` and `bias` are F32 and padded as a row is; x and out
/// BF16 or F32, out not wider than x.
///
/// Twin: the policy's CPU backend, `layer_norm`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn layer_norm<T: Target>(
    target: &T,
    x: RowsView<'_>,
    gain: View<'_>,
    bias: View<'_>,
    epsilon: f32,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    norm(target, "norm_layer", x, (gain, Some(bias)), epsilon, out)
}

/// x / √(mean(x²) + ε) ⊙ gain over each row; operands as in [`layer_norm`].
///
/// Twin: the policy's CPU backend, `rms_norm`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn rms_norm<T: Target>(
    target: &T,
    x: RowsView<'_>,
    gain: View<'_>,
    epsilon: f32,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    norm(target, "norm_rms", x, (gain, None), epsilon, out)
}

fn norm<T: Target>(
    target: &T,
    operation: &'static str,
    x: RowsView<'_>,
    (gain, bias): (View<'_>, Option<View<'_>>),
    epsilon: f32,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    shaped(operation, "out", (out.rows, out.columns), (x.rows, x.columns))?;
    require(x.dtype() == Dtype::F32 || out.dtype() == Dtype::BF16, operation, || {
        format!("`out` is of {}, wider than `x` of {}", out.dtype(), x.dtype())
    })?;
    let gain = vector(operation, "gain", gain, x.columns)?;
    let bias = bias.map_or(Ok(0), |bias| vector(operation, "bias", bias, x.columns))?;
    let held = HELD.into_iter().find(|held| x.columns <= held * 256).unwrap_or(0);
    let kernel =
        format!("{operation}_{}_{}_{held}", float(operation, x.dtype())?, float(operation, out.dtype())?);
    let arguments = [
        x.address(),
        Argument::U64(gain),
        Argument::U64(bias),
        Argument::F32(epsilon),
        out.address(),
        count(operation, "rows", x.rows)?,
        count(operation, "columns", x.columns)?,
    ];
    let blocks = if x.columns == 0 { 0 } else { x.rows.div_ceil(ROWS_OF_BLOCK) };
    // SAFETY: matrices of one shape whose rows lie as `RowsView` says, vectors of their padded width, all borrowed here.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, [blocks, 1, 1], THREADS, 0, &arguments)
    }
}
