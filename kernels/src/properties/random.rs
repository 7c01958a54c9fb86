//! Numbers for properties: floats of ordinary size with zeros among them, rounded to a dtype.

use proptest::prelude::*;
use skillweld_tensor::{Dtype, convert};

/// One of the dtypes that kernels compute with.
pub(super) fn dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::BF16), Just(Dtype::F16), Just(Dtype::F32)]
}

/// `numel` values: most of ordinary size, some zero, some tiny, drawn from a seed (an element a strategy would be slow).
pub(super) fn values(numel: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..numel)
        .map(|_| {
            let word = next();
            let uniform = (word >> 40) as f32 / (1 << 23) as f32 - 1.0;
            match word % 16 {
                0 => 0.0,
                1 => uniform * 1e-4,
                2 => uniform * 30.0,
                _ => uniform,
            }
        })
        .collect()
}

/// The values as little-endian elements of a dtype.
pub fn bytes_of(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * dtype.bits() / 8];
    convert::encode(dtype, values, &mut bytes).expect("a float dtype");
    bytes
}

/// Little-endian elements of a dtype as f32.
pub fn floats_of(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() * 8 / dtype.bits()];
    convert::decode(dtype, bytes, &mut values).expect("a float dtype");
    values
}
