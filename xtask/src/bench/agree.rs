//! Whether two programs made the same checkpoint.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use skillweld_store::Checkpoint;
use skillweld_tensor::{Dtype, TensorView};

/// How far two checkpoints lie apart.
#[derive(Debug, Default)]
pub(crate) struct Distance {
    pub(crate) values: u64,
    /// Values that differ at all.
    pub(crate) different: u64,
    /// The largest difference, in steps between neighbouring bf16 values.
    pub(crate) max_ulps: u32,
    /// Where that is.
    pub(crate) tensor: String,
}

/// Compares every tensor of two bf16 checkpoints.
pub(crate) fn distance(ours: &Path, theirs: &Path) -> Result<Distance> {
    let (ours, theirs) = (Checkpoint::open(ours)?, Checkpoint::open(theirs)?);
    let mut distance = Distance::default();
    for key in theirs.keys() {
        let (a, b) = (bf16(&ours, key)?, bf16(&theirs, key)?);
        ensure!(a.shape() == b.shape(), "`{key}` has shape {:?}, the peer's has {:?}", a.shape(), b.shape());
        let pairs = a.bytes().chunks_exact(2).zip(b.bytes().chunks_exact(2));
        let steps = pairs.map(|(a, b)| ordinal([a[0], a[1]]).abs_diff(ordinal([b[0], b[1]])));
        let (different, max) = steps.fold((0, 0), |(n, max), step| (n + u64::from(step > 0), step.max(max)));
        distance.values += a.numel() as u64;
        distance.different += different;
        if max > distance.max_ulps {
            distance.max_ulps = max;
            key.clone_into(&mut distance.tensor);
        }
    }
    ensure!(distance.values > 0, "the peer wrote no tensors");
    Ok(distance)
}

/// What a random method does to a base: the share of values it moves and how far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Moved {
    pub(crate) share: f64,
    pub(crate) rms: f64,
}

pub(crate) fn moved(base: &Path, merged: &Path) -> Result<Moved> {
    let (base, merged) = (Checkpoint::open(base)?, Checkpoint::open(merged)?);
    let (mut values, mut changed, mut squares) = (0u64, 0u64, 0f64);
    for key in base.keys() {
        let (a, b) = (bf16(&base, key)?.to_f32()?, bf16(&merged, key)?.to_f32()?);
        values += a.len() as u64;
        for (a, b) in a.iter().zip(&b) {
            changed += u64::from(a != b);
            squares += f64::from(b - a).powi(2);
        }
    }
    let count = values.max(1) as f64;
    Ok(Moved { share: changed as f64 / count, rms: (squares / count).sqrt() })
}

fn bf16<'a>(checkpoint: &'a Checkpoint, key: &str) -> Result<TensorView<'a>> {
    let view =
        checkpoint.get(key).with_context(|| format!("{} lacks `{key}`", checkpoint.path().display()))?;
    ensure!(view.dtype() == Dtype::BF16, "`{key}` is {}, not BF16", view.dtype());
    Ok(view)
}

/// Numbers bf16 values in ascending order, neighbours one apart; both zeros are 0.
fn ordinal(bytes: [u8; 2]) -> i32 {
    let bits = i32::from(u16::from_le_bytes(bytes));
    if bits & 0x8000 == 0 { bits } else { 0x8000 - bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_apart() {
        let at = |bits: u16| ordinal(bits.to_le_bytes());
        assert_eq!(at(0x0000), at(0x8000));
        assert_eq!(at(0x0001) - at(0x8001), 2);
        assert_eq!(at(0x3f81) - at(0x3f80), 1);
        assert_eq!(at(0xbf80) - at(0xbf81), 1);
    }
}
