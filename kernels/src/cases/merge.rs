use skillweld_gpu::ops::{
    ExactThresholds, MergeRule, MergeTensor, MergeVotes, Merging, TaskVectors, Thin, TrimScope, ZeroSum,
    merge,
};
use skillweld_gpu::{Array, Device, DeviceMemory, Result, Target};
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
            Operands::work(device, |it, device| {
                it.join(device, Thin::Nothing, MergeRule::Sum { divisor: 1.0 })
            })
        }),
        case("merge/ties 4 experts", 2.0 * sweep + and_weights, |device| {
            Operands::work(device, |it, device| it.ties(device, TrimScope::Global))
        }),
        case("merge/ties 4 experts by tensor", 2.0 * sweep + and_weights, |device| {
            Operands::work(device, |it, device| it.ties(device, TrimScope::Tensor))
        }),
        case("merge/ties 4 experts with the majority's sign", 3.0 * sweep + and_weights, |device| {
            Operands::work(device, |it, device| {
                let thresholds = it.thresholds(device, TrimScope::Global)?;
                let votes = MergeVotes::count(device, &[it.vectors()], &WEIGHTS, &thresholds)?;
                let rule = MergeRule::Consensus { zero_sum: ZeroSum::Majority(&votes), mean: true };
                it.join(device, Thin::Trim(&thresholds), rule)
            })
        }),
        case("merge/thresholds 4 experts", sweep, |device| {
            Operands::work(device, |it, device| it.thresholds(device, TrimScope::Global).map(drop))
        }),
        case("merge/dare ties 4 experts", sweep + and_weights, |device| {
            Operands::work(device, |it, device| {
                let rule = MergeRule::Consensus { zero_sum: ZeroSum::Sign(1), mean: true };
                it.join(device, Thin::Drop { densities: &DENSITIES }, rule)
            })
        }),
        case("merge/emr 4 experts", sweep + and_weights, |device| {
            Operands::work(device, |it, device| it.join(device, Thin::Nothing, MergeRule::Largest))
        }),
    ]
}

/// One tensor of four task vectors, Θ₀ and room for the result.
struct Operands {
    base: Array<DeviceMemory>,
    experts: Vec<Array<DeviceMemory>>,
    out: Array<DeviceMemory>,
}

impl Operands {
    fn work(device: &Device, work: fn(&mut Self, &Device) -> Result<()>) -> Result<Work> {
        let seeds = 1..=EXPERTS as u64;
        let mut operands = Self {
            base: bf16_values(device, NUMEL, 1.0, 9)?,
            experts: seeds.map(|seed| bf16_values(device, NUMEL, 0.1, seed)).collect::<Result<_>>()?,
            out: device.array(Dtype::BF16, NUMEL)?,
        };
        let device = device.clone();
        Ok(Box::new(move || work(&mut operands, &device)))
    }

    fn vectors(&self) -> TaskVectors<'_> {
        TaskVectors { base: None, experts: self.experts.iter().map(Array::view).collect() }
    }

    fn thresholds(&self, device: &Device, scope: TrimScope) -> Result<ExactThresholds<DeviceMemory>> {
        ExactThresholds::find(device, &[self.vectors()], &DENSITIES, scope)
    }

    fn join(
        &mut self,
        device: &Device,
        thinning: Thin<'_, DeviceMemory>,
        rule: MergeRule<'_, DeviceMemory>,
    ) -> Result<()> {
        let experts = self.experts.iter().map(Array::view).collect();
        let tensor = MergeTensor {
            vectors: TaskVectors { base: None, experts },
            base: Some(self.base.view()),
            seed: 5,
            out: self.out.view_mut(),
        };
        merge(device, &[tensor], &Merging { weights: &WEIGHTS, thinning, join: rule, lambda: 1.0 })
    }

    fn ties(&mut self, device: &Device, scope: TrimScope) -> Result<()> {
        let thresholds = self.thresholds(device, scope)?;
        let rule = MergeRule::Consensus { zero_sum: ZeroSum::Sign(1), mean: true };
        self.join(device, Thin::Trim(&thresholds), rule)
    }
}
