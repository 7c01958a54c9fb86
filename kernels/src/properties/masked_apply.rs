//! `masked_apply` against `skillweld_tensor::apply_mask`, bit for bit.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::ops::{MaskedApply, MaskedTensor, TaskOutput};
use skillweld_gpu::{Array, Target};
use skillweld_tensor::{BitMask, Dtype, apply_mask};

use super::random::{bytes_of, dtype, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "masked_apply: equals the CPU bit for bit", check: equals_cpu }]
}

/// Lengths of the tensors, number of tasks, dtype, seed.
type Case = (Vec<usize>, usize, Dtype, u64);

fn equals_cpu<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let lengths = prop::collection::vec(prop_oneof![0..40usize, 8000..9000usize, 1..30_000usize], 1..5);
    let cases = (lengths, 1..7usize, dtype(), any::<u64>());
    runner.run(&cases, |case| one_case(target, case)).map_err(|error| error.to_string())
}

fn one_case<T: Target>(target: &T, (lengths, tasks, dtype, seed): Case) -> Result<(), TestCaseError> {
    let scales: Vec<f32> = values(tasks, seed).iter().map(|value| 1.0 + value).collect();
    let host: Vec<HostTensor> = lengths
        .iter()
        .zip(0u64..)
        .map(|(&n, i)| HostTensor::new(n, tasks, dtype, seed ^ (i << 32)))
        .collect();
    let mut device = Vec::new();
    for tensor in &host {
        device.push(tensor.upload(target).map_err(failed)?);
    }
    let operands = device.iter_mut().map(DeviceTensor::operand).collect();
    MaskedApply::new(target, operands, &scales).and_then(|mut apply| apply.run(target)).map_err(failed)?;
    for (host, device) in host.iter().zip(&device) {
        for (task, &scale) in scales.iter().enumerate() {
            let is = target.read(&device.outs[task]).map_err(failed)?;
            prop_assert_eq!(is, host.expected(task, scale), "task {} of {} elements", task, host.numel);
        }
    }
    Ok(())
}

struct HostTensor {
    dtype: Dtype,
    numel: usize,
    base: Vec<u8>,
    task_vector: Vec<u8>,
    masks: Vec<Vec<u8>>,
}

impl HostTensor {
    fn new(numel: usize, tasks: usize, dtype: Dtype, seed: u64) -> Self {
        let mask =
            |task: u64| values(numel, seed ^ (task + 3)).iter().map(|&v| v > 0.1).collect::<Vec<bool>>();
        Self {
            dtype,
            numel,
            base: bytes_of(dtype, &values(numel, seed ^ 1)),
            task_vector: bytes_of(dtype, &values(numel, seed ^ 2)),
            masks: (0..tasks as u64)
                .map(|task| BitMask::from_bools(&mask(task)).as_bytes().to_vec())
                .collect(),
        }
    }

    /// What the CPU makes of it.
    fn expected(&self, task: usize, scale: f32) -> Vec<u8> {
        let mut out = vec![0.0; self.numel];
        let (base, tau) = (floats_of(self.dtype, &self.base), floats_of(self.dtype, &self.task_vector));
        apply_mask(&base, &tau, &self.masks[task], scale, &mut out);
        bytes_of(self.dtype, &out)
    }

    fn upload<T: Target>(&self, target: &T) -> skillweld_gpu::Result<DeviceTensor<T::Memory>> {
        let tasks = self.masks.iter();
        Ok(DeviceTensor {
            base: target.array_of(self.dtype, &self.base)?,
            task_vector: target.array_of(self.dtype, &self.task_vector)?,
            masks: tasks.map(|mask| target.array_of(Dtype::U8, mask)).collect::<Result<_, _>>()?,
            outs: self
                .masks
                .iter()
                .map(|_| target.array(self.dtype, self.numel))
                .collect::<Result<_, _>>()?,
        })
    }
}

struct DeviceTensor<M> {
    base: Array<M>,
    task_vector: Array<M>,
    masks: Vec<Array<M>>,
    outs: Vec<Array<M>>,
}

impl<M: skillweld_gpu::Memory> DeviceTensor<M> {
    fn operand(&mut self) -> MaskedTensor<'_> {
        let tasks = self.masks.iter().zip(&mut self.outs);
        MaskedTensor {
            base: self.base.view(),
            task_vector: self.task_vector.view(),
            tasks: tasks.map(|(mask, out)| TaskOutput { mask: mask.view(), out: out.view_mut() }).collect(),
        }
    }
}
