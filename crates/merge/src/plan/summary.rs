//! A plan as people and scripts read it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Action, ActionKind, Part, Plan, TensorGroup};

/// One tensor of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlanLine {
    /// Name in the output.
    pub key: String,
    /// Element type in the output.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Vision, language, action or other.
    pub modality: String,
    /// Where it belongs.
    pub part: Part,
    /// What happens to it.
    pub action: ActionKind,
    /// Why it is refused or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A plan's tensors and totals.
#[derive(Debug, Clone, Serialize)]
pub struct PlanSummary {
    /// The tasks, one an expert.
    pub tasks: Vec<String>,
    /// The base model, if there is one.
    pub base: Option<String>,
    /// The merge method.
    pub method: String,
    /// The mask method, if masks are made.
    pub mask: Option<String>,
    /// Key family of the base.
    pub family: String,
    /// Tensors and elements of each group.
    pub totals: BTreeMap<TensorGroup, Total>,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// Every tensor.
    pub tensors: Vec<PlanLine>,
}

/// Tensors that are treated alike.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Total {
    /// How many.
    pub tensors: u64,
    /// Elements of all of them.
    pub elements: u64,
}

impl Plan<'_> {
    /// Everything in the plan, for printing.
    pub fn summary(&self) -> PlanSummary {
        let mut totals: BTreeMap<TensorGroup, Total> = BTreeMap::new();
        let mut tensors = Vec::with_capacity(self.tensors.len());
        let mut mask = None;
        for tensor in &self.tensors {
            let group @ TensorGroup { part, action } = tensor.group();
            let total = totals.entry(group).or_default();
            total.tensors += 1;
            total.elements += tensor.numel() as u64;
            let reason = match &tensor.action {
                Action::Refuse(reason) | Action::LeaveOut(reason) => Some(reason.clone()),
                _ => None,
            };
            if let Action::Merge(merge) = &tensor.action {
                mask = mask.or_else(|| merge.mask.as_ref().map(|mask| mask.method().id().to_owned()));
            }
            tensors.push(PlanLine {
                key: tensor.key.clone(),
                dtype: tensor.dtype.name().to_owned(),
                shape: tensor.shape.to_vec(),
                modality: tensor.modality.to_string(),
                part,
                action,
                reason,
            });
        }
        PlanSummary {
            tasks: self.tasks().into_iter().map(str::to_owned).collect(),
            base: self.recipe.base.map(|base| self.models.all[base].name.clone()),
            method: self.recipe.method.clone(),
            mask,
            family: self.models.family.to_string(),
            totals,
            notes: self.notes.clone(),
            tensors,
        }
    }
}
