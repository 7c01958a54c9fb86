use ndarray::{Array2, Axis, s};

use super::{Tensors, angles, attend, columns, head, rows};

/// Heads and constants of a Qwen2 model.
pub struct Qwen2 {
    pub heads: usize,
    pub kv_heads: usize,
    pub theta: f64,
    pub epsilon: f64,
}

/// The whole sequence: first token, patches, rest of the prompt, queries, stop token.
pub fn sequence(t: &Tensors, projected: &Array2<f64>, prompt: &[u32], stop: u32) -> Array2<f64> {
    let table = t.matrix("language_model.model.embed_tokens.weight");
    let embed = |ids: &[u32]| table.select(Axis(0), &ids.iter().map(|&id| id as usize).collect::<Vec<_>>());
    let queries = t.matrix("action_queries.weight");
    rows(&[embed(&prompt[..1]), projected.clone(), embed(&prompt[1..]), queries, embed(&[stop])])
}

/// Every hidden state of the whole sequence.
pub fn hidden_states(t: &Tensors, model: &Qwen2, sequence: Array2<f64>) -> Vec<Array2<f64>> {
    let prefix = "language_model.model";
    let rms_norm = |key: String, x: &Array2<f64>| {
        let square = x.mapv(|x| x * x).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
        x / &(square + model.epsilon).mapv(f64::sqrt) * t.vector(&key)
    };
    let mut x = sequence;
    let mut states = Vec::new();
    let depth = (0..).take_while(|l| t.has(&format!("{prefix}.layers.{l}.input_layernorm.weight"))).count();
    for layer in 0..depth {
        states.push(x.clone());
        let name = |rest: &str| format!("{prefix}.layers.{layer}.{rest}");
        let normed = rms_norm(name("input_layernorm.weight"), &x);
        let (q, k, v) = (
            t.linear(&name("self_attn.q_proj"), &normed),
            t.linear(&name("self_attn.k_proj"), &normed),
            t.linear(&name("self_attn.v_proj"), &normed),
        );
        let dim = q.ncols() / model.heads;
        let attended: Vec<_> = (0..model.heads)
            .map(|h| {
                let shared = h / (model.heads / model.kv_heads);
                let q = turn(&head(&q, h, dim), model.theta);
                let k = turn(&head(&k, shared, dim), model.theta);
                let scores = q.dot(&k.t()) / (dim as f64).sqrt();
                attend(&scores, &head(&v, shared, dim), |query, key| key <= query)
            })
            .collect();
        x = &x + &t.linear(&name("self_attn.o_proj"), &columns(&attended));
        let normed = rms_norm(name("post_attention_layernorm.weight"), &x);
        let gate = t.linear(&name("mlp.gate_proj"), &normed).mapv(|g| g / (1.0 + (-g).exp()));
        let up = t.linear(&name("mlp.up_proj"), &normed);
        x = &x + &t.linear(&name("mlp.down_proj"), &(gate * up));
    }
    states.push(rms_norm(format!("{prefix}.norm.weight"), &x));
    states
}

/// Pairs (j, j + half) turned by their angles.
fn turn(x: &Array2<f64>, theta: f64) -> Array2<f64> {
    let (half, angles) = (x.ncols() / 2, angles(x.nrows(), x.ncols(), theta));
    let (low, high) = (x.slice(s![.., ..half]), x.slice(s![.., half..]));
    let (cos, sin) = (angles.mapv(f64::cos), angles.mapv(f64::sin));
    columns(&[&low * &cos - &high * &sin, &high * &cos + &low * &sin])
}
