//! Whether two programs made the same checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use skillweld_store::Checkpoint;
use skillweld_tensor::{Dtype, TensorView};

/// Where inputs of opposite signs cancel, a result is as exact as the inputs' f32 arithmetic, not as its own last place:
/// such values may differ by this fraction of the largest input, 1/256 of that input's own bf16 step.
const CANCELLATION: f32 = 1.0 / 65_536.0;

/// How far two checkpoints lie apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Distance {
    pub(crate) values: u64,
    /// Values that lie one bf16 step apart.
    pub(crate) one_step: u64,
    /// Values further apart, by no more than [`CANCELLATION`] allows.
    pub(crate) cancelled: u64,
}

/// Compares every tensor of two bf16 checkpoints that were merged from `inputs`.
///
/// # Errors
/// Names the first value that lies too far apart.
pub(crate) fn distance(inputs: &[PathBuf], ours: &Path, theirs: &Path) -> Result<Distance> {
    let inputs = inputs.iter().map(Checkpoint::open).collect::<Result<Vec<_>, _>>()?;
    let (ours, theirs) = (Checkpoint::open(ours)?, Checkpoint::open(theirs)?);
    let mut distance = Distance::default();
    for key in theirs.keys() {
        let (a, b) = (bf16(&ours, key)?, bf16(&theirs, key)?);
        ensure!(a.shape() == b.shape(), "`{key}` has shape {:?}, the peer's has {:?}", a.shape(), b.shape());
        let inputs = inputs.iter().map(|input| bf16(input, key)).collect::<Result<Vec<_>>>()?;
        let pairs = a.bytes().chunks_exact(2).zip(b.bytes().chunks_exact(2));
        for (index, (a, b)) in pairs.enumerate() {
            let (a, b) = ([a[0], a[1]], [b[0], b[1]]);
            match ordinal(a).abs_diff(ordinal(b)) {
                0 => {}
                1 => distance.one_step += 1,
                steps => {
                    let input =
                        |view: &TensorView<'_>| value([view.bytes()[2 * index], view.bytes()[2 * index + 1]]);
                    let largest = inputs.iter().map(|view| input(view).abs()).fold(0.0, f32::max);
                    let (a, b) = (value(a), value(b));
                    ensure!(
                        (a - b).abs() <= CANCELLATION * largest,
                        "`{key}`: value {index} is {a}, the peer's {b}: {steps} bf16 steps apart"
                    );
                    distance.cancelled += 1;
                }
            }
        }
        distance.values += a.numel() as u64;
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

fn value(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
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

    #[test]
    fn only_cancellation_excuses_more_than_a_step() {
        let dir = std::env::temp_dir().join(format!("skillweld-agree-{}", std::process::id()));
        let file = |name: &str, values: [f32; 2]| {
            let header = r#"{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()));
            let path = dir.join(format!("{name}.safetensors"));
            std::fs::write(&path, bytes).unwrap();
            path
        };
        std::fs::create_dir_all(&dir).unwrap();
        let inputs = [file("input", [1.0, -1.0])];
        let ours = file("ours", [1.0, 1e-6]);
        // 1 and its neighbour; two values near zero that inputs of size 1 left over.
        let near = file("near", [1.0078125, 4e-6]);
        let found = distance(&inputs, &ours, &near).unwrap();
        assert_eq!(found, Distance { values: 2, one_step: 1, cancelled: 1 });
        let far = file("far", [1.015625, 1e-6]);
        let error = distance(&inputs, &ours, &far).unwrap_err();
        assert!(error.to_string().contains("2 bf16 steps"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
