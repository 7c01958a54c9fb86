use skillweld_gpu::ops::{MaskedApply, MaskedTensor, TaskOutput};
use skillweld_gpu::{Device, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::{bf16_values, bytes};
use super::{Case, Work};

/// Elements: about as many as Qwen2.5-0.5B has.
const NUMEL: usize = 500_000_000;

pub(super) fn cases() -> Vec<Case> {
    let bytes = |tasks: f64| NUMEL as f64 * (4.0 + 2.0 * tasks + tasks / 8.0);
    vec![
        Case { name: "masked_apply/1 task", bytes: bytes(1.0), matrix_flop: 0.0, prepare: |d| prepare(d, 1) },
        Case {
            name: "masked_apply/4 tasks",
            bytes: bytes(4.0),
            matrix_flop: 0.0,
            prepare: |d| prepare(d, 4),
        },
    ]
}

fn prepare(device: &Device, tasks: usize) -> Result<Work> {
    let base = bf16_values(device, NUMEL, 1.0, 1)?;
    let task_vector = bf16_values(device, NUMEL, 0.1, 2)?;
    let masks = (0..tasks as u64).map(|i| bytes(device, NUMEL / 8, 3 + i)).collect::<Result<Vec<_>>>()?;
    let mut outs = (0..tasks).map(|_| device.array(Dtype::BF16, NUMEL)).collect::<Result<Vec<_>>>()?;
    let device = device.clone();
    let scales = vec![0.9; tasks];
    Ok(Box::new(move || {
        let outputs = masks.iter().zip(&mut outs);
        let tensor = MaskedTensor {
            base: base.view(),
            task_vector: task_vector.view(),
            tasks: outputs.map(|(mask, out)| TaskOutput { mask: mask.view(), out: out.view_mut() }).collect(),
        };
        MaskedApply::new(&device, vec![tensor], &scales)?.run(&device)
    }))
}
