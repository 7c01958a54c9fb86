use skillweld_gpu::ops::{Linear, LinearScratch, LinearThen, linear};
use skillweld_gpu::{Device, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::bf16_values;
use super::{Case, Work};

/// Bytes of weights to go through before one is read again: more than any L2 holds. Activations stay there, as in a model.
const WEIGHT_BYTES: usize = 200 << 20;

/// Rows of x, output and input features.
type Shape = (usize, usize, usize);

/// A case of the policy's layers.
macro_rules! case {
    ($name:literal, $shape:expr) => {
        Case { name: $name, bytes: bytes($shape), matrix_flop: flop($shape), prepare: |d| prepare(d, $shape) }
    };
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("gemm/592x896 to 4864", (592, 4864, 896)),
        case!("gemm/592x4864 to 896", (592, 896, 4864)),
        case!("gemm/592x896 to 896", (592, 896, 896)),
        case!("gemm/514x1024 to 4096", (514, 4096, 1024)),
        case!("gemm/514x4096 to 1024", (514, 1024, 4096)),
        case!("gemm/512x1152 to 4304", (512, 4304, 1152)),
        case!("gemm/64x896 to 896", (64, 896, 896)),
        case!("gemm/4096x4096 to 4096", (4096, 4096, 4096)),
    ]
}

fn bytes((rows, columns, inner): Shape) -> f64 {
    2.0 * (rows * inner + columns * inner + rows * columns) as f64
}

fn flop((rows, columns, inner): Shape) -> f64 {
    2.0 * rows as f64 * columns as f64 * inner as f64
}

fn prepare(device: &Device, (rows, columns, inner): Shape) -> Result<Work> {
    let x = bf16_values(device, rows * inner, 1.0, 1)?;
    let count = (WEIGHT_BYTES / (2 * columns * inner)).max(2);
    let weights = (0..count as u64)
        .map(|i| bf16_values(device, columns * inner, 0.05, 2 + i))
        .collect::<Result<Vec<_>>>()?;
    let mut out = device.array(Dtype::BF16, rows * columns)?;
    let mut scratch = LinearScratch::new(device)?;
    let device = device.clone();
    let mut turn = 0;
    Ok(Box::new(move || {
        turn = (turn + 1) % weights.len();
        let layer = Linear {
            x: x.view(),
            weight: weights[turn].view(),
            bias: None,
            rows,
            columns,
            inner,
            then: LinearThen::Keep,
            out: out.view_mut(),
        };
        linear(&device, &mut scratch, &layer)
    }))
}
