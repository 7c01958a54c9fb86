use skillweld_gpu::ops::{
    ActionExpert, ExpertKeys, ExpertLayer, ExpertLinear, ExpertNorm, ExpertOperands, ExpertShape, RotaryTable,
};
use skillweld_gpu::{Array, Device, DeviceMemory, Graph, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::{bf16_values, f32_values};
use super::{Case, Work};

/// The published action expert's sizes.
const LAYERS: usize = 24;
const SHAPE: ExpertShape = ExpertShape { rows: 8, heads: 8, head_dim: 112, action_dim: 7, epsilon: 1e-5 };
const WIDTH: usize = SHAPE.heads * SHAPE.head_dim;
/// Action-query tokens with the robot's state, and patches of two images.
const KEYS: [usize; 2] = [65, 512];

pub(super) fn cases() -> Vec<Case> {
    let keys = KEYS.iter().sum::<usize>() as f64;
    let width = WIDTH as f64;
    let bytes = LAYERS as f64 * 2.0 * (4.0 * width * width + 2.0 * keys * width);
    let flop = LAYERS as f64 * SHAPE.rows as f64 * (8.0 * width * width + 4.0 * keys * width);
    let case = |name, prepare| Case { name, bytes, matrix_flop: flop, prepare };
    vec![
        case("expert/24 blocks in a graph, 8 rows, 65 + 512 keys", in_a_graph),
        case("expert/24 blocks in one launch, 8 rows, 65 + 512 keys", in_one_launch),
    ]
}

fn in_a_graph(device: &Device) -> Result<Work> {
    let weights = Weights::new(device)?;
    let mut out = device.array(Dtype::F32, SHAPE.rows * SHAPE.action_dim)?;
    let mut expert = ActionExpert::new(device, SHAPE, &weights.operands(), out.view_mut())?;
    // Once before the recording: it loads the kernels.
    expert.run_graph_kernels(device)?;
    let graph = Graph::record(device, || expert.run_graph_kernels(device))?;
    let memory = expert.into_memory();
    Ok(Box::new(move || {
        let _kept = (&weights, &out, &memory);
        graph.replay()
    }))
}

fn in_one_launch(device: &Device) -> Result<Work> {
    let weights = Weights::new(device)?;
    let mut out = device.array(Dtype::F32, SHAPE.rows * SHAPE.action_dim)?;
    let mut expert = ActionExpert::new(device, SHAPE, &weights.operands(), out.view_mut())?;
    expert.run_persistent(device)?;
    let graph = Graph::record(device, || expert.run_persistent(device))?;
    let memory = expert.into_memory();
    Ok(Box::new(move || {
        let _kept = (&weights, &out, &memory);
        graph.replay()
    }))
}

type Pair = [Array<DeviceMemory>; 2];

struct LayerWeights {
    queries: Pair,
    keys: Pair,
    values: Pair,
    out: Pair,
    norm: Pair,
    feed_forward: Pair,
}

/// The weights of a whole expert: 155 MB, and 50 MB of keys and values, more than any L2 holds.
struct Weights {
    start: Array<DeviceMemory>,
    layers: Vec<LayerWeights>,
    rotary: Pair,
    norm: Pair,
    last: Pair,
}

impl Weights {
    fn new(device: &Device) -> Result<Self> {
        let size = (WIDTH as f32).sqrt().recip();
        let pair = |features: usize, seed: u64| -> Result<Pair> {
            Ok([
                bf16_values(device, features * WIDTH, size, seed)?,
                f32_values(device, features, size, seed + 1)?,
            ])
        };
        let vectors = |numel: usize, seed: u64| -> Result<Pair> {
            Ok([f32_values(device, numel, 1.0, seed)?, f32_values(device, numel, 0.1, seed + 1)?])
        };
        let tokens = |seed: u64| -> Result<Pair> {
            Ok([
                bf16_values(device, KEYS[0] * WIDTH, 1.0, seed)?,
                bf16_values(device, KEYS[1] * WIDTH, 1.0, seed + 1)?,
            ])
        };
        let layer = |n: u64| -> Result<LayerWeights> {
            let seed = 100 * n;
            Ok(LayerWeights {
                queries: pair(2 * WIDTH, seed + 1)?,
                keys: tokens(seed + 3)?,
                values: tokens(seed + 5)?,
                out: pair(WIDTH, seed + 7)?,
                norm: vectors(WIDTH, seed + 9)?,
                feed_forward: pair(WIDTH, seed + 11)?,
            })
        };
        Ok(Self {
            start: f32_values(device, SHAPE.rows * WIDTH, 1.0, 1)?,
            layers: (1..=LAYERS as u64).map(layer).collect::<Result<_>>()?,
            rotary: vectors(SHAPE.rows * SHAPE.head_dim / 2, 2)?,
            norm: vectors(WIDTH, 4)?,
            last: pair(SHAPE.action_dim, 6)?,
        })
    }

    fn operands(&self) -> ExpertOperands<'_> {
        ExpertOperands {
            start: self.start.view(),
            layers: self.layers.iter().map(LayerWeights::operand).collect(),
            rotary: RotaryTable { cos: self.rotary[0].view(), sin: self.rotary[1].view() },
            norm: norm(&self.norm),
            last: linear(&self.last),
        }
    }
}

impl LayerWeights {
    fn operand(&self) -> ExpertLayer<'_> {
        let scale = (SHAPE.head_dim as f32).sqrt().recip();
        ExpertLayer {
            queries: linear(&self.queries),
            groups: [0, 1].map(|n| ExpertKeys {
                keys: self.keys[n].view(),
                values: self.values[n].view(),
                scale: [scale, 0.4 * scale][n],
            }),
            out: linear(&self.out),
            norm: norm(&self.norm),
            feed_forward: linear(&self.feed_forward),
        }
    }
}

fn linear([weight, bias]: &Pair) -> ExpertLinear<'_> {
    ExpertLinear { weight: weight.view(), bias: bias.view() }
}

fn norm([gain, bias]: &Pair) -> ExpertNorm<'_> {
    ExpertNorm { gain: gain.view(), bias: bias.view() }
}
