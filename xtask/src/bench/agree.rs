//! Whether two programs made the same checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use skillweld_store::Checkpoint;
use skillweld_tensor::{Dtype, TensorView};

/// Where inputs of opposite signs cancel, a result is as exact as the inputs' f32 arithmetic, not as its own last place:
/// such values may differ by this fraction of the largest input, 1/256 of that input's own bf16 step.
pub(crate) const CANCELLATION: f32 = 1.0 / 65_536.0;

/// How far two checkpoints lie apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Distance {
    pub(crate) values: u64,
    /// Values that lie one bf16 step apart.
    pub(crate) one_step: u64,
    /// Values further apart, by no more than [`Merge::cancellation`] allows.
    pub(crate) cancelled: u64,
    /// Values further apart at which some expert's task vector is exactly as large as the smallest entry that trimming
    /// keeps: bf16 has few magnitudes, and which of many equal entries belong to the largest k is nobody's to say.
    /// Skillweld draws as many as make k, mergekit takes those that an unstable sort leaves in front.
    pub(crate) at_threshold: u64,
    /// The most values that can differ for that reason, over all experts.
    pub(crate) open: u64,
}

/// What was merged, as the comparison needs to know it.
pub(crate) struct Merge {
    /// The checkpoints read; with `density`, the base first.
    pub(crate) inputs: Vec<PathBuf>,
    /// The share of each task vector that trimming keeps.
    pub(crate) density: Option<f64>,
    /// The fraction of the largest input by which values near zero may differ: mostly [`CANCELLATION`].
    pub(crate) cancellation: f32,
}

/// Compares every tensor of two bf16 checkpoints that `merge` gave.
///
/// # Errors
/// Names the first value that lies too far apart.
pub(crate) fn distance(merge: &Merge, ours: &Path, theirs: &Path) -> Result<Distance> {
    let inputs = merge.inputs.iter().map(Checkpoint::open).collect::<Result<Vec<_>, _>>()?;
    let (ours, theirs) = (Checkpoint::open(ours)?, Checkpoint::open(theirs)?);
    let mut distance = Distance::default();
    for key in theirs.keys() {
        let (a, b) = (bf16(&ours, key)?, bf16(&theirs, key)?);
        ensure!(a.shape() == b.shape(), "`{key}` has shape {:?}, the peer's has {:?}", a.shape(), b.shape());
        let inputs = inputs.iter().map(|input| bf16(input, key)).collect::<Result<Vec<_>>>()?;
        let cuts: Vec<Cut> = match (merge.density, &inputs[..]) {
            (Some(density), [base, experts @ ..]) => {
                experts.iter().map(|expert| Cut::new(base, expert, density)).collect()
            }
            _ => Vec::new(),
        };
        let open: u64 = cuts.iter().map(|cut| cut.open).sum();
        let before = distance.at_threshold;
        let pairs = a.bytes().chunks_exact(2).zip(b.bytes().chunks_exact(2));
        for (index, (a, b)) in pairs.enumerate() {
            let (a, b) = ([a[0], a[1]], [b[0], b[1]]);
            let steps = ordinal(a).abs_diff(ordinal(b));
            if steps <= 1 {
                distance.one_step += u64::from(steps);
                continue;
            }
            let (a, b) = (value(a), value(b));
            let largest = inputs.iter().map(|input| at(input, index).abs()).fold(0.0, f32::max);
            let open_to_choice = || {
                let mut experts = inputs.iter().skip(1).zip(&cuts);
                experts.any(|(expert, cut)| cut.is_open(magnitude(&inputs[0], expert, index)))
            };
            if (a - b).abs() <= merge.cancellation * largest {
                distance.cancelled += 1;
            } else if open_to_choice() {
                distance.at_threshold += 1;
            } else {
                bail!("`{key}`: value {index} is {a}, the peer's {b}: {steps} bf16 steps apart");
            }
        }
        let excused = distance.at_threshold - before;
        ensure!(
            excused <= open,
            "`{key}`: {excused} values at a trimming threshold differ, but only {open} are open to choice"
        );
        distance.open += open;
        distance.values += a.numel() as u64;
    }
    ensure!(distance.values > 0, "the peer wrote no tensors");
    Ok(distance)
}

