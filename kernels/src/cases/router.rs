use skillweld_gpu::ops::{RouterScores, RouterSubspace};
use skillweld_gpu::{Array, Device, DeviceMemory, Graph, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::{bf16_values, f32_values};
use super::{Case, Work};

const TASKS: usize = 4;
const WIDTH: usize = 896;
const RANK: usize = 8;
/// Action-query tokens, and patches of two images.
const TOKENS: [usize; 2] = [64, 512];

pub(super) fn cases() -> Vec<Case> {
    let tokens = (TASKS * TOKENS.iter().sum::<usize>() * WIDTH) as f64;
    vec![Case {
        name: "router/4 tasks, 64 + 512 tokens",
        bytes: 2.0 * tokens + (4 * TASKS * 2 * RANK * WIDTH) as f64,
        matrix_flop: 2.0 * RANK as f64 * tokens,
        prepare,
    }]
}

/// In a graph, as it is asked for; hidden states are in the L2 there too, for the language model has just written them.
fn prepare(device: &Device) -> Result<Work> {
    let mut tasks: Vec<[[Array<DeviceMemory>; 2]; 2]> = Vec::new();
    for task in 0..TASKS as u64 {
        let subspace = |n: usize| -> Result<[Array<DeviceMemory>; 2]> {
            let seed = 10 * task + n as u64 + 1;
            let basis = f32_values(device, RANK * WIDTH, 0.03, seed)?;
            Ok([basis, bf16_values(device, TOKENS[n] * WIDTH, 1.0, seed + 100)?])
        };
        tasks.push([subspace(0)?, subspace(1)?]);
    }
    let mut scores = device.array(Dtype::F32, TASKS)?;
    let operands: Vec<Vec<_>> = tasks.iter().map(|task| task.iter().map(operand).collect()).collect();
    let mut router = RouterScores::new(device, WIDTH, &operands, scores.view_mut())?;
    router.run(device)?;
    let graph = Graph::record(device, || router.run(device))?;
    let memory = router.into_memory();
    Ok(Box::new(move || {
        let _kept = (&tasks, &scores, &memory);
        graph.replay()
    }))
}

fn operand([basis, hidden]: &[Array<DeviceMemory>; 2]) -> RouterSubspace<'_> {
    RouterSubspace { basis: basis.view(), hidden: hidden.view() }
}
