use ndarray::{Array2, s};

use super::{Tensors, angles, attend, columns, gelu, head, rows};

const HEADS: usize = 8;

/// Actions of one expert. `hidden` holds (task tokens, action tokens) of every depth; `t` one expert's own head under its
/// published names, with the projector's as `fc1` and `fc2`.
pub fn actions(
    t: &Tensors,
    projector: &Tensors,
    hidden: &[(Array2<f64>, Array2<f64>)],
    proprio: &Array2<f64>,
    chunk: usize,
) -> Array2<f64> {
    let proprio = projector.linear("fc2", &projector.linear("fc1", proprio).mapv(gelu));
    let input = t.vector("model.layer_norm1.weight").len();
    let start = t.layer_norm("model.layer_norm1", &Array2::zeros((chunk, input)), 1e-5);
    let mut x = t.linear("model.fc1", &start).mapv(|x| x.max(0.0));
    for (block, (task, action)) in hidden[1..].iter().enumerate() {
        let name = |rest: &str| format!("model.mlp_resnet_blocks.{block}.{rest}");
        let has = |layer: &str| t.has(&name(&format!("{layer}.weight")));
        let action = rows(&[action.clone(), proprio.clone()]);
        let gate = t.vector(&name("gating_factor"))[0];
        // (query, key, value, tokens, gate) of each group.
        let (groups, rotary) = if has("q_proj_adapter") {
            let sigmoid = 1.0 / (1.0 + (-gate).exp());
            let action = ("q_proj_adapter", "k_adapter", "v_adapter", &action, 1.0);
            (vec![action, ("q_proj_task", "k_task", "v_task", task, sigmoid)], true)
        } else if has("k_self") {
            let groups = vec![
                ("q_proj", "k_self", "v_self", &x, 1.0),
                ("q_proj", "k_adapter", "v_adapter", &action, 1.0),
                ("q_proj", "k_task", "v_task", task, gate.tanh()),
            ];
            (groups, true)
        } else {
            let group = |tokens, gate| ("q_proj", "k_proj", "v_proj", tokens, gate);
            (vec![group(&x, 1.0), group(&action, 1.0), group(task, gate.tanh())], false)
        };
        let dim = x.ncols() / HEADS;
        let turned = |x: Array2<f64>| if rotary { turn(&x) } else { x };
        let attended: Vec<_> = (0..HEADS)
            .map(|h| {
                let mut scores = Vec::new();
                let mut values = Vec::new();
                for &(query, key, value, tokens, gate) in &groups {
                    let q = turned(head(&t.linear(&name(query), &x), h, dim));
                    let k = turned(head(&t.linear(&name(key), tokens), h, dim));
                    scores.push(q.dot(&k.t()) * gate / (dim as f64).sqrt());
                    values.push(head(&t.linear(&name(value), tokens), h, dim));
                }
                attend(&columns(&scores), &rows(&values), |_, _| true)
            })
            .collect();
        let sum = &x + &t.linear(&name("o_proj"), &columns(&attended));
        x = t.linear(&name("ffn.1"), &t.layer_norm(&name("ffn.0"), &sum, 1e-5)).mapv(|x| x.max(0.0));
    }
    t.linear("model.fc2", &t.layer_norm("model.layer_norm2", &x, 1e-5))
}

/// x ⊙ cos + swapped(x) ⊙ sin: neighbours swapped, angles repeated half by half.
fn turn(x: &Array2<f64>) -> Array2<f64> {
    let angles = angles(x.nrows(), x.ncols(), 10_000.0);
    let angles = columns(&[angles.clone(), angles]);
    Array2::from_shape_fn(x.dim(), |(row, j)| {
        let swapped = if j % 2 == 0 { -x[[row, j + 1]] } else { x[[row, j - 1]] };
        x[[row, j]] * angles[[row, j]].cos() + swapped * angles[[row, j]].sin()
    })
}

/// The rows that an expert reads: the published slices of a whole sequence's state.
pub fn slices(
    state: &Array2<f64>,
    patches: usize,
    prompt: usize,
    queries: usize,
) -> (Array2<f64>, Array2<f64>) {
    let first = patches + prompt - 1;
    (state.slice(s![..patches, ..]).to_owned(), state.slice(s![first..first + queries, ..]).to_owned())
}
