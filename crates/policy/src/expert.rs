//! Action experts: from the language model's hidden states at every depth to a chunk of actions.
//!
//! Three published designs, told apart by their tensors:
//!
//! | design | queries | keys and values | gate of task tokens |
//! |---|---|---|---|
//! | MergeVLA (arXiv 2511.18810) | one for action tokens, one for task tokens, RoPE | action tokens, task tokens | sigmoid |
//! | VLA-Adapter (arXiv 2509.09372), pro | one, RoPE | actions, action tokens, task tokens | tanh |
//! | VLA-Adapter, plain | one | the same three through one projection | tanh |
//!
//! Where its sizes come from:
//!
//! | size | from |
//! |---|---|
//! | width, values of an action | `fc2.weight` |
//! | values of the robot's state | `proprio_projector.fc1.weight` |
//! | blocks, expert heads | which tensors there are |
//! | action queries | `action_queries.weight`, as long as the model's table of them |
//! | actions of a chunk | `num_actions_chunk` of `config.json`. No tensor's shape has it: the trunk starts from the same row for every action. Without it, the published code's number for the robots that it knows by their dimensions; other robots are refused until the config says it |
//! | attention heads | 8, fixed in the published code and in no file |
//! | base of the rotary embedding | 10⁴, fixed in the published code and in no file |
//!
//! Block l reads the hidden states of depth l + 1. A merged expert has one copy of its first blocks and an *expert head*
//! a task: the last blocks, `layer_norm2` and `fc2`.

mod block;
mod keys;

use crate::PolicyError;
use crate::backend::{Backend, Matrix, Repeated, Result, RopeTable, Rows, Then};
use crate::forward::array;
use crate::rope::{Rope, RopeCache, RopePrecision};
use crate::weights::{Device, LayerNorm, Linear, Plan};
use block::{Block, Context};
use keys::ExpertPlan;
use skillweld_tensor::Dtype;

/// ε of PyTorch's LayerNorm.
const EPSILON: f32 = 1e-5;
/// Attention heads: fixed in the published code, and in no file.
const HEADS: usize = 8;
/// Base θ of the rotary embedding, fixed in the published code.
const ROPE_THETA: f64 = 10_000.0;

/// What the language model knows at one depth.
#[derive(Debug)]
pub struct HiddenState<M> {
    /// Task tokens × width.
    pub task: M,
    /// Action tokens × width.
    pub action: M,
}

/// An action expert with one head or more, and the projector of the robot's state.
#[derive(Debug)]
pub struct ActionExpert<M> {
    proprio1: Linear,
    proprio2: Linear,
    proprio_dim: usize,
    trunks: Vec<Trunk>,
    rope: RopeCache<M>,
    chunk_len: usize,
    action_dim: usize,
    width: usize,
}

/// All blocks of one expert. Trunks of a merged expert share the weights of their first blocks.
#[derive(Debug)]
struct Trunk {
    /// ReLU(fc1(layer_norm1(0))): a constant, one row, the same for every action of the chunk.
    start: Vec<f32>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    fc2: Linear,
}

/// What files do not say about an action expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExpertOptions {
    /// Actions of a chunk. Not in any tensor's shape; without it, the value that the published code has for a robot with
    /// these dimensions: 25 for ALOHA (14 values an action), 5 for Bridge (7, and 7 of state), 8 for LIBERO (7 and 8).
    pub chunk_len: Option<usize>,
    /// Precision of the rotary embedding's table; without it, that of the dtype that the expert is stored in.
    pub rope: Option<RopePrecision>,
}

impl<M: Matrix> ActionExpert<M> {
    /// The expert under `action_head.` and `experts/<index>/action_head.`, and the projector under `proprio_projector.`.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when a tensor is missing or does not fit.
    pub fn plan(plan: &mut Plan<'_>, options: ExpertOptions) -> Result<Self> {
        let experts = keys::experts(plan);
        let first = ExpertPlan { plan, expert: 0 };
        let [action_dim, width] = first.dims("fc2")?;
        if width % (2 * HEADS) != 0 || action_dim == 0 {
            let problem = format!("an action expert {width} wide does not split into {HEADS} even heads");
            return Err(first.plan.problem(problem));
        }
        let [proprio_width, proprio_dim] = plan.dims("proprio_projector.fc1.weight")?;
        let proprio1 = plan.linear("proprio_projector.fc1", proprio_width, proprio_dim)?;
        let proprio2 = plan.linear("proprio_projector.fc2", width, proprio_width)?;
        let trunks = (0..experts)
            .map(|expert| Trunk::plan(&mut ExpertPlan { plan, expert }, width, action_dim))
            .collect::<Result<_>>()?;
        let stored = ExpertPlan { plan, expert: 0 }.dtype("fc2");
        let precision = options.rope.unwrap_or(match stored {
            Some(Dtype::BF16) => RopePrecision::Bf16,
            Some(Dtype::F16) => RopePrecision::F16,
            _ => RopePrecision::F32,
        });
        let rope = Rope { head_dim: width / HEADS, theta: ROPE_THETA, precision };
        let rope = RopeCache::new(rope);
        let chunk_len = options.chunk_len.or_else(|| published_chunk_len(action_dim, proprio_dim));
        let chunk_len = chunk_len.ok_or_else(|| {
            plan.problem(format!(
                "no file says how many actions a chunk has, and no published robot has {action_dim} values an action and \
                 {proprio_dim} of state; write the number that the experts were trained with into config.json as \
                 `num_actions_chunk`"
            ))
        })?;
        Ok(Self { proprio1, proprio2, proprio_dim, trunks, rope, chunk_len, action_dim, width })
    }

