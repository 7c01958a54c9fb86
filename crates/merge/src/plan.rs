//! What will happen to every tensor of every input, decided before anything is computed.

mod action_expert;
mod build;
mod check;
mod group;
mod keys;
mod left_out;
mod measured;
mod mixed;
mod router;
mod rules;
mod summary;

use serde_json::{Map, Value};
use skillweld_plugin_host::{Bound, Scope, flags};
use skillweld_store::{Checkpoint, Modality};
use skillweld_tensor::{Dtype, TensorView, numel};

use crate::models::{Model, Models};
use crate::recipe::Recipe;
use crate::source::Source;

pub(crate) use action_expert::ExpertPlan;
pub use group::{ActionKind, Part, TensorGroup};
pub(crate) use keys::is_vocabulary;
pub use summary::{PlanLine, PlanSummary, Total};

/// The whole merge: one entry for every tensor of the output, and one for every tensor that is refused.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) models: &'a Models,
    pub(crate) tensors: Vec<PlannedTensor<'a>>,
    /// Action experts, when the recipe merges them.
    pub(crate) expert: Option<ExpertPlan>,
    /// Normalisation statistics of every task, under its name.
    pub(crate) statistics: Option<Map<String, Value>>,
    /// Masked merges keep Θ₀ and τ apart.
    pub(crate) masked: bool,
    /// Things worth knowing that are no errors.
    pub(crate) notes: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Names of the tasks, in the recipe's order: one an expert.
    pub fn tasks(&self) -> Vec<&'a str> {
        self.recipe.tasks().map(|model| self.recipe.models[model].name.as_str()).collect()
    }

    /// Elements that workers will report as done, over all passes: the measure of progress. Elements alone, whatever
    /// their dtype and however dear their method: a pass over a block costs about the same for each.
    pub fn work(&self) -> u64 {
        let passes = |tensor: &PlannedTensor<'_>| match &tensor.action {
            Action::Refuse(_) | Action::LeaveOut(_) => 0,
            Action::Merge(merge) => {
                let mask = merge.mask.as_ref().map_or(0, |mask| mask.plan().passes());
                let merges = merge.method.plan().passes();
                let again = if merge.method.plan().scope == Scope::Tensor { merges * mask } else { 0 };
                1 + merges + mask + again
            }
            _ => 1,
        };
        self.tensors.iter().map(|tensor| tensor.numel() as u64 * passes(tensor) as u64).sum()
    }

    /// The statistics of a model, if the merge reads them.
    pub(crate) fn statistics_of(&self, model: &'a Model) -> Option<&'a Checkpoint> {
        let reads = |tensor: &PlannedTensor<'_>| match &tensor.action {
            Action::Merge(merge) => {
                merge.inputs.iter().any(|input| input.model == model.name && input.statistics.is_some())
            }
            _ => false,
        };
        model.statistics.as_ref().filter(|_| self.tensors.iter().any(reads))
    }

    /// The mask method gives each task a factor for its masked task vector.
    pub(crate) fn is_rescaled(&self) -> bool {
        self.tensors.iter().any(|tensor| match &tensor.action {
            Action::Merge(merge) => {
                merge.mask.as_ref().is_some_and(|mask| mask.method().has(flags::EMITS_MASKS))
            }
            _ => false,
        })
    }
}

/// One tensor of the output.
#[derive(Debug)]
pub(crate) struct PlannedTensor<'a> {
    /// Its name in the output.
    pub(crate) key: String,
    pub(crate) shape: &'a [usize],
    /// Element type in the output.
    pub(crate) dtype: Dtype,
    pub(crate) modality: Modality,
    pub(crate) part: Part,
    pub(crate) action: Action<'a>,
    /// Other tensors that are known to hold the same bits as the one that is copied.
    pub(crate) copies: Vec<TensorView<'a>>,
}

/// What happens to a tensor.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// Every model has the same bits: they are copied.
    Copy(TensorView<'a>),
    /// A plugin merges it.
    Merge(Box<Merge<'a>>),
    /// The plain mean of all experts, for parts without pretrained value; with whose each one is.
    Average(Vec<(&'a str, Source<'a>)>),
    /// Every task keeps its own.
    PerTask(Vec<TensorView<'a>>),
    /// It is no part of the output, and why.
    LeaveOut(String),
    /// It cannot be merged, and so nothing is.
    Refuse(String),
}

/// One tensor for a plugin.
#[derive(Debug)]
pub(crate) struct Merge<'a> {
    /// Θ₀, when the recipe has a base model.
    pub(crate) base: Option<TensorView<'a>>,
    /// What is merged, in the order in which the method sees it; task vectors in the order of tasks.
    pub(crate) inputs: Vec<Input<'a>>,
    pub(crate) method: Bound,
    pub(crate) mask: Option<Bound>,
    /// Differs for every tensor and recipe seed.
    pub(crate) seed: u64,
}

/// One model's values of a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) source: Source<'a>,
    /// Whose they are.
    pub(crate) model: &'a str,
    /// What its owner measured of the tensor, where the method needs that.
    pub(crate) statistics: Option<TensorView<'a>>,
    /// Its place among the plan's tasks; `None` for the base, where that is merged like any model.
    pub(crate) task: Option<usize>,
}

impl PlannedTensor<'_> {
    /// It is a tensor of the model's own files in the output.
    pub(crate) fn is_of_model(&self) -> bool {
        self.part == Part::Model && !matches!(self.action, Action::LeaveOut(_) | Action::Refuse(_))
    }

    /// Number of elements.
    pub(crate) fn numel(&self) -> usize {
        // Views check at construction that this does not overflow.
        numel(self.shape).unwrap_or(0)
    }
}

impl Merge<'_> {
    /// The method works on τ_k = Θ_k − Θ₀ and gives τ.
    pub(crate) fn on_task_vectors(&self) -> bool {
        self.base.is_some() && self.method.method().takes_task_vectors()
    }
}
