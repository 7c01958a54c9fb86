use crate::backend::{Backend, KeyGroup, Matrix, Pairing, Result, RopeTable, Then, TrunkBlock};
use crate::weights::{Device, LayerNorm, Linear, WeightId};

use super::keys::ExpertPlan;
use super::{EPSILON, HEADS};

/// What a block attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// The actions themselves.
    Own,
    /// Action-query tokens and the robot's state.
    Action,
    /// Image patches. Their scores are multiplied with the gate.
    Task,
}

/// Keys and values of one kind of tokens.
#[derive(Debug)]
struct Group {
    from: Tokens,
    /// Which of the block's queries look for them.
    query: usize,
    key: Linear,
    value: Linear,
}

/// One block of an action expert: attention with one softmax over two or three groups of keys, then
/// ReLU(Linear(LayerNorm(x))) without a second residual.
#[derive(Debug)]
pub(super) struct Block {
    queries: Vec<Linear>,
    groups: Vec<Group>,
    rope: bool,
    /// sigmoid(g) or tanh(g).
    gate: f64,
    out: (WeightId, WeightId),
    norm: LayerNorm,
    feed_forward: (WeightId, WeightId),
}

/// What a block reads besides the actions.
pub(super) struct Context<'a, M> {
    pub(super) table: &'a RopeTable<M>,
    /// Action-query tokens of the block's depth, then the robot's state.
    pub(super) action: &'a M,
    /// Task tokens of the block's depth.
    pub(super) task: &'a M,
}

impl Block {
    /// The block under `prefix`; its tensors tell which of the three published designs it is.
    pub(super) fn plan(plan: &mut ExpertPlan<'_, '_>, prefix: &str, width: usize) -> Result<Self> {
        use Tokens::{Action, Own, Task};
        // Query layers, then what each group reads: its query, key and value layers.
        type Design = (&'static [&'static str], Vec<(Tokens, usize, &'static str, &'static str)>);
        let gate = f64::from(plan.scalar(&format!("{prefix}.gating_factor"))?);
        let sigmoid = 1.0 / (1.0 + (-gate).exp());
        let ((queries, groups), rope, gate): (Design, bool, f64) =
            if plan.has(&format!("{prefix}.q_proj_adapter")) {
                let groups = vec![(Action, 0, "k_adapter", "v_adapter"), (Task, 1, "k_task", "v_task")];
                ((&["q_proj_adapter", "q_proj_task"], groups), true, sigmoid)
            } else if plan.has(&format!("{prefix}.k_self")) {
                let groups = vec![
                    (Own, 0, "k_self", "v_self"),
                    (Action, 0, "k_adapter", "v_adapter"),
                    (Task, 0, "k_task", "v_task"),
                ];
                ((&["q_proj"], groups), true, gate.tanh())
            } else {
                let groups = [Own, Action, Task].map(|from| (from, 0, "k_proj", "v_proj")).to_vec();
                ((&["q_proj"], groups), false, gate.tanh())
            };
        let mut linear = |layer: &str| plan.linear(&format!("{prefix}.{layer}"), width, width);
        let queries = queries.iter().map(|layer| linear(layer)).collect::<Result<_>>()?;
        let group =
            |(from, query, key, value)| Ok(Group { from, query, key: linear(key)?, value: linear(value)? });
        let groups = groups.into_iter().map(group).collect::<Result<_>>()?;
        Ok(Self {
            queries,
            groups,
            rope,
            gate,
            out: plan.trunk_linear(&format!("{prefix}.o_proj"), width)?,
            norm: plan.layer_norm(&format!("{prefix}.ffn.0"), width)?,
            feed_forward: plan.trunk_linear(&format!("{prefix}.ffn.1"), width)?,
        })
    }

    /// Runs the trunk, actions × width, through the block.
    pub(super) fn forward<B: Backend>(
        &self,
        device: Device<'_, B>,
        trunk: &mut B::Trunk,
        context: &Context<'_, B::Matrix>,
    ) -> Result<()> {
        let Device { backend, .. } = device;
        let x = backend.trunk_read(trunk)?;
        let project = |tokens: &B::Matrix, layer: Linear, turned: bool| {
            let mut projected = device.linear(tokens, layer, Then::Keep)?;
            if turned {
                backend.rope(&mut projected, context.table, Pairing::Neighbours)?;
            }
            Ok(projected)
        };
        let queries = self.queries.iter().map(|&query| project(&x, query, self.rope));
        let queries = queries.collect::<Result<Vec<_>>>()?;
        let keys_and_values = self.groups.iter().map(|group| {
            let tokens = match group.from {
                Tokens::Own => &x,
                Tokens::Action => context.action,
                Tokens::Task => context.task,
            };
            Ok((project(tokens, group.key, self.rope)?, project(tokens, group.value, false)?))
        });
        let keys_and_values = keys_and_values.collect::<Result<Vec<_>>>()?;
        let scale = ((x.columns() / HEADS) as f64).sqrt().recip();
        let groups = self.groups.iter().zip(&keys_and_values).map(|(group, (keys, values))| {
            let gate = if group.from == Tokens::Task { self.gate } else { 1.0 };
            KeyGroup { queries: &queries[group.query], keys, values, scale: (gate * scale) as f32 }
        });
        let attended = backend.gated_attention(&groups.collect::<Vec<_>>(), HEADS)?;
        let layer = |(weight, bias)| (device.weight(weight), device.weight(bias));
        let block = TrunkBlock {
            out: layer(self.out),
            norm: layer((self.norm.gain, self.norm.bias)),
            epsilon: EPSILON,
            feed_forward: layer(self.feed_forward),
        };
        backend.trunk_block(trunk, &attended, block)
    }
}
