//! An expert's action expert and proprio projector, as `.pt` files.

use std::io;
use std::path::Path;

use skillweld_store::write_torch_zip;
use skillweld_tensor::{Dtype, TensorView, convert};

use crate::param::{Param, Params, Role};
use crate::{Embodiment, Noise};

/// MergeVLA's action expert for hidden states of width `hidden`, one block a layer.
fn action_head_params(hidden: usize, blocks: usize, action: usize) -> Vec<Param> {
    let mut params = Params(Vec::new());
    params.layer_norm("model.layer_norm1", action * hidden);
    params.linear("model.fc1", hidden, action * hidden);
    for block in 0..blocks {
        let block = format!("model.mlp_resnet_blocks.{block}");
        params.add(format!("{block}.gating_factor"), &[1], Role::Bias);
        params.layer_norm(&format!("{block}.ffn.0"), hidden);
        for layer in
            ["ffn.1", "q_proj_adapter", "k_adapter", "v_adapter", "q_proj_task", "k_task", "v_task", "o_proj"]
        {
            params.linear(&format!("{block}.{layer}"), hidden, hidden);
        }
    }
    params.layer_norm("model.layer_norm2", hidden);
    params.linear("model.fc2", action, hidden);
    params.0
}

fn proprio_projector_params(hidden: usize, state: usize) -> Vec<Param> {
    let mut params = Params(Vec::new());
    params.linear("fc1", hidden, state);
    params.linear("fc2", hidden, hidden);
    params.0
}

/// How far an expert's parameter has moved from the common start, against its own size: little in the first blocks,
/// entirely in the last ones, as published experts do.
fn relative_distance(name: &str, blocks: usize) -> f32 {
    let depth = match name.strip_prefix("model.mlp_resnet_blocks.").and_then(|rest| rest.split_once('.')) {
        Some((block, _)) => block.parse::<f32>().unwrap_or(0.0) / blocks as f32,
        None if name.starts_with("model.layer_norm2") || name.starts_with("model.fc2") => 1.0,
        None => 0.0,
    };
    0.05 * (3.0 * depth).exp()
}

/// Writes `action_head--10000_checkpoint.pt` and `proprio_projector--10000_checkpoint.pt`. With `wrapped`, names start
/// with `module.`, as saved from under distributed data parallelism.
pub(crate) fn write(
    dir: &Path,
    (hidden, blocks): (usize, usize),
    embodiment: Embodiment,
    seed: u64,
    index: usize,
    wrapped: bool,
) -> io::Result<()> {
    let parts = [
        ("action_head", action_head_params(hidden, blocks, embodiment.action_dim())),
        ("proprio_projector", proprio_projector_params(hidden, embodiment.state_dim())),
    ];
    for (part, params) in parts {
        let tensors = params.iter().map(|param| {
            let mut values = vec![0.0; param.numel()];
            param.fill_base(seed, 0, &mut values);
            let noise = Noise::new(seed, &format!("{part}/{}/expert{index}", param.name));
            noise.add(0, relative_distance(&param.name, blocks) * param.moments().1, &mut values);
            let mut bytes = vec![0; values.len() * 4];
            convert::encode(Dtype::F32, &values, &mut bytes).map_err(io::Error::other)?;
            let name = if wrapped { format!("module.{}", param.name) } else { param.name.clone() };
            Ok((name, bytes))
        });
        let tensors = tensors.collect::<io::Result<Vec<_>>>()?;
        let views = tensors.iter().zip(&params).map(|((name, bytes), param)| {
            let view = TensorView::new(Dtype::F32, &param.shape, bytes).map_err(io::Error::other)?;
            Ok((name.as_str(), view))
        });
        let views = views.collect::<io::Result<Vec<_>>>()?;
        let path = dir.join(format!("{part}--10000_checkpoint.pt"));
        write_torch_zip(&path, &views).map_err(io::Error::other)?;
    }
    Ok(())
}
