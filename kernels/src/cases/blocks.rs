use skillweld_gpu::ops::{MergedBlock, StoredBlock, Table, decode_blocks, encode_block};
use skillweld_gpu::{Array, Device, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::bf16_values;
use super::{Case, Work};

/// Elements of an array.
const NUMEL: usize = 1 << 26;
/// Experts beside the base.
const EXPERTS: usize = 4;

pub(super) fn cases() -> Vec<Case> {
    let (numel, arrays) = (NUMEL as f64, (EXPERTS + 1) as f64);
    vec![
        Case {
            name: "blocks/decode base and 4 experts",
            bytes: numel * arrays * 6.0,
            matrix_flop: 0.0,
            prepare: decode,
        },
        Case { name: "blocks/encode, plus base", bytes: numel * 8.0, matrix_flop: 0.0, prepare: encode },
    ]
}

fn decode(device: &Device) -> Result<Work> {
    let stored =
        (0..=EXPERTS as u64).map(|i| bf16_values(device, NUMEL, 1.0, i)).collect::<Result<Vec<_>>>()?;
    let mut outs = stored.iter().map(|_| device.array(Dtype::F32, NUMEL)).collect::<Result<Vec<_>>>()?;
    let mut flags = device.array(Dtype::U32, stored.len())?;
    let mut rows = Table::new(device, 1024)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let blocks = stored.iter().zip(&mut outs).enumerate();
        let blocks = blocks.map(|(i, (array, out))| StoredBlock {
            stored: array.view(),
            less: (i > 0).then(|| stored[0].view()),
            out: out.view_mut(),
        });
        decode_blocks(&device, &mut rows, NUMEL, &blocks.collect::<Vec<_>>(), &flags.view_mut())
    }))
}

fn encode(device: &Device) -> Result<Work> {
    let base = bf16_values(device, NUMEL, 1.0, 1)?;
    let values = super::random_memory::f32_values(device, NUMEL, 0.1, 2)?;
    let mut out = device.array(Dtype::BF16, NUMEL)?;
    let mut flag: Array<_> = device.array(Dtype::U32, 1)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let block = MergedBlock { values: values.view(), plus: Some(base.view()), out: out.view_mut() };
        encode_block(&device, NUMEL, &block, &flag.view_mut())
    }))
}
