use std::path::PathBuf;

use skillweld_gpu::GpuError;
use skillweld_linalg::LinalgError;
use skillweld_merged::MergedError;
use skillweld_plugin_host::PluginError;
use skillweld_store::{Family, StoreError};
use skillweld_tensor::TensorError;

use crate::BaseMode;
use crate::recipe::RecipeError;

/// Why a merge was not made. Inputs and earlier outputs are untouched whatever it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A checkpoint or an output file is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plugin, a method or its parameters are.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The GPU is, or there is none.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A parameter of one model has a value outside its schema.
    #[error("{method}: parameter `{parameter}` of {model} is {value}, allowed is {allowed}")]
    BadParameter {
        /// The method.
        method: String,
        /// The parameter.
        parameter: String,
        /// Whose it is.
        model: String,
        /// The value given, as JSON.
        value: String,
        /// Type, range or choices.
        allowed: String,
    },
    /// A parameter without default was not given for one model.
    #[error("{method}: parameter `{parameter}` of {model} is required: {allowed}")]
    MissingParameter {
        /// The method.
        method: String,
        /// The parameter.
        parameter: String,
        /// Which model lacks it.
        model: String,
        /// Type, range or choices.
        allowed: String,
    },
    /// A tensor has a dtype or shape that cannot be computed with.
    #[error("tensor `{key}`: {source}")]
    Tensor {
        /// Name of the tensor.
        key: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A decomposition failed.
    #[error("tensor `{key}` of {model}: {source}")]
    Linalg {
        /// Name of the tensor.
        key: String,
        /// Whose it is.
        model: String,
        /// What failed.
        source: LinalgError,
    },
    /// Tensors that no rule can merge.
    #[error("{}", refusal(.tensors))]
    Refused {
        /// Key and reason of each.
        tensors: Vec<(String, String)>,
    },
    /// NaN or infinity in an input.
    #[error(
        "tensor `{key}` of {model} holds NaN or infinity, first at element {element}; repair that checkpoint, or merge it as it is with `allow_non_finite: true`"
    )]
    NonFinite {
        /// Name of the tensor.
        key: String,
        /// Whose it is.
        model: String,
        /// Index in the flattened tensor.
        element: usize,
    },
    /// Experts without the statistics that the method weighs them by.
    #[error(
        "`{method}` weighs experts by statistics, and there are none of {}; write `statistics: PATH` beside `model:`, a safetensors file with the names of the model's tensors",
        models.join(", ")
    )]
    NoStatistics {
        /// The merge method.
        method: String,
        /// The experts.
        models: Vec<String>,
    },
    /// NaN or infinity in statistics, which nothing can be weighed by.
    #[error(
        "the statistics of {model} hold NaN or infinity in tensor `{key}`, first at element {element}; measure them again"
    )]
    StatisticsNonFinite {
        /// Name of the tensor.
        key: String,
        /// Whose they are.
        model: String,
        /// Index in the flattened statistics.
        element: usize,
    },
    /// Finite inputs whose merge is not.
    #[error(
        "merging tensor `{key}` with `{method}` gives a value that {dtype} cannot hold, first at element {element}; choose a wider `out_dtype`, or write it as it is with `allow_non_finite: true`"
    )]
    Overflow {
        /// Name of the tensor.
        key: String,
        /// The merge method.
        method: String,
        /// What it was to be stored as.
        dtype: skillweld_tensor::Dtype,
        /// Index in the flattened tensor.
        element: usize,
    },
    /// The method needs a base model.
    #[error("merge method `{method}` works on task vectors and needs a `base_model`")]
    NoBase {
        /// The merge method.
        method: String,
    },
    /// A slice that its model cannot give.
    #[error("slices[{slice}] takes layers {}..{} of {}, {problem}", range.start, range.end, path.display())]
    Slice {
        /// Index of the slice.
        slice: usize,
        /// The layers it takes.
        range: std::ops::Range<usize>,
        /// The model.
        path: PathBuf,
        /// Why it cannot.
        problem: String,
    },
    /// Base and experts name their tensors differently.
    #[error("{0}")]
    Names(String),
    /// Models whose tensors mean different things.
    #[error(
        "{model} is of family {found}, {other} of family {expected}; only models of one family can be merged"
    )]
    Family {
        /// The model that does not fit.
        model: String,
        /// Its family.
        found: Family,
        /// The base, or the first model.
        other: String,
        /// The family of that one.
        expected: Family,
    },
    /// A model has only an adapter and there is nothing to put it on.
    #[error("{} holds a LoRA adapter only; name the model it was trained on as `base_model`, or write `model: CHECKPOINT+ADAPTER`", path.display())]
    AdapterWithoutBase {
        /// Where the adapter lies.
        path: PathBuf,
    },
    /// Parameters that must agree over all tensors do not.
    #[error("`{method}` takes statistics over all tensors together, {}", mixed.text(first, key))]
    MixedStatistics {
        /// The method.
        method: String,
        /// One tensor.
        first: String,
        /// Another one.
        key: String,
        /// In what they differ.
        mixed: Mixed,
    },
    /// The recipe lists no model besides the base.
    #[error(
        "there is no expert: the recipe lists only the base model {}; list the models to merge under `models`",
        base.display()
    )]
    NoExperts {
        /// The base model.
        base: PathBuf,
    },
    /// The pretrained weights cannot be kept as asked.
    #[error("`--base {mode}` {problem}")]
    BaseMode {
        /// How they were to be kept.
        mode: BaseMode,
        /// Why not, and the remedy.
        problem: String,
    },
    /// Something about action experts, statistics or router cannot be merged.
    #[error("{0}")]
    Expert(String),
    /// A merged checkpoint cannot be read.
    #[error(transparent)]
    Merged(#[from] MergedError),
    /// A file or folder is not fit for what it was named for, as model or as output.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The user asked to stop.
    #[error("stopped; nothing was written")]
    Cancelled,
}

