//! The few rows that run through all blocks of an action expert, in f64.

use skillweld_tensor::Dtype;

use super::rows::{RowsView, RowsViewMut, count, float, padded, shaped, start, typed, vector};
use crate::{Argument, Result, Target, View};

/// As in `kernels/src/precise_trunk.cu`.
const THREADS: u32 = 128;
const WARPS: usize = 4;

/// out = x · Wᵀ + bias, plus what `add` holds (it may be what was in another such matrix), then ReLU if asked for: x BF16,
/// F32 or F64, weight BF16 or F32, bias F32, add and out F64. Sums in f64.
///
/// Twin: the policy's CPU backend, `trunk_block`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn precise_linear<T: Target>(
    target: &T,
    x: RowsView<'_>,
    weight: RowsView<'_>,
    bias: View<'_>,
    add: Option<RowsView<'_>>,
    relu: bool,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    const OPERATION: &str = "precise_trunk_linear";
    shaped(OPERATION, "weight", (weight.rows, weight.columns), (weight.rows, x.columns))?;
    shaped(OPERATION, "out", (out.rows, out.columns), (x.rows, weight.rows))?;
    typed(OPERATION, "out", out.dtype(), Dtype::F64)?;
    let bias = vector(OPERATION, "bias", bias, weight.rows)?;
    if let Some(add) = &add {
        shaped(OPERATION, "add", (add.rows, add.columns), (out.rows, out.columns))?;
        typed(OPERATION, "add", add.dtype(), Dtype::F64)?;
    }
    let read = if x.dtype() == Dtype::F64 { "f64" } else { float(OPERATION, x.dtype())? };
    let kernel = format!("{OPERATION}_{read}_{}", float(OPERATION, weight.dtype())?);
    let arguments = [
        x.address(),
        weight.address(),
        Argument::U64(bias),
        add.map_or(Argument::U64(0), |add| add.address()),
        out.address(),
        count(OPERATION, "rows", x.rows)?,
        count(OPERATION, "features", weight.rows)?,
        count(OPERATION, "columns", x.columns)?,
        Argument::U32(u32::from(relu)),
    ];
    // SAFETY: shapes that fit one another, rows padded as `RowsView` says, all borrowed here.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, [weight.rows.div_ceil(WARPS), 1, 1], THREADS, 0, &arguments)
    }
}

/// (x − mean) / √(variance + ε) ⊙ gain + bias over each row of x (F64), in place.
///
/// Twin: the policy's CPU backend, `trunk_block`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn precise_layer_norm<T: Target>(
    target: &T,
    x: &mut RowsViewMut<'_>,
    gain: View<'_>,
    bias: View<'_>,
    epsilon: f32,
) -> Result<()> {
    const OPERATION: &str = "precise_trunk_norm";
    typed(OPERATION, "x", x.dtype(), Dtype::F64)?;
    let arguments = [
        x.address(),
        Argument::U64(vector(OPERATION, "gain", gain, x.columns)?),
        Argument::U64(vector(OPERATION, "bias", bias, x.columns)?),
        Argument::F32(epsilon),
        count(OPERATION, "rows", x.rows)?,
        count(OPERATION, "columns", x.columns)?,
    ];
    // SAFETY: vectors as wide as the rows of x, all borrowed here.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, OPERATION, [x.rows.div_ceil(WARPS), 1, 1], THREADS, 0, &arguments)
    }
}

/// x (F64) rounded to out (F32).
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn precise_read<T: Target>(target: &T, x: RowsView<'_>, out: &mut RowsViewMut<'_>) -> Result<()> {
    const OPERATION: &str = "precise_trunk_read";
    shaped(OPERATION, "out", (out.rows, out.columns), (x.rows, x.columns))?;
    typed(OPERATION, "x", x.dtype(), Dtype::F64)?;
    typed(OPERATION, "out", out.dtype(), Dtype::F32)?;
    let numel = x.rows * padded(x.columns);
    let arguments = [x.address(), out.address(), Argument::U64(numel as u64)];
    // SAFETY: both have as many elements as are counted.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, OPERATION, [numel.div_ceil(THREADS as usize), 1, 1], THREADS, 0, &arguments)
    }
}
