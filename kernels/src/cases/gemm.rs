use skillweld_gpu::ops::{Linear, LinearScratch, LinearThen, linear};
use skillweld_gpu::{Array, CublasLt, Device, DeviceMemory, GpuError, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::bf16_values;
use super::{Case, Work};

/// Bytes of weights to go through before one is read again: more than any L2 holds. Activations stay there, as in a model.
const WEIGHT_BYTES: usize = 200 << 20;

/// Rows of x, output and input features.
type Shape = (usize, usize, usize);

/// One shape by our kernel and by cuBLASLt.
macro_rules! both {
    ($name:literal, $shape:expr) => {
        [
            Case {
                name: $name,
                bytes: bytes($shape),
                matrix_flop: flop($shape),
                prepare: |d| ours(d, $shape),
            },
            Case {
                name: concat!($name, " cublaslt"),
                bytes: bytes($shape),
                matrix_flop: flop($shape),
                prepare: |d| cublaslt(d, $shape),
            },
        ]
    };
}

/// Layers of the policy, and one that is large; named rows × output × input features.
pub(super) fn cases() -> Vec<Case> {
    [
        both!("gemm/592x4864x896", (592, 4864, 896)),
        both!("gemm/592x896x4864", (592, 896, 4864)),
        both!("gemm/592x896x896", (592, 896, 896)),
        both!("gemm/514x4096x1024", (514, 4096, 1024)),
        both!("gemm/514x1024x4096", (514, 1024, 4096)),
        both!("gemm/512x4304x1152", (512, 4304, 1152)),
        both!("gemm/64x896x896", (64, 896, 896)),
        both!("gemm/4096x4096x4096", (4096, 4096, 4096)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn bytes((rows, columns, inner): Shape) -> f64 {
    2.0 * (rows * inner + columns * inner + rows * columns) as f64
}

fn flop((rows, columns, inner): Shape) -> f64 {
    2.0 * rows as f64 * columns as f64 * inner as f64
}

/// Operands of one shape, and whose turn it is among the weights.
struct Layers {
    shape: Shape,
    x: Array<DeviceMemory>,
    weights: Vec<Array<DeviceMemory>>,
    bias: Array<DeviceMemory>,
    out: Array<DeviceMemory>,
    turn: usize,
}

impl Layers {
    fn new(device: &Device, shape: Shape, bias: Dtype) -> Result<Self> {
        let (rows, columns, inner) = shape;
        let count = (WEIGHT_BYTES / (2 * columns * inner)).max(2) as u64;
        let weights = (0..count).map(|i| bf16_values(device, columns * inner, 0.05, 2 + i));
        Ok(Self {
            shape,
            x: bf16_values(device, rows * inner, 1.0, 1)?,
            weights: weights.collect::<Result<_>>()?,
            bias: device.array_of(bias, &vec![0x3c; columns * bias.bits() / 8])?,
            out: device.array(Dtype::BF16, rows * columns)?,
            turn: 0,
        })
    }

    fn next(&mut self) -> Linear<'_> {
        self.turn = (self.turn + 1) % self.weights.len();
        let (rows, columns, inner) = self.shape;
        Linear {
            x: self.x.view(),
            weight: self.weights[self.turn].view(),
            bias: Some(self.bias.view()),
            rows,
            columns,
            inner,
            then: LinearThen::Keep,
            out: self.out.view_mut(),
        }
    }
}

fn ours(device: &Device, shape: Shape) -> Result<Work> {
    let mut layers = Layers::new(device, shape, Dtype::F32)?;
    let mut scratch = LinearScratch::new(device)?;
    let device = device.clone();
    Ok(Box::new(move || linear(&device, &mut scratch, &layers.next())))
}

fn cublaslt(device: &Device, shape: Shape) -> Result<Work> {
    let mut library = CublasLt::open(device)?
        .ok_or_else(|| GpuError::Unavailable { reason: "cuBLASLt is not installed".to_owned() })?;
    let mut layers = Layers::new(device, shape, Dtype::BF16)?;
    Ok(Box::new(move || library.linear(&layers.next())))
}
