//! What a policy's forward asks for: Qwen2.5-0.5B (896 wide, 592 tokens), SigLIP so400m (1152 wide, two images of 256
//! patches), DINOv2-L (1024 wide, two images of 261 tokens). A handful of megabytes each: where operands come from the L2
//! here, they do in a forward too, for the kernel before has just written them.

use half::bf16;
use skillweld_gpu::ops::{
    AttentionShape, ColumnsView, PatchShape, RopePairs, RowsView, RowsViewMut, add, gelu, layer_norm, padded,
    patches, prefill_attention, rms_norm, rope, swiglu,
};
use skillweld_gpu::{Array, Device, DeviceMemory, Result, Target};
use skillweld_tensor::Dtype;

use super::{Case, Work};

type Memory = Array<DeviceMemory>;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, bytes: usize, matrix_flop: f64, prepare: fn(&Device) -> Result<Work>| Case {
        name,
        bytes: bytes as f64,
        matrix_flop,
        prepare,
    };
    vec![
        case("prefill_attention/qwen 592", 2 * 592 * (2 * 896 + 256), flop(QWEN, 592) / 2.0, |device| {
            attention(device, QWEN, 592)
        }),
        case("prefill_attention/siglip 2x256", 2 * 512 * 4 * 1152, flop(SIGLIP, 256), |device| {
            attention(device, SIGLIP, 256)
        }),
        case("prefill_attention/dinov2 2x261", 2 * 522 * 4 * 1024, flop(DINOV2, 261), |device| {
            attention(device, DINOV2, 261)
        }),
        case("norm/rms 592x896 f32 to bf16", 6 * 592 * 896, 0.0, |device| norm(device, 592, 896, false)),
        case("norm/layer 512x1152 f32 to bf16", 6 * 512 * 1152, 0.0, |device| norm(device, 512, 1152, true)),
        case("rope/halves 592x896 bf16", 4 * 592 * 896, 0.0, |device| {
            turn(device, 592, 896, RopePairs::Halves)
        }),
        case("rope/neighbours 512x896 bf16", 4 * 512 * 896, 0.0, |device| {
            turn(device, 512, 896, RopePairs::Neighbours)
        }),
        case("activation/swiglu 592x4864 bf16", 6 * 592 * 4864, 0.0, swiglu_case),
        case("activation/gelu 522x4096 bf16", 4 * 522 * 4096, 0.0, gelu_case),
        case("activation/add 522x1024 f32", 10 * 522 * 1024, 0.0, add_case),
        case("patches/2 images of 224", 6 * 512 * 588, 0.0, patches_case),
    ]
}

const QWEN: AttentionShape =
    AttentionShape { sequences: 1, heads: 14, kv_heads: 2, head_dim: 64, causal: true };
const SIGLIP: AttentionShape =
    AttentionShape { sequences: 2, heads: 16, kv_heads: 16, head_dim: 72, causal: false };
const DINOV2: AttentionShape =
    AttentionShape { sequences: 2, heads: 16, kv_heads: 16, head_dim: 64, causal: false };

/// Of both products, every query with every key.
fn flop(shape: AttentionShape, length: usize) -> f64 {
    (4 * shape.sequences * shape.heads * shape.head_dim * length * length) as f64
}

/// Random values, uniform in ±1.
fn random(device: &Device, dtype: Dtype, rows: usize, columns: usize, seed: u64) -> Result<Memory> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..rows * padded(columns)).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    let bytes: Vec<u8> = match dtype {
        Dtype::BF16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    device.array_of(dtype, &bytes)
}

fn attention(device: &Device, shape: AttentionShape, length: usize) -> Result<Work> {
    let (rows, width, kv) =
        (shape.sequences * length, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    // As a tower's one product, or the language model's three, leave them.
    let joined = shape.heads == shape.kv_heads;
    let q = random(device, Dtype::BF16, rows, if joined { 3 * width } else { width }, 1)?;
    let (k, v) = (random(device, Dtype::BF16, rows, kv, 2)?, random(device, Dtype::BF16, rows, kv, 3)?);
    let mut out = device.array(Dtype::BF16, rows * width)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let view = |array, columns, start| -> Result<_> {
            Ok(ColumnsView { rows: RowsView::new(array, rows, columns)?, start })
        };
        let parts = if joined {
            [0, width, 2 * width].map(|start| view(q.view(), 3 * width, start))
        } else {
            [view(q.view(), width, 0), view(k.view(), kv, 0), view(v.view(), kv, 0)]
        };
        let [q, k, v] = parts;
        prefill_attention(&device, q?, k?, v?, shape, &mut RowsViewMut::new(out.view_mut(), rows, width)?)
    }))
}

