//! The language model: a Qwen2 decoder (arXiv 2407.10671) that keeps every hidden state.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{
    AttentionShape, Backend, Columns, Matrix, Pairing, Result, RopeTable, Then, WeightKind,
};
use crate::config::Config;
use crate::rope::{Rope, RopeCache, RopePrecision};
use crate::weights::{Device, Linear, Plan, WeightId};

/// A decoder-only transformer. Its output head is never read.
#[derive(Debug)]
pub struct LanguageModel<M> {
    embedding: WeightId,
    layers: Vec<Layer>,
    norm: WeightId,
    rope: RopeCache<M>,
    vocabulary: usize,
    width: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    epsilon: f32,
}

#[derive(Debug)]
struct Layer {
    norm1: WeightId,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm2: WeightId,
    gate: Linear,
    up: Linear,
    down: Linear,
}

const PREFIX: &str = "language_model.model";

impl<M: Matrix> LanguageModel<M> {
    /// The model under `language_model.model`.
    ///
    /// # Errors
    /// [`crate::PolicyError::Checkpoint`] when a tensor is missing or does not fit, or the config says otherwise.
    pub fn plan(plan: &mut Plan<'_>, config: &Config) -> Result<Self> {
        let text = &config.language;
        let [vocabulary, width] = plan.dims(&format!("{PREFIX}.embed_tokens.weight"))?;
        let depth = plan.count(&format!("{PREFIX}.layers."), 0, ".input_layernorm.weight");
        config.agrees("text_config.hidden_size", text.width, width)?;
        config.agrees("text_config.num_hidden_layers", text.depth, depth)?;
        if depth == 0 {
            return Err(plan.problem(format!("`{PREFIX}.layers.0` is missing: there is no language model")));
        }
        let [queries, _] = plan.dims(&format!("{PREFIX}.layers.0.self_attn.q_proj.weight"))?;
        let [keys, _] = plan.dims(&format!("{PREFIX}.layers.0.self_attn.k_proj.weight"))?;
        let heads = text.heads.unwrap_or(queries / 64);
        let head_dim = queries.checked_div(heads).unwrap_or(0);
        if head_dim == 0
            || head_dim % 2 != 0
            || head_dim * heads != queries
            || keys == 0
            || keys % head_dim != 0
        {
            return Err(config.problem(format!(
                "`text_config.num_attention_heads`: {heads} heads do not fit queries of width {queries} and keys of {keys}"
            )));
        }
        let kv_heads = keys / head_dim;
        config.agrees("text_config.num_key_value_heads", text.kv_heads, kv_heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.problem(format!("{heads} heads cannot share {kv_heads} heads of keys evenly")));
        }
        let embedding =
            plan.add(WeightKind::Table, &format!("{PREFIX}.embed_tokens.weight"), vocabulary, width)?;
        let layer = |index| Layer::plan(plan, &format!("{PREFIX}.layers.{index}"), width, queries, keys);
        let layers = (0..depth).map(layer).collect::<Result<_>>()?;
        let norm = plan.vector(&format!("{PREFIX}.norm.weight"), width)?;
        // transformers computes this table in f32 whatever the model's dtype.
        let rope = Rope { head_dim, theta: text.rope_theta, precision: RopePrecision::F32 };
        let (rope, epsilon) = (RopeCache::new(rope), text.rms_norm_eps);
        Ok(Self { embedding, layers, norm, rope, vocabulary, width, heads, kv_heads, head_dim, epsilon })
    }

    /// Width of a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of layers; there is one more hidden state.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Number of token ids that have an embedding.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Embeddings of tokens.
    ///
    /// # Errors
    /// Whatever the backend refuses.
    pub fn embed<B: Backend<Matrix = M>>(&self, device: Device<'_, B>, ids: &[u32]) -> Result<M> {
        device.backend.gather(device.weight(self.embedding), ids)
    }

    /// The rotary embedding's table for sequences of up to so many tokens.
    ///
    /// # Errors
    /// Whatever the backend refuses.
    pub fn table<B: Backend<Matrix = M>>(&self, backend: &B, positions: usize) -> Result<Arc<RopeTable<M>>> {
        self.rope.table(backend, positions)
    }

    /// Runs sequences of one length, one below the other as the rows of the table, and hands every hidden state to `keep` in
    /// order: the embeddings, the output of every layer but the last, and the last one's after the final norm.
    ///
    /// # Errors
    /// Whatever the backend or `keep` refuse.
    pub fn forward<B: Backend<Matrix = M>>(
        &self,
        device: Device<'_, B>,
        mut x: M,
        sequences: usize,
        table: &RopeTable<M>,
        mut keep: impl FnMut(&M) -> Result<()>,
    ) -> Result<()> {
        let shape = AttentionShape {
            sequences,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            causal: true,
        };
        for layer in &self.layers {
            keep(&x)?;
            x = layer.forward(device, &x, table, shape, self.epsilon)?;
        }
        keep(&device.backend.rms_norm(&x, device.weight(self.norm), self.epsilon)?)
    }
}

