use skillweld_tensor::Dtype;

use super::pieces::{check, grid, suffix};
use crate::error::require;
use crate::{Argument, GpuError, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "gemm";
/// As in `kernels/src/gemm.cu`.
const THREADS: u32 = 256;
const PLAIN_SIDE: usize = 64;
const PLAIN_SHARED_BYTES: u32 = 2 * 16 * 65 * 4;

/// What a [`Linear`] layer does with y while it is in registers. `residual` and `gate` are rows × columns of the result's
/// dtype.
#[derive(Debug, Clone, Copy)]
pub enum LinearThen<'a> {
    /// Nothing.
    Keep,
    /// ½ y (1 + erf(y / √2)), exactly.
    Gelu,
    /// residual + scale ⊙ y.
    AddTo {
        /// The residual stream.
        residual: View<'a>,
        /// LayerScale: F32, one a column; 1 where there is none.
        scale: Option<View<'a>>,
    },
    /// silu(gate) ⊙ y, silu(g) = g / (1 + exp(−g)).
    SiluGate(View<'a>),
    /// max(y, 0).
    Relu,
}

/// One linear layer: y = x · Wᵀ + bias, then `then`; sums in f32, rounded once.
#[derive(Debug)]
pub struct Linear<'a> {
    /// rows × inner: BF16 or F32.
    pub x: View<'a>,
    /// W, columns × inner, as PyTorch stores a linear layer: BF16, or F32 if x is.
    pub weight: View<'a>,
    /// F32, one a column.
    pub bias: Option<View<'a>>,
    /// Rows of x and of the result.
    pub rows: usize,
    /// Columns of the result: output features.
    pub columns: usize,
    /// Columns of x and of W: input features.
    pub inner: usize,
    /// What to do with y.
    pub then: LinearThen<'a>,
    /// rows × columns: BF16 or F32.
    pub out: ViewMut<'a>,
}

/// Memory that [`linear`] needs beside its operands: sums of parts of `inner`, where there are too few rows and columns
/// to keep a GPU busy. One a stream; the same for layers of any shape.
#[derive(Debug)]
pub struct LinearScratch<M> {
    sums: M,
}

impl<M: Memory> LinearScratch<M> {
    /// Room for the sums.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new<T: Target<Memory = M>>(target: &T) -> Result<Self> {
        Ok(Self { sums: target.allocate(16)? })
    }
}

/// Asks for the layer. It may be recorded in a graph.
///
/// Twin: the policy's `Cpu::linear`.
///
/// # Errors
/// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; whatever the target refuses.
pub fn linear<T: Target>(
    target: &T,
    scratch: &mut LinearScratch<T::Memory>,
    linear: &Linear<'_>,
) -> Result<()> {
    let Operands { then, beside, scale } = checked(linear)?;
    let _ = scratch.sums.address();
    if linear.rows == 0 || linear.columns == 0 {
        return Ok(());
    }
    let kernel = format!(
        "{OPERATION}_plain_{}_{}_{}",
        suffix(OPERATION, linear.x.dtype)?,
        suffix(OPERATION, linear.weight.dtype)?,
        suffix(OPERATION, linear.out.dtype)?
    );
    let arguments = [
        Argument::U64(linear.x.address),
        Argument::U64(linear.weight.address),
        Argument::U64(linear.bias.map_or(0, |bias| bias.address)),
        Argument::U64(beside),
        Argument::U64(scale),
        Argument::U64(linear.out.address),
        Argument::U32(linear.rows as u32),
        Argument::U32(linear.columns as u32),
        Argument::U32(linear.inner as u32),
        Argument::U32(then),
    ];
    let grid =
        [grid(OPERATION, linear.rows.div_ceil(PLAIN_SIDE))?, linear.columns.div_ceil(PLAIN_SIDE) as u32, 1];
    let launch = Launch {
        kernel: &kernel,
        grid,
        threads: THREADS,
        shared_bytes: PLAIN_SHARED_BYTES,
        cooperative: false,
        arguments: &arguments,
    };
    // SAFETY: the arguments are the kernel's, and `checked` saw to it that every array has the elements that it reads or
    // writes; they are borrowed until the launch is asked for, and memory is freed in the stream's order.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        target.launch(&launch)
    }
}

/// What the kernels take beside x, W, bias and y.
struct Operands {
    then: u32,
    beside: u64,
    scale: u64,
}

fn checked(linear: &Linear<'_>) -> Result<Operands> {
    let Linear { x, weight, bias, rows, columns, inner, then, out } = linear;
    let (rows, columns, inner) = (*rows, *columns, *inner);
    let dtypes = (x.dtype, weight.dtype, out.dtype);
    let known = matches!(
        dtypes,
        (Dtype::F32, Dtype::F32 | Dtype::BF16, Dtype::F32 | Dtype::BF16)
            | (Dtype::BF16, Dtype::BF16, Dtype::F32 | Dtype::BF16)
    );
    require(known, OPERATION, || {
        format!(
            "{} x by {} weights to {}; x may be F32 or BF16, weights BF16 or what x is, the result F32 or BF16",
            dtypes.0, dtypes.1, dtypes.2
        )
    })?;
    // Kernels count rows and columns with 32 bits, and grids have at most 65,535 blocks in y.
    let small =
        [rows, inner].iter().all(|&side| i32::try_from(side).is_ok()) && columns < 65_535 * PLAIN_SIDE;
    require(small, OPERATION, || format!("{rows} × {inner} by {columns} × {inner} is too large"))?;
    let product = |a: usize, b: usize| {
        a.checked_mul(b).ok_or_else(|| GpuError::Operands {
            operation: OPERATION,
            problem: format!("{a} × {b} elements are more than a machine can address"),
        })
    };
    let operand = |name, view: &View<'_>, dtype, numel| {
        check(OPERATION, name, (view.address, view.dtype, view.numel), dtype, numel)
    };
    operand("x", x, x.dtype, product(rows, inner)?)?;
    operand("weight", weight, weight.dtype, product(columns, inner)?)?;
    let numel = product(rows, columns)?;
    operand("out", &out.as_view(), out.dtype, numel)?;
    if let Some(bias) = bias {
        operand("bias", bias, Dtype::F32, columns)?;
    }
    // The numbers of `enum Then` in `kernels/include/linear.cuh`.
    let (then, beside, scale) = match then {
        LinearThen::Keep => (0, None, None),
        LinearThen::Gelu => (1, None, None),
        LinearThen::AddTo { residual, scale } => (2, Some(("residual", residual)), scale.as_ref()),
        LinearThen::SiluGate(gate) => (3, Some(("gate", gate)), None),
        LinearThen::Relu => (4, None, None),
    };
    if let Some((name, beside)) = beside {
        operand(name, beside, out.dtype, numel)?;
    }
    if let Some(scale) = scale {
        operand("scale", scale, Dtype::F32, columns)?;
    }
    let address = |view: Option<&View<'_>>| view.map_or(0, |view| view.address);
    Ok(Operands { then, beside: address(beside.map(|(_, view)| view)), scale: address(scale) })
}
