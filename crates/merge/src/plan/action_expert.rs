//! The action expert: shared blocks averaged, the last blocks and the output layers kept per task.
//!
//! Published heads are named `model.mlp_resnet_blocks.{i}.…`, `model.layer_norm1`, `model.fc1`, `model.layer_norm2`,
//! `model.fc2` (MergeVLA, arXiv 2511.18810, section on the action expert).

use std::collections::BTreeSet;

use skillweld_merged::layout::{BLOCKS, block_index};
use skillweld_store::{Checkpoint, Modality};
use skillweld_tensor::TensorView;

use super::build::Context;
use super::check::{Named, agree_in_shape, identical, subject};
use super::{Action, Part, Plan, PlannedTensor, router};
use crate::MergeError;
use crate::models::{Model, Models};
use crate::recipe::{ActionExpertChoice, RouterSpec};
use crate::source::Source;

/// How the action experts are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpertPlan {
    /// L: blocks of every expert.
    pub(crate) blocks: usize,
    /// n: blocks that stay per task.
    pub(crate) head_blocks: usize,
    /// Subspaces to take for the router, if any: all of them are there, and have that many directions.
    pub(crate) router: Option<RouterSpec>,
}

/// Layers behind the last block: always per task.
const OUTPUT_LAYERS: [&str; 2] = ["model.layer_norm2.", "model.fc2."];

impl ExpertPlan {
    /// Index (from 0) of the last merged block, whose value projections span the router's subspaces: block L − n.
    pub(crate) fn router_block(&self) -> Option<usize> {
        (self.blocks - self.head_blocks).checked_sub(1)
    }

    /// True for a tensor of the heads that every task keeps its own copy of.
    pub(crate) fn is_per_task(&self, key: &str) -> bool {
        block_index(key).is_some_and(|block| block >= self.blocks - self.head_blocks)
            || OUTPUT_LAYERS.iter().any(|layer| key.starts_with(layer))
    }
}

impl<'a> Plan<'a> {
    /// The action head of every task, in their order.
    pub(crate) fn action_heads(&self) -> Vec<&'a Checkpoint> {
        let models = self.models;
        self.recipe.tasks().filter_map(|i| models.all[i].files.action_head.as_ref()).collect()
    }
}

/// Adds the tensors of action experts and projectors to the plan, when the recipe asks for them or makes masks. Who asks for
/// a router asks for them.
pub(super) fn plan<'a>(
    context: &Context<'a>,
    masked: bool,
    tensors: &mut Vec<PlannedTensor<'a>>,
    notes: &mut Vec<String>,
) -> Result<Option<ExpertPlan>, MergeError> {
    let experts: Vec<&'a Model> = context.experts().into_iter().map(|i| &context.models.all[i]).collect();
    if context.recipe.action_expert == ActionExpertChoice::Merge {
        let conflict = match (masked, context.recipe.router.spec()) {
            (true, _) => "masks need action experts with one head a task",
            (false, Some(_)) => "`router` needs action experts with one head a task",
            (false, None) => return Ok(None),
        };
        return Err(MergeError::Expert(format!(
            "{conflict}, and `action_expert: merge` makes one expert of all; write `action_expert: {{head_blocks: 1}}`"
        )));
    }
    let spec = context.recipe.action_expert.spec();
    if !masked && !context.recipe.merges_action_experts() {
        return Ok(None);
    }
    let Some(heads) =
        all_parts(&experts, "action_head--*checkpoint.pt", spec.is_some(), |m| m.files.action_head.as_ref())?
    else {
        if context.recipe.router.spec().is_some() {
            return Err(MergeError::Expert(
                "`router` needs action experts, and no model has one; remove `router`, or put each expert's \
                 `action_head--*checkpoint.pt` beside its weights"
                    .to_owned(),
            ));
        }
        return Ok(None);
    };
    let head_blocks = spec.unwrap_or_default().head_blocks;
    let blocks = heads[0].keys().filter_map(block_index).max().map_or(0, |last| last + 1);
    if blocks == 0 {
        return Err(MergeError::Expert(format!(
            "{} has no blocks `{BLOCKS}…`: only action experts with MergeVLA's and VLA-Adapter's names can be merged; move \
             it away to merge the weights without it",
            heads[0].path().display()
        )));
    }
    if head_blocks > blocks {
        return Err(MergeError::Expert(format!(
            "action_expert.head_blocks is {head_blocks}, but the action expert {} has {blocks} blocks",
            heads[0].path().display()
        )));
    }
    let mut plan = ExpertPlan { blocks, head_blocks, router: None };
    let named: Vec<_> = experts.iter().map(|model| model.name.as_str()).zip(heads.iter().copied()).collect();
    plan.router = router::plan(&context.recipe.router, masked, &plan, &named, notes)?;
    add(context.models, tensors, &heads, &experts, "", |key| plan.is_per_task(key));
    for (prefix, pattern, part) in [
        (
            "proprio_projector.",
            "proprio_projector--*checkpoint.pt",
            (|m| m.files.proprio_projector.as_ref()) as PartOf,
        ),
        ("noisy_action_projector.", "noisy_action_projector--*checkpoint.pt", |m| {
            m.files.noisy_action_projector.as_ref()
        }),
    ] {
        if let Some(parts) = all_parts(&experts, pattern, false, part)? {
            add(context.models, tensors, &parts, &experts, prefix, |_| false);
        }
    }
    Ok(Some(plan))
}