impl Layer {
    fn plan(plan: &mut Plan<'_>, prefix: &str, width: usize, queries: usize, keys: usize) -> Result<Self> {
        let attention = format!("{prefix}.self_attn");
        let [hidden, _] = plan.dims(&format!("{prefix}.mlp.gate_proj.weight"))?;
        Ok(Self {
            norm1: plan.vector(&format!("{prefix}.input_layernorm.weight"), width)?,
            q: plan.linear(&format!("{attention}.q_proj"), queries, width)?,
            k: plan.linear(&format!("{attention}.k_proj"), keys, width)?,
            v: plan.linear(&format!("{attention}.v_proj"), keys, width)?,
            o: plan.linear(&format!("{attention}.o_proj"), width, queries)?,
            norm2: plan.vector(&format!("{prefix}.post_attention_layernorm.weight"), width)?,
            gate: plan.linear(&format!("{prefix}.mlp.gate_proj"), hidden, width)?,
            up: plan.linear(&format!("{prefix}.mlp.up_proj"), hidden, width)?,
            down: plan.linear(&format!("{prefix}.mlp.down_proj"), width, hidden)?,
        })
    }

    /// x + attention(norm₁(x)), then x + down(silu(gate) ⊙ up) of norm₂(x).
    fn forward<B: Backend>(
        &self,
        device: Device<'_, B>,
        x: &B::Matrix,
        table: &RopeTable<B::Matrix>,
        shape: AttentionShape,
        epsilon: f32,
    ) -> Result<B::Matrix> {
        let Device { backend, .. } = device;
        let normed = backend.rms_norm(x, device.weight(self.norm1), epsilon)?;
        let mut queries = device.linear(&normed, self.q, Then::Keep)?;
        let mut keys = device.linear(&normed, self.k, Then::Keep)?;
        let values = device.linear(&normed, self.v, Then::Keep)?;
        backend.rope(&mut queries, table, Pairing::Halves)?;
        backend.rope(&mut keys, table, Pairing::Halves)?;
        let whole = |matrix| Columns { matrix, start: 0 };
        let attended = backend.attention(whole(&queries), whole(&keys), whole(&values), shape)?;
        let x = device.linear(&attended, self.o, Then::AddTo { residual: x, scale: None })?;

        let normed = backend.rms_norm(&x, device.weight(self.norm2), epsilon)?;
        let gate = device.linear(&normed, self.gate, Then::Keep)?;
        let hidden = device.linear(&normed, self.up, Then::SiluGate(&gate))?;
        device.linear(&hidden, self.down, Then::AddTo { residual: &x, scale: None })
    }
}

/// Where in the sequence the tokens that the action expert reads stand: `[first token, patches, rest of the prompt,
/// action queries, stop]`. Both ranges begin one position before what they are named after, as in the published code,
/// which the experts were trained with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// Task tokens: the first token and all patches but the last.
    pub task: Range<usize>,
    /// Action tokens: the prompt's last token and all queries but the last.
    pub action: Range<usize>,
}

impl Slices {
    /// For `patches` patches of all images, a prompt of `prompt` tokens and `queries` action queries.
    pub fn new(patches: usize, prompt: usize, queries: usize) -> Self {
        let first = patches + prompt - 1;
        Self { task: 0..patches, action: first..first + queries }
    }

    /// Tokens that have to be computed: attention is causal, so what follows the last action token (the last query and
    /// the stop token) changes nothing that is read.
    pub fn sequence_len(&self) -> usize {
        self.action.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_the_published_model() {
        let slices = Slices::new(512, 17, 64);
        assert_eq!(slices, Slices { task: 0..512, action: 528..592 });
    }
}
