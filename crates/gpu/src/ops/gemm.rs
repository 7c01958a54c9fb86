use skillweld_tensor::Dtype;

use super::pieces::{check, grid, suffix};
use crate::error::require;
use crate::{Argument, GpuError, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "gemm";
/// As in `kernels/src/gemm_plain.cu`.
const PLAIN_THREADS: u32 = 256;
const PLAIN_SIDE: usize = 64;
const PLAIN_SHARED_BYTES: u32 = 64 * 64 * 4;
/// As in `kernels/src/gemm.cu`: threads, warps and bf16 elements of a step along `inner`.
const MATRIX_THREADS: u32 = 128;
const WARPS: usize = 4;
const STEP: usize = 64;
/// Blocks that may share a tile, each with at least this many steps.
const MOST_PARTS: usize = 16;
const LEAST_STEPS: usize = 3;
/// What a block takes beside its steps, and what reading or writing one part's sums takes, both in steps.
const EXTRA_STEPS: f64 = 4.0;
const SUMS_STEPS: f64 = 1.0;

/// One of the kernels' tile shapes.
struct Shape {
    side: usize,
    shared_bytes: u32,
    /// Of an element of a step, against the largest tile.
    speed: f64,
}

/// Smallest first.
static SHAPES: [Shape; 2] = [
    Shape { side: 64, shared_bytes: 4 * 2 * 64 * 128, speed: 0.45 },
    Shape { side: 128, shared_bytes: 3 * 2 * 128 * 128, speed: 1.0 },
];

impl Shape {
    fn kernel(&self, out: Dtype) -> Result<String> {
        Ok(format!("{OPERATION}_{}_{}", self.side, suffix(OPERATION, out)?))
    }

    /// Bytes of a tile's sums.
    fn sums_bytes(&self) -> usize {
        self.side * self.side * 4
    }
}

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
    /// F32, one a column; of the result's dtype for [`CublasLt`](crate::CublasLt).
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

impl Linear<'_> {
    /// Refuses operands that do not fit.
    pub(crate) fn check_with_bias(&self, bias: Dtype) -> Result<()> {
        checked(self, bias).map(|_| ())
    }
}

/// Memory that [`linear`] needs beside its operands: sums of parts of `inner`, where there are too few rows and columns
/// to keep a GPU busy. One a stream; the same for layers of any shape.
#[derive(Debug)]
pub struct LinearScratch<M> {
    sums: M,
    /// One counter a warp's sums: how many blocks left theirs. Zero between launches.
    arrivals: M,
    /// Blocks that run at once, for every entry of [`SHAPES`].
    at_once: [u32; SHAPES.len()],
}

impl<M: Memory> LinearScratch<M> {
    /// Room for two tiles of sums a block that runs at once.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new<T: Target<Memory = M>>(target: &T) -> Result<Self> {
        let mut at_once = [0; SHAPES.len()];
        for (count, shape) in at_once.iter_mut().zip(&SHAPES) {
            *count =
                target.resident_blocks(&shape.kernel(Dtype::BF16)?, MATRIX_THREADS, shape.shared_bytes)?;
        }
        let sums_bytes =
            at_once.iter().zip(&SHAPES).map(|(&count, shape)| 2 * count as usize * shape.sums_bytes());
        let sums_bytes = sums_bytes.max().unwrap_or(0);
        let sums = target.allocate(sums_bytes)?;
        let mut arrivals = target.allocate(sums_bytes / SHAPES[0].sums_bytes() * WARPS * 4)?;
        target.fill(&mut arrivals, 0)?;
        Ok(Self { sums, arrivals, at_once })
    }
}

