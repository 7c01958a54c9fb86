use ndarray::{Array2, ArrayView3, Axis, s};

use super::{Tensors, attend, columns, gelu, head, rows};

/// Features of one tower for every patch of one image, 3 × side × side.
pub fn features(t: &Tensors, prefix: &str, heads: usize, image: &ArrayView3<'_, f64>) -> Array2<f64> {
    let name = |rest: &str| format!("{prefix}.{rest}");
    let (side, patch) = (image.dim().1, t.0[&name("patch_embed.proj.weight")].shape()[3]);
    let mut patches = Vec::new();
    for y in (0..side - patch + 1).step_by(patch) {
        for x in (0..side - patch + 1).step_by(patch) {
            let pixels: Vec<f64> = image.slice(s![.., y..y + patch, x..x + patch]).iter().copied().collect();
            patches.push(Array2::from_shape_vec((1, pixels.len()), pixels).unwrap());
        }
    }
    let patches = t.linear(&name("patch_embed.proj"), &rows(&patches)) + t.rows(&name("pos_embed"));
    let count = patches.nrows();
    let mut tokens = Vec::new();
    for learnt in ["cls_token", "reg_token"].map(name).into_iter().filter(|key| t.has(key)) {
        tokens.push(t.rows(&learnt));
    }
    tokens.push(patches);
    let mut x = rows(&tokens);
    let depth = (0..).take_while(|b| t.has(&name(&format!("blocks.{b}.norm1.weight")))).count();
    for block in 0..depth - 1 {
        let name = |rest: &str| format!("{prefix}.blocks.{block}.{rest}");
        let scale = |branch: &str, y: Array2<f64>| {
            let keys = ["scale_factor", "gamma"].map(|key| name(&format!("{branch}.{key}")));
            match keys.iter().find(|key| t.has(key)) {
                Some(key) => y * t.vector(key),
                None => y,
            }
        };
        let qkv = t.linear(&name("attn.qkv"), &t.layer_norm(&name("norm1"), &x, 1e-6));
        let (width, dim) = (x.ncols(), x.ncols() / heads);
        let part = |index: usize| qkv.slice(s![.., index * width..(index + 1) * width]).to_owned();
        let (q, k, v) = (part(0), part(1), part(2));
        let attended: Vec<_> = (0..heads)
            .map(|h| {
                let scores = head(&q, h, dim).dot(&head(&k, h, dim).t()) / (dim as f64).sqrt();
                attend(&scores, &head(&v, h, dim), |_, _| true)
            })
            .collect();
        x = &x + &scale("ls1", t.linear(&name("attn.proj"), &columns(&attended)));
        let hidden = t.linear(&name("mlp.fc1"), &t.layer_norm(&name("norm2"), &x, 1e-6)).mapv(gelu);
        x = &x + &scale("ls2", t.linear(&name("mlp.fc2"), &hidden));
    }
    let first = x.len_of(Axis(0)) - count;
    x.slice(s![first.., ..]).to_owned()
}

/// Fully connected layers with GELU between them.
pub fn project(t: &Tensors, x: &Array2<f64>) -> Array2<f64> {
    let x = t.linear("projector.fc1", x).mapv(gelu);
    let x = t.linear("projector.fc2", &x).mapv(gelu);
    t.linear("projector.fc3", &x)
}