/// Where trimming cuts the entries of one task vector.
#[derive(Debug, PartialEq)]
struct Cut {
    /// The smallest magnitude among the k = ⌊density · n⌋ largest.
    threshold: f32,
    /// Of the equals there so many at most are kept by one and not by the other of two that keep about k.
    open: u64,
}

impl Cut {
    fn new(base: &TensorView<'_>, expert: &TensorView<'_>, density: f64) -> Self {
        let mut magnitudes: Vec<f32> = (0..base.numel()).map(|i| magnitude(base, expert, i)).collect();
        let kept = ((density * magnitudes.len() as f64) as usize).clamp(1, magnitudes.len().max(1));
        let Some(place) = magnitudes.len().checked_sub(kept) else {
            return Self { threshold: 0.0, open: 0 };
        };
        let (below, &mut threshold, above) = magnitudes.select_nth_unstable_by(place, f32::total_cmp);
        let equals = |part: &[f32]| part.iter().filter(|&&magnitude| magnitude == threshold).count();
        let (left, kept) = (equals(below), equals(above) + 1);
        // Skillweld keeps each with the chance that makes k the mean: √equals / 2 is one standard deviation at most.
        let spread = if left > 0 { 5.0 * ((left + kept) as f64).sqrt() } else { 0.0 };
        let open = (2 * left.min(kept)).saturating_add(spread as usize).min(left + kept);
        Self { threshold, open: if left > 0 { open as u64 } else { 0 } }
    }

    /// Whether an entry of that magnitude may be kept or not.
    fn is_open(&self, magnitude: f32) -> bool {
        self.open > 0 && magnitude == self.threshold
    }
}

/// |τ| of one entry.
fn magnitude(base: &TensorView<'_>, expert: &TensorView<'_>, index: usize) -> f32 {
    (at(expert, index) - at(base, index)).abs()
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

/// Element `index` of a bf16 tensor.
fn at(view: &TensorView<'_>, index: usize) -> f32 {
    value([view.bytes()[2 * index], view.bytes()[2 * index + 1]])
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

    /// A file with one bf16 tensor of four values.
    fn file(dir: &Path, name: &str, values: [f32; 4]) -> PathBuf {
        let header = r#"{"w":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()));
        let path = dir.join(format!("{name}.safetensors"));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn only_cancellation_and_equal_magnitudes_excuse_more_than_a_step() {
        let dir = std::env::temp_dir().join(format!("skillweld-agree-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let base = file(&dir, "base", [1.0, -1.0, 0.0, 0.0]);
        let expert = file(&dir, "expert", [1.0, -1.0, 0.5, -0.5]);
        let merge = |density| Merge {
            inputs: vec![base.clone(), expert.clone()],
            density,
            cancellation: CANCELLATION,
        };

        let ours = file(&dir, "ours", [1.0, 1e-6, 0.0, 0.0]);
        // 1 and its neighbour; two values near zero that inputs of size 1 left over.
        let near = file(&dir, "near", [1.0078125, 4e-6, 0.0, 0.0]);
        let found = distance(&merge(None), &ours, &near).unwrap();
        assert_eq!(found, Distance { values: 4, one_step: 1, cancelled: 1, at_threshold: 0, open: 0 });

        // The largest quarter of the task vector is one of two equal entries.
        let other = file(&dir, "other", [1.0, 1e-6, 0.0, -0.5]);
        let found = distance(&merge(Some(0.25)), &ours, &other).unwrap();
        assert_eq!(found, Distance { values: 4, one_step: 0, cancelled: 0, at_threshold: 1, open: 2 });
        let error = distance(&merge(None), &ours, &other).unwrap_err();
        assert!(error.to_string().contains("value 3"), "{error}");
        // None may differ where half of the task vector is kept: both are.
        let error = distance(&merge(Some(0.5)), &ours, &other).unwrap_err();
        assert!(error.to_string().contains("value 3"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
