use skillweld_gpu::ops::{ExpertMask, MaskRule, MaskedVectors, count_masks, make_masks};
use skillweld_gpu::{Array, Device, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::{bf16_values, bytes};
use super::{Case, Work};

/// Elements: about as many as Qwen2.5-0.5B has.
const NUMEL: usize = 500_000_000;
const EXPERTS: usize = 4;

pub(super) fn cases() -> Vec<Case> {
    let read = NUMEL as f64 * 2.0 * (EXPERTS as f64 + 1.0);
    let packed = (NUMEL / 8 * EXPERTS) as f64;
    vec![
        Case {
            name: "masks/tall 4 experts",
            bytes: read + packed,
            matrix_flop: 0.0,
            prepare: |d| prepare(d, true),
        },
        Case {
            name: "masks/sign 4 experts",
            bytes: read + packed,
            matrix_flop: 0.0,
            prepare: |d| prepare(d, false),
        },
        Case { name: "masks/count 4 experts", bytes: packed, matrix_flop: 0.0, prepare: prepare_count },
    ]
}

fn prepare(device: &Device, tall: bool) -> Result<Work> {
    let seeds = 1..=EXPERTS as u64;
    let vectors = seeds.map(|seed| bf16_values(device, NUMEL, 0.1, seed)).collect::<Result<Vec<_>>>()?;
    let merged = bf16_values(device, NUMEL, 0.2, 9)?;
    let mut masks = vectors.iter().map(|_| device.array(Dtype::U8, NUMEL / 8)).collect::<Result<Vec<_>>>()?;
    let rule = if tall { MaskRule::Tall { lambdas: vec![0.6; EXPERTS] } } else { MaskRule::SameSign };
    let device = device.clone();
    Ok(Box::new(move || {
        let experts = vectors.iter().zip(&mut masks);
        let experts =
            experts.map(|(vector, mask)| ExpertMask { task_vector: vector.view(), mask: mask.view_mut() });
        let tensor = MaskedVectors { merged: merged.view(), experts: experts.collect() };
        make_masks(&device, vec![tensor], &rule)
    }))
}

fn prepare_count(device: &Device) -> Result<Work> {
    let masks = (0..EXPERTS as u64).map(|seed| bytes(device, NUMEL / 8, seed)).collect::<Result<Vec<_>>>()?;
    let device = device.clone();
    Ok(Box::new(move || count_masks(&device, &masks.iter().map(Array::view).collect::<Vec<_>>()).map(drop)))
}