fn norm(device: &Device, rows: usize, columns: usize, centred: bool) -> Result<Work> {
    let x = random(device, Dtype::F32, rows, columns, 1)?;
    let (gain, bias) =
        (random(device, Dtype::F32, 1, columns, 2)?, random(device, Dtype::F32, 1, columns, 3)?);
    let mut out = device.array(Dtype::BF16, rows * columns)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let x = RowsView::new(x.view(), rows, columns)?;
        let mut out = RowsViewMut::new(out.view_mut(), rows, columns)?;
        if centred {
            layer_norm(&device, x, gain.view(), bias.view(), 1e-6, &mut out)
        } else {
            rms_norm(&device, x, gain.view(), 1e-6, &mut out)
        }
    }))
}

fn turn(device: &Device, rows: usize, columns: usize, pairs: RopePairs) -> Result<Work> {
    let half = if pairs == RopePairs::Halves { 32 } else { 56 };
    let mut x = random(device, Dtype::BF16, rows, columns, 1)?;
    let (cos, sin) = (random(device, Dtype::F32, rows, half, 2)?, random(device, Dtype::F32, rows, half, 3)?);
    let device = device.clone();
    Ok(Box::new(move || {
        let mut x = RowsViewMut::new(x.view_mut(), rows, columns)?;
        let [cos, sin] = [&cos, &sin].map(|table| RowsView::new(table.view(), rows, half));
        rope(&device, &mut x, cos?, sin?, pairs)
    }))
}

fn swiglu_case(device: &Device) -> Result<Work> {
    let (rows, columns) = (592, 4864);
    let gate = random(device, Dtype::BF16, rows, columns, 1)?;
    let up = random(device, Dtype::BF16, rows, columns, 2)?;
    let mut out = device.array(Dtype::BF16, rows * columns)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let mut out = RowsViewMut::new(out.view_mut(), rows, columns)?;
        swiglu(
            &device,
            RowsView::new(gate.view(), rows, columns)?,
            RowsView::new(up.view(), rows, columns)?,
            &mut out,
        )
    }))
}

fn gelu_case(device: &Device) -> Result<Work> {
    let (rows, columns) = (522, 4096);
    let x = random(device, Dtype::BF16, rows, columns, 1)?;
    let mut out = device.array(Dtype::BF16, rows * columns)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let mut out = RowsViewMut::new(out.view_mut(), rows, columns)?;
        gelu(&device, RowsView::new(x.view(), rows, columns)?, &mut out)
    }))
}

fn add_case(device: &Device) -> Result<Work> {
    let (rows, columns) = (522, 1024);
    let y = random(device, Dtype::BF16, rows, columns, 1)?;
    let residual = random(device, Dtype::F32, rows, columns, 2)?;
    let scale = random(device, Dtype::F32, 1, columns, 3)?;
    let mut out = device.array(Dtype::F32, rows * columns)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let [y, residual] = [&y, &residual].map(|array| RowsView::new(array.view(), rows, columns));
        add(&device, y?, residual?, Some(scale.view()), &mut RowsViewMut::new(out.view_mut(), rows, columns)?)
    }))
}

fn patches_case(device: &Device) -> Result<Work> {
    let shape = PatchShape {
        images: 2,
        channels_per_image: 6,
        first_channel: 3,
        channels: 3,
        image_side: 224,
        patch_side: 14,
    };
    let pixels = random(device, Dtype::F32, 12, 224 * 224, 1)?;
    let mut out = device.array(Dtype::BF16, 512 * padded(588))?;
    let device = device.clone();
    Ok(Box::new(move || {
        let mut out = RowsViewMut::new(out.view_mut(), 512, 588)?;
        patches(&device, RowsView::new(pixels.view(), 12, 224 * 224)?, shape, &mut out)
    }))
}