/// In what two tensors differ that add to the same statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mixed {
    /// One has statistics of its own.
    Scopes,
    /// Other models, or the same in another order: those of the first tensor, and those of the other one.
    Models(Box<[Vec<String>; 2]>),
    /// Other values of the method's parameters.
    Parameters,
}

impl Mixed {
    fn text(&self, first: &str, key: &str) -> String {
        match self {
            Self::Scopes => format!(
                "and so for all or for none; the parameters of tensor `{key}` ask for statistics of its own, unlike those of `{first}`; give all tensors one `scope`, without filters"
            ),
            Self::Models(models) => format!(
                "which needs the same models for each of them; tensor `{key}` is merged from {}, `{first}` from {}; list the same models in every slice, or use a method with statistics by tensor",
                models[1].join(", "),
                models[0].join(", ")
            ),
            Self::Parameters => format!(
                "which needs the same parameters for each of them, also those that would change nothing; tensor `{key}` has others than `{first}`; use the same for both, or statistics by tensor (`scope: tensor`, where the method has it)"
            ),
        }
    }
}

impl MergeError {
    /// Names the tensor in a [`TensorError`].
    pub(crate) fn tensor(key: &str) -> impl FnOnce(TensorError) -> Self + '_ {
        |source| Self::Tensor { key: key.to_owned(), source }
    }

    /// Puts the model's name where an error about a parameter has the expert's number.
    pub(crate) fn of_model(self, name: impl Fn(usize) -> String) -> Self {
        match self {
            Self::Plugin(PluginError::BadParameter {
                method,
                parameter,
                expert: Some(k),
                value,
                allowed,
            }) => Self::BadParameter { method, parameter, model: name(k), value, allowed },
            Self::Plugin(PluginError::MissingParameter { method, parameter, expert: Some(k), allowed }) => {
                Self::MissingParameter { method, parameter, model: name(k), allowed }
            }
            other => other,
        }
    }
}

/// A sentence that lists the first refused tensors.
fn refusal(tensors: &[(String, String)]) -> String {
    const SHOWN: usize = 8;
    let noun = if tensors.len() == 1 { "tensor" } else { "tensors" };
    let mut text = format!("{} {noun} cannot be merged:", tensors.len());
    for (key, reason) in tensors.iter().take(SHOWN) {
        text.push_str(&format!("\n  {key}: {reason}"));
    }
    if tensors.len() > SHOWN {
        text.push_str(&format!("\n  … and {} more (`--dry-run` lists them all)", tensors.len() - SHOWN));
    }
    text
}
