//! The action head of all tasks: shared tensors under their own names, those of expert heads numbered by task.

use std::collections::BTreeMap;

use skillweld_merged::layout::{BLOCKS, PROJECTIONS, ROUTER_PAIRS, block_index};
use skillweld_merged::{ExpertPart, MergedCheckpoint, Role};
use skillweld_store::{Checkpoint, TorchNode, TorchTensor};
use skillweld_tensor::{Dtype, TensorView};

use crate::InterchangeError;

/// The head as a state dict; `None` for a checkpoint without action expert.
pub(super) fn action_head<'a>(
    merged: &'a MergedCheckpoint,
    notes: &mut Vec<String>,
) -> Result<Option<TorchNode<'a>>, InterchangeError> {
    let shared: Vec<_> = merged.shared_part(ExpertPart::ActionHead).collect();
    let shared_blocks =
        shared.iter().filter_map(|(name, _)| block_index(name)).max().map_or(0, |last| last + 1);
    let mut entries: Vec<(String, TorchNode<'_>)> = Vec::new();
    for (name, view) in shared {
        entries.push((name.to_owned(), TorchNode::Tensor(view.into())));
    }
    let mut gates: BTreeMap<&str, Vec<TensorView<'_>>> = BTreeMap::new();
    for task in 0..merged.tasks().len() {
        for (name, view) in merged.own_part(ExpertPart::ActionHead, task) {
            if name.ends_with(".gating_factor") {
                gates.entry(name).or_default().push(view);
            } else {
                let published = numbered(name, task, shared_blocks);
                let name = published.ok_or_else(|| unknown(merged, name))?;
                entries.push((name, TorchNode::Tensor(view.into())));
            }
        }
    }
    for (name, values) in gates {
        entries.push((moe(name, shared_blocks), TorchNode::Tensor(joined(merged, name, values)?)));
    }
    if entries.is_empty() {
        return Ok(None);
    }
    router(merged, shared_blocks, &mut entries, notes)?;
    Ok(Some(TorchNode::OrderedDict(entries)))
}

fn unknown(merged: &MergedCheckpoint, name: &str) -> InterchangeError {
    InterchangeError::unfit(merged.dir(), format!("the layout has no name for `{name}` of one task"))
}

/// `model.fc2.weight` → `model.fc2.experts.<task>.weight`.
fn numbered(name: &str, task: usize, shared_blocks: usize) -> Option<String> {
    let (module, parameter) = name.rsplit_once('.')?;
    Some(format!("{}.experts.{task}.{parameter}", moe(module, shared_blocks)))
}

/// Blocks of expert heads count from 0, and have a name of their own.
fn moe(name: &str, shared_blocks: usize) -> String {
    let rest = name.strip_prefix(BLOCKS).and_then(|rest| {
        let (block, rest) = rest.split_once('.')?;
        Some((block.parse::<usize>().ok()?.checked_sub(shared_blocks)?, rest))
    });
    match rest {
        Some((block, rest)) => format!("model.mlp_resnet_moe_blocks.{block}.{rest}"),
        None => name.to_owned(),
    }
}

/// One number of each task, as one vector.
fn joined<'a>(
    merged: &MergedCheckpoint,
    name: &str,
    values: Vec<TensorView<'a>>,
) -> Result<TorchTensor<'a>, InterchangeError> {
    let dtype = values.first().map_or(Dtype::F32, TensorView::dtype);
    if values.iter().any(|view| view.numel() != 1 || view.dtype() != dtype) {
        let problem = format!("`{name}` is not one number of one dtype in every task, as the layout wants");
        return Err(InterchangeError::unfit(merged.dir(), problem));
    }
    let count = values.len();
    let write =
        move |out: &mut dyn std::io::Write| values.iter().try_for_each(|view| out.write_all(view.bytes()));
    Ok(TorchTensor::new(dtype, &[count], write))
}

/// The router's subspaces of values, and the block that they come from.
fn router<'a>(
    merged: &'a MergedCheckpoint,
    shared_blocks: usize,
    entries: &mut Vec<(String, TorchNode<'a>)>,
    notes: &mut Vec<String>,
) -> Result<(), InterchangeError> {
    let Some((_, file)) = merged.checkpoints().find(|(role, _)| *role == Role::Router) else {
        notes.push("there is no router: tell the evaluation which task to run".to_owned());
        return Ok(());
    };
    let [values, keys] = ROUTER_PAIRS;
    let has = |[name, _]: [&str; 2]| merged.tasks().iter().any(|task| subspace(file, task, name).is_some());
    if !has(values) {
        let problem = format!(
            "its router has subspaces of keys alone, and the published code reads those of values ({}); merge with `router: \
             {{projections: v}}`",
            PROJECTIONS[0].join(", ")
        );
        return Err(InterchangeError::unfit(merged.dir(), problem));
    }
    if has(keys) {
        notes.push(
            "the router's subspaces of keys are left out: the published code knows those of values"
                .to_owned(),
        );
    }
    for (which, name) in values.into_iter().enumerate() {
        for (index, task) in merged.tasks().iter().enumerate() {
            let Some(view) = subspace(file, task, name) else { continue };
            let name = format!("model.gate.gate.{which}.routers.{index}");
            entries.push((name, TorchNode::Tensor(view.into())));
        }
    }
    let block = shared_blocks.saturating_sub(1) as i64;
    let block = merged.document()["router"]["block"].as_i64().unwrap_or(block).to_le_bytes();
    let tensor = TorchTensor::new(Dtype::I64, &[], move |out| out.write_all(&block));
    entries.push(("model.router_layer_idx".to_owned(), TorchNode::Tensor(tensor)));
    Ok(())
}

fn subspace<'a>(file: &'a Checkpoint, task: &str, name: &str) -> Option<TensorView<'a>> {
    file.get(&format!("{task}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_merged_head() {
        let named = |name| numbered(name, 2, 23);
        assert_eq!(named("model.fc2.bias").unwrap(), "model.fc2.experts.2.bias");
        assert_eq!(
            named("model.mlp_resnet_blocks.24.ffn.0.weight").unwrap(),
            "model.mlp_resnet_moe_blocks.1.ffn.0.experts.2.weight"
        );
        assert_eq!(
            moe("model.mlp_resnet_blocks.23.gating_factor", 23),
            "model.mlp_resnet_moe_blocks.0.gating_factor"
        );
    }
}
