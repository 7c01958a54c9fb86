use skillweld_gpu::ops::{Join, JoinTensor, Thinning, ThresholdScope, Thresholds, elect, join};
use skillweld_gpu::{Array, Device, DeviceMemory, Result, Target, View};
use skillweld_tensor::Dtype;

use super::random_memory::bf16_values;
use super::{Case, Work};

/// Elements: about as many as Qwen2.5-0.5B has.
const NUMEL: usize = 500_000_000;
const EXPERTS: usize = 4;
const DENSITIES: [f64; EXPERTS] = [0.2; EXPERTS];
const WEIGHTS: [f32; EXPERTS] = [1.0; EXPERTS];

pub(super) fn cases() -> Vec<Case> {
    let sweep = NUMEL as f64 * 2.0 * EXPERTS as f64;
    let and_weights = NUMEL as f64 * 2.0 * 2.0;
    let case = |name, bytes, prepare| Case { name, bytes, matrix_flop: 0.0, prepare };
    vec![
        case("merge/task arithmetic 4 experts", sweep + and_weights, |device| {
            prepare(device, |device, tensors, _| {
                join(device, tensors, (&WEIGHTS, 1.0), Join::Sum { divisor: 1.0 }, &Thinning::Nothing)
            })
        }),
        case("merge/ties 4 experts", 2.0 * sweep + and_weights, |device| {
            prepare(device, |device, tensors, views| {
                let thresholds =
                    Thresholds::find(device, &[views.to_vec()], &DENSITIES, ThresholdScope::Global)?;
                let rule = Join::Consensus { zero_sum: 1.0, mean: true };
                join(device, tensors, (&WEIGHTS, 1.0), rule, &Thinning::Trim(&thresholds))
            })
        }),
        case("merge/dare ties 4 experts", sweep + and_weights, |device| {
            prepare(device, |device, tensors, _| {
                let rule = Join::Consensus { zero_sum: 1.0, mean: true };
                join(device, tensors, (&[5.0; EXPERTS], 1.0), rule, &Thinning::Drop { densities: &DENSITIES })
            })
        }),
        case("merge/emr election 4 experts", sweep + and_weights / 2.0, |device| {
            prepare(device, |device, tensors, _| {
                tensors.iter_mut().for_each(|tensor| tensor.base = None);
                elect(device, tensors)
            })
        }),
    ]
}

/// What is done with one tensor of four task vectors, Θ₀ and room for the result.
type Merge = fn(&Device, &mut [JoinTensor<'_>], &[View<'_>]) -> Result<()>;

fn prepare(device: &Device, merge: Merge) -> Result<Work> {
    let base = bf16_values(device, NUMEL, 1.0, 9)?;
    let seeds = 1..=EXPERTS as u64;
    let vectors = seeds
        .map(|seed| bf16_values(device, NUMEL, 0.1, seed))
        .collect::<Result<Vec<Array<DeviceMemory>>>>()?;
    let mut out = device.array(Dtype::BF16, NUMEL)?;
    let device = device.clone();
    Ok(Box::new(move || {
        let experts: Vec<View<'_>> = vectors.iter().map(Array::view).collect();
        let tensor =
            JoinTensor { base: Some(base.view()), experts: experts.clone(), out: out.view_mut(), seed: 5 };
        merge(&device, &mut [tensor], &experts)
    }))
}