    /// Number of expert heads.
    pub fn experts(&self) -> usize {
        self.trunks.len()
    }

    /// Number of blocks; hidden states are one more.
    pub fn depth(&self) -> usize {
        self.trunks[0].blocks.len()
    }

    /// Width of its tokens.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values of the robot's state.
    pub fn proprio_dim(&self) -> usize {
        self.proprio_dim
    }

    /// Actions of a chunk, and values of an action.
    pub fn chunk(&self) -> (usize, usize) {
        (self.chunk_len, self.action_dim)
    }

    /// Normalised actions, chunk × action dimension, of expert `expert`.
    ///
    /// `hidden` holds [`ActionExpert::depth`] + 1 states, the embeddings' first (never read); `proprio` is the normalised
    /// state, one row.
    ///
    /// # Errors
    /// [`PolicyError::Observation`] when there is no such expert, and whatever the backend refuses.
    pub fn forward<B: Backend<Matrix = M>>(
        &self,
        device: Device<'_, B>,
        hidden: &[HiddenState<M>],
        proprio: &M,
        expert: usize,
    ) -> Result<M> {
        let Device { backend, .. } = device;
        let none =
            || PolicyError::Observation(format!("no expert {expert}: there are {}", self.trunks.len()));
        let trunk = self.trunks.get(expert).ok_or_else(none)?;
        let longest = hidden.iter().map(|h| h.task.rows().max(h.action.rows() + 1)).max().unwrap_or(0);
        let table = self.rope.table(backend, longest.max(self.chunk_len))?;
        let states = hidden.iter().flat_map(|hidden| [&hidden.task, &hidden.action]);
        let inputs: Vec<&M> = states.chain([proprio, &table.cos, &table.sin]).collect();
        let work = || Ok(vec![self.run(device, hidden, proprio, trunk, &table)?]);
        let [actions] = array(backend.repeated(Repeated::Expert(expert), &inputs, &work)?);
        Ok(actions)
    }

    fn run<B: Backend<Matrix = M>>(
        &self,
        device: Device<'_, B>,
        hidden: &[HiddenState<M>],
        proprio: &M,
        trunk: &Trunk,
        table: &RopeTable<M>,
    ) -> Result<M> {
        let Device { backend, .. } = device;
        let proprio = device.linear(proprio, self.proprio1, Then::Gelu)?;
        let proprio = device.linear(&proprio, self.proprio2, Then::Keep)?;
        let mut x = backend.trunk_start(self.chunk_len, &trunk.start)?;
        for (block, hidden) in trunk.blocks.iter().zip(&hidden[1..]) {
            let whole = |matrix: &'_ M| 0..matrix.rows();
            let action = backend.concat_rows(&[
                Rows { matrix: &hidden.action, rows: whole(&hidden.action) },
                Rows { matrix: &proprio, rows: whole(&proprio) },
            ])?;
            let context = Context { table, action: &action, task: &hidden.task };
            block.forward(device, &mut x, &context)?;
        }
        let x = device.layer_norm(&backend.trunk_read(&x)?, trunk.norm, EPSILON)?;
        device.linear(&x, trunk.fc2, Then::Keep)
    }
}

impl Trunk {
    fn plan(plan: &mut ExpertPlan<'_, '_>, width: usize, action_dim: usize) -> Result<Self> {
        let mut blocks = Vec::new();
        while plan.has(&format!("mlp_resnet_blocks.{}.o_proj", blocks.len())) {
            blocks.push(Block::plan(plan, &format!("mlp_resnet_blocks.{}", blocks.len()), width)?);
        }
        let start = start(plan, width)?;
        let norm = plan.layer_norm("layer_norm2", width)?;
        Ok(Self { start, blocks, norm, fc2: plan.linear("fc2", action_dim, width)? })
    }
}

/// ReLU(fc1(layer_norm1(0))). A LayerNorm of zeros is its bias.
fn start(plan: &ExpertPlan<'_, '_>, width: usize) -> Result<Vec<f32>> {
    let [out, input] = plan.dims("fc1")?;
    let zero = plan.values("layer_norm1", ".bias")?;
    let (weight, bias) = (plan.values("fc1", ".weight")?, plan.values("fc1", ".bias")?);
    if (out, zero.len(), bias.len()) != (width, input, width) {
        return Err(plan.plan.problem("the action head's `layer_norm1` and `fc1` do not fit one another"));
    }
    let rows = weight.chunks_exact(input.max(1)).zip(&bias);
    let products = rows.map(|(row, &bias)| {
        let sum: f64 = row.iter().zip(&zero).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        (sum + f64::from(bias)).max(0.0) as f32
    });
    Ok(products.collect())
}

/// The published code's chunk lengths, by robot.
fn published_chunk_len(action_dim: usize, proprio_dim: usize) -> Option<usize> {
    match (action_dim, proprio_dim) {
        (14, _) => Some(25),
        (7, 7) => Some(5),
        (7, 8) => Some(8),
        _ => None,
    }
}
