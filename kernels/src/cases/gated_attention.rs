use skillweld_gpu::ops::{AttentionGroup, GatedAttention, GatedShape, RotaryTable};
use skillweld_gpu::{Array, Device, DeviceMemory, Graph, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::{bf16_values, f32_values};
use super::{Case, Work};

/// The published action expert's layers, and their sizes.
const LAYERS: usize = 24;
const ROWS: usize = 8;
const HEADS: usize = 8;
const HEAD_DIM: usize = 112;
const WIDTH: usize = HEADS * HEAD_DIM;
/// Action-query tokens with the robot's state, and patches of two images.
const KEYS: [usize; 2] = [65, 512];

pub(super) fn cases() -> Vec<Case> {
    let keys = KEYS.iter().sum::<usize>() as f64;
    let bytes = 2.0 * 2.0 * keys * WIDTH as f64 + 3.0 * 4.0 * (ROWS * WIDTH) as f64;
    let flop = 4.0 * keys * (ROWS * WIDTH) as f64;
    vec![Case {
        name: "gated_attention/24 layers in a graph, 8 queries, 65 + 512 keys",
        bytes: LAYERS as f64 * bytes,
        matrix_flop: LAYERS as f64 * flop,
        prepare: layers,
    }]
}

struct Layer {
    keys: [Array<DeviceMemory>; 2],
    values: [Array<DeviceMemory>; 2],
    out: Array<DeviceMemory>,
}

/// All layers' attentions one after the other, each with its own keys and values, as an expert runs them.
fn layers(device: &Device) -> Result<Work> {
    let queries = f32_values(device, ROWS * 2 * WIDTH, 1.0, 1)?;
    let [cos, sin] = [2, 3].map(|seed| f32_values(device, ROWS * HEAD_DIM / 2, 1.0, seed));
    let (cos, sin) = (cos?, sin?);
    let mut layers = Vec::new();
    for layer in 0..LAYERS as u64 {
        let values = |n: usize, seed: u64| bf16_values(device, KEYS[n] * WIDTH, 1.0, 100 * layer + seed);
        layers.push(Layer {
            keys: [values(0, 4)?, values(1, 5)?],
            values: [values(0, 6)?, values(1, 7)?],
            out: device.array(Dtype::F32, ROWS * WIDTH)?,
        });
    }
    let shape = GatedShape { rows: ROWS, heads: HEADS, head_dim: HEAD_DIM, query_stride: 2 * WIDTH };
    let mut attentions = Vec::new();
    for Layer { keys, values, out } in &mut layers {
        let scale = (HEAD_DIM as f32).sqrt().recip();
        let groups: Vec<_> = (0..2)
            .map(|n| AttentionGroup {
                queries: queries.view().slice(n * WIDTH..(2 * ROWS - 1 + n) * WIDTH),
                keys: keys[n].view(),
                values: values[n].view(),
                scale: [scale, 0.4 * scale][n],
            })
            .collect();
        let rotary = RotaryTable { cos: cos.view(), sin: sin.view() };
        attentions.push(GatedAttention::new(device, shape, &groups, Some(rotary), out.view_mut())?);
    }
    // One before the recording: it loads the kernel.
    attentions[0].run(device)?;
    let graph = Graph::record(device, || attentions.iter_mut().try_for_each(|layer| layer.run(device)))?;
    let workspaces: Vec<_> = attentions.into_iter().map(GatedAttention::into_memory).collect();
    Ok(Box::new(move || {
        let _kept = (&queries, &cos, &sin, &layers, &workspaces);
        graph.replay()
    }))
}
