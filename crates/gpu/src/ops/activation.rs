//! What follows a product, element by element.

use super::pieces::EIGHT;
use super::rows::{RowsView, RowsViewMut, count, float, padded, shaped, start, typed, vector};
use crate::{Argument, Result, Target, View};

/// As in `kernels/src/activation.cu`.
const THREADS: u32 = 256;

/// ½ x (1 + erf(x / √2)), exactly. x and out BF16 or F32.
///
/// Twin: the policy's CPU backend, `Then::Gelu`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn gelu<T: Target>(target: &T, x: RowsView<'_>, out: &mut RowsViewMut<'_>) -> Result<()> {
    const OPERATION: &str = "activation_gelu";
    shaped(OPERATION, "out", (out.rows, out.columns), (x.rows, x.columns))?;
    let kernel = format!("{OPERATION}_{}_{}", float(OPERATION, x.dtype())?, float(OPERATION, out.dtype())?);
    run(target, &kernel, x, &[x.address(), out.address(), numel(x)])
}

/// silu(gate) ⊙ up, silu(g) = g / (1 + exp(−g)). gate and up of one dtype, all BF16 or F32.
///
/// Twin: the policy's CPU backend, `Then::SiluGate`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn swiglu<T: Target>(
    target: &T,
    gate: RowsView<'_>,
    up: RowsView<'_>,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    const OPERATION: &str = "activation_swiglu";
    shaped(OPERATION, "up", (up.rows, up.columns), (gate.rows, gate.columns))?;
    shaped(OPERATION, "out", (out.rows, out.columns), (gate.rows, gate.columns))?;
    typed(OPERATION, "up", up.dtype(), gate.dtype())?;
    let kernel =
        format!("{OPERATION}_{}_{}", float(OPERATION, gate.dtype())?, float(OPERATION, out.dtype())?);
    run(target, &kernel, gate, &[gate.address(), up.address(), out.address(), numel(gate)])
}

/// residual + scale ⊙ y, scale one F32 value a column (LayerScale) or 1. The others BF16 or F32.
///
/// Twin: the policy's CPU backend, `Then::AddTo`.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn add<T: Target>(
    target: &T,
    y: RowsView<'_>,
    residual: RowsView<'_>,
    scale: Option<View<'_>>,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    const OPERATION: &str = "activation_add";
    shaped(OPERATION, "residual", (residual.rows, residual.columns), (y.rows, y.columns))?;
    shaped(OPERATION, "out", (out.rows, out.columns), (y.rows, y.columns))?;
    let scale = scale.map_or(Ok(0), |scale| vector(OPERATION, "scale", scale, y.columns))?;
    let kernel = format!(
        "{OPERATION}_{}_{}_{}",
        float(OPERATION, y.dtype())?,
        float(OPERATION, residual.dtype())?,
        float(OPERATION, out.dtype())?
    );
    let arguments = [
        y.address(),
        residual.address(),
        Argument::U64(scale),
        out.address(),
        numel(y),
        count(OPERATION, "columns", padded(y.columns))?,
    ];
    run(target, &kernel, y, &arguments)
}

/// Elements, zeros after the rows included: they stay zero.
fn numel(x: RowsView<'_>) -> Argument {
    Argument::U64((x.rows * padded(x.columns)) as u64)
}

fn run<T: Target>(target: &T, kernel: &str, x: RowsView<'_>, arguments: &[Argument]) -> Result<()> {
    let blocks = (x.rows * padded(x.columns) / EIGHT).div_ceil(THREADS as usize);
    // SAFETY: the callers checked that all matrices have the shape of x, whose padded elements are counted.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, kernel, [blocks, 1, 1], THREADS, 0, arguments)
    }
}
