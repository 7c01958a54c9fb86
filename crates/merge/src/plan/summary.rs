//! A plan as people and scripts read it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Action, Part, Plan};

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
    /// `model` or `action_expert`.
    pub part: &'static str,
    /// `copied`, `merged`, `averaged`, `per task` or `refused`.
    pub action: &'static str,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A plan's tensors and totals.
#[derive(Debug, Clone, Serialize)]
pub struct PlanSummary {
    /// The tasks, one an expert.
    pub tasks: Vec<String>,
    /// The merge method.
    pub method: String,
    /// The mask method, if masks are made.
    pub mask: Option<String>,
    /// Key family of the base.
    pub family: String,
    /// By part and action: tensors and elements.
    pub totals: BTreeMap<String, Total>,
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

impl Action<'_> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Action::Copy(_) => "copied",
            Action::Merge(_) => "merged",
            Action::Average(_) => "averaged",
            Action::PerTask(_) => "per task",
            Action::Refuse(_) => "refused",
        }
    }
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Model => "model",
            Part::ActionExpert => "action_expert",
        }
    }
}

impl Plan<'_> {
    /// Everything in the plan, for printing.
    pub fn summary(&self) -> PlanSummary {
        let mut totals: BTreeMap<String, Total> = BTreeMap::new();
        let mut tensors = Vec::with_capacity(self.tensors.len());
        let mut mask = None;
        for tensor in &self.tensors {
            let (part, action) = (tensor.part.name(), tensor.action.name());
            let total = totals.entry(format!("{part}: {action}")).or_default();
            total.tensors += 1;
            total.elements += tensor.numel() as u64;
            let reason = match &tensor.action {
                Action::Refuse(reason) => Some(reason.clone()),
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
            method: self.recipe.method.clone(),
            mask,
            family: self.models.family.to_string(),
            totals,
            notes: self.notes.clone(),
            tensors,
        }
    }
}