type PartOf = for<'m> fn(&'m Model) -> Option<&'m Checkpoint>;

/// The part of every expert, `None` when no expert has it. Some with and some without are an error.
fn all_parts<'a>(
    experts: &[&'a Model],
    pattern: &str,
    required: bool,
    part: PartOf,
) -> Result<Option<Vec<&'a Checkpoint>>, MergeError> {
    let parts: Vec<_> = experts.iter().map(|model| part(model)).collect();
    let missing: Vec<&str> = experts
        .iter()
        .zip(&parts)
        .filter(|(_, part)| part.is_none())
        .map(|(model, _)| model.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(Some(parts.into_iter().flatten().collect()));
    }
    if missing.len() == experts.len() && !required {
        return Ok(None);
    }
    Err(MergeError::Expert(format!(
        "no file `{pattern}` in the folder of {}; every expert needs one",
        missing.join(", ")
    )))
}

/// Plans every key of one part: per task where `is_head` says so, else averaged.
fn add<'a>(
    models: &Models,
    tensors: &mut Vec<PlannedTensor<'a>>,
    parts: &[&'a Checkpoint],
    experts: &[&'a Model],
    prefix: &str,
    is_head: impl Fn(&str) -> bool,
) {
    let keys: BTreeSet<&str> = parts.iter().flat_map(|part| part.keys()).collect();
    for key in keys {
        let views: Vec<_> = parts.iter().filter_map(|part| part.get(key)).collect();
        let Some(first) = &views.first().copied() else { continue };
        let sources: Vec<Source<'a>> = views.iter().map(|view| Source::Stored(*view)).collect();
        let named = |sources: &[Source<'a>]| -> Vec<Named<'a, 'a>> {
            experts.iter().map(|model| model.name.as_str()).zip(sources.iter().copied()).collect()
        };
        let alike = views.iter().all(|view| (view.shape(), view.dtype()) == (first.shape(), first.dtype()));
        let action = if views.len() < parts.len() {
            let with = |wanted: bool| {
                let fitting =
                    experts.iter().zip(parts).filter(move |(_, part)| part.get(key).is_some() == wanted);
                fitting.map(|(model, _)| model.name.as_str()).collect::<Vec<_>>()
            };
            let (missing, having) = (with(false).join(", "), subject(&with(true), "has", "have"));
            Action::Refuse(format!(
                "missing in the action expert of {missing}, though {having} it; every expert needs it"
            ))
        } else if is_head(key) && alike {
            Action::PerTask(views)
        } else if is_head(key) {
            // Other embodiments, other sizes: every copy is a tensor of its own.
            for (model, view) in experts.iter().zip(&views) {
                let key = format!("experts/{}/{prefix}{key}", model.name);
                tensors.push(planned(key, view, Action::Copy(*view)));
            }
            continue;
        } else if let Err(reason) = agree_in_shape(&named(&sources)) {
            let remedy = match block_index(key) {
                Some(_) => "cannot share this block: raise action_expert.head_blocks",
                None => "cannot share this layer: merge experts of one action and proprio size",
            };
            Action::Refuse(format!("{reason}; experts of different embodiments {remedy}"))
        } else if identical(models, &named(&sources)) {
            Action::Copy(*first)
        } else if first.dtype().is_computable() {
            Action::Average(named(&sources))
        } else {
            Action::Refuse(format!(
                "{} tensors are copied, never averaged, and this one differs",
                first.dtype()
            ))
        };
        tensors.push(planned(format!("{prefix}{key}"), first, action));
    }
}

/// A tensor of the action expert, shaped as `view`.
fn planned<'a>(key: String, view: &TensorView<'a>, action: Action<'a>) -> PlannedTensor<'a> {
    PlannedTensor {
        key,
        shape: view.shape(),
        dtype: view.dtype(),
        modality: Modality::Action,
        part: Part::ActionExpert,
        action,
        copies: Vec::new(),
    }
}
