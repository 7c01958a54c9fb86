//! Random operands of gigabytes, quickly: one random chunk from the host, copied over and over.

use half::bf16;
use skillweld_gpu::{Array, Device, DeviceMemory, Result, Target};
use skillweld_tensor::Dtype;

/// Elements of the chunk; odd, so that repeats do not line up with tiles.
const CHUNK: usize = (1 << 22) + 13;

/// bf16 values, uniform in ±`size`.
pub(super) fn bf16_values(
    device: &Device,
    numel: usize,
    size: f32,
    seed: u64,
) -> Result<Array<DeviceMemory>> {
    let mut random = random_words(seed);
    let chunk: Vec<u8> = (0..CHUNK.min(numel))
        .flat_map(|_| bf16::from_f32(size * ((random() >> 40) as f32 / (1 << 23) as f32 - 1.0)).to_le_bytes())
        .collect();
    repeated(device, Dtype::BF16, numel, &chunk)
}

/// f32 values, uniform in ±`size`.
pub(super) fn f32_values(device: &Device, numel: usize, size: f32, seed: u64) -> Result<Array<DeviceMemory>> {
    let mut random = random_words(seed);
    let chunk: Vec<u8> = (0..CHUNK.min(numel))
        .flat_map(|_| (size * ((random() >> 40) as f32 / (1 << 23) as f32 - 1.0)).to_le_bytes())
        .collect();
    repeated(device, Dtype::F32, numel, &chunk)
}

/// Random bytes: masks that keep half of everything.
pub(super) fn bytes(device: &Device, numel: usize, seed: u64) -> Result<Array<DeviceMemory>> {
    let mut random = random_words(seed);
    let chunk: Vec<u8> = (0..CHUNK.min(numel)).map(|_| (random() >> 32) as u8).collect();
    repeated(device, Dtype::U8, numel, &chunk)
}

fn repeated(device: &Device, dtype: Dtype, numel: usize, chunk: &[u8]) -> Result<Array<DeviceMemory>> {
    let mut array = device.array(dtype, numel)?;
    let mut at = 0;
    while at < array.byte_len() {
        let bytes = chunk.len().min(array.byte_len() - at);
        device.upload(array.memory_mut(), at, &chunk[..bytes])?;
        at += bytes;
    }
    Ok(array)
}

/// A xorshift generator: the benches' numbers need be no better.
fn random_words(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