/// Asks for the layer. It may be recorded in a graph.
///
/// bf16 operands with a multiple of 8 columns go to the matrix units; all others are for tests: they are summed by plain
/// f32 instructions.
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
    let Operands { then, beside, scale } = checked(linear, Dtype::F32)?;
    if linear.rows == 0 || linear.columns == 0 {
        return Ok(());
    }
    let mut arguments = vec![
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
    let by_matrix_units = linear.x.dtype == Dtype::BF16 && linear.inner > 0 && linear.inner.is_multiple_of(8);
    let (kernel, side, parts, threads, shared_bytes) = if by_matrix_units {
        let Plan { shape, parts, steps_of_part } = plan(linear, scratch);
        arguments.extend([
            Argument::U64(scratch.sums.address()),
            Argument::U64(scratch.arrivals.address()),
            Argument::U32(steps_of_part as u32),
        ]);
        (shape.kernel(linear.out.dtype)?, shape.side, parts, MATRIX_THREADS, shape.shared_bytes)
    } else {
        (plain_kernel(linear)?, PLAIN_SIDE, 1, PLAIN_THREADS, PLAIN_SHARED_BYTES)
    };
    let grid =
        [grid(OPERATION, linear.rows.div_ceil(side))?, linear.columns.div_ceil(side) as u32, parts as u32];
    let arguments = &arguments;
    let launch = Launch { kernel: &kernel, grid, threads, shared_bytes, cooperative: false, arguments };
    // SAFETY: the arguments are the kernel's, and `checked` saw to it that every array has the elements that it reads or
    // writes; they are borrowed until the launch is asked for, memory is freed in the stream's order, and the scratch
    // memory, borrowed mutably, has room for what `plan` asks for.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        target.launch(&launch)
    }
}

fn plain_kernel(linear: &Linear<'_>) -> Result<String> {
    Ok(format!(
        "{OPERATION}_plain_{}_{}_{}",
        suffix(OPERATION, linear.x.dtype)?,
        suffix(OPERATION, linear.weight.dtype)?,
        suffix(OPERATION, linear.out.dtype)?
    ))
}

/// How a launch is cut into blocks.
struct Plan {
    shape: &'static Shape,
    parts: usize,
    steps_of_part: usize,
}

/// The plan that ought to be fastest: as few rounds of blocks as can be, each as short as can be.
fn plan<M: Memory>(linear: &Linear<'_>, scratch: &LinearScratch<M>) -> Plan {
    let steps = linear.inner.div_ceil(STEP);
    let mut best = Plan { shape: &SHAPES[0], parts: 1, steps_of_part: steps };
    let mut best_cost = f64::INFINITY;
    for (shape, &at_once) in SHAPES.iter().zip(&scratch.at_once) {
        let tiles = linear.rows.div_ceil(shape.side) * linear.columns.div_ceil(shape.side);
        for wanted in 1..=MOST_PARTS.min(steps) {
            let steps_of_part = steps.div_ceil(wanted);
            let parts = steps.div_ceil(steps_of_part);
            let fits = tiles * parts * shape.sums_bytes() <= scratch.sums.byte_len();
            if parts > 1 && (!fits || steps_of_part < LEAST_STEPS) {
                continue;
            }
            // A multiprocessor with half its blocks is a little more than half as long at work.
            let halves = (2 * tiles * parts).div_ceil(at_once.max(1) as usize);
            let rounds = if halves <= 1 { 0.65 } else { halves as f64 / 2.0 };
            let sums_steps = if parts > 1 { SUMS_STEPS * (parts + 1) as f64 } else { 0.0 };
            let work = steps_of_part as f64 + EXTRA_STEPS + sums_steps;
            let area = (shape.side * shape.side) as f64 / shape.speed;
            let cost = rounds * f64::from(at_once.max(1)) * work * area;
            if cost < best_cost {
                (best, best_cost) = (Plan { shape, parts, steps_of_part }, cost);
            }
        }
    }
    best
}

/// What the kernels take beside x, W, bias and y.
struct Operands {
    then: u32,
    beside: u64,
    scale: u64,
}

fn checked(linear: &Linear<'_>, bias_dtype: Dtype) -> Result<Operands> {
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
        operand("bias", bias, bias_dtype, columns)?;
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
