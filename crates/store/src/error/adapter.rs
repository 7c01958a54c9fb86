use std::path::PathBuf;

/// Why a PEFT adapter cannot be used, or not with this base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterProblem {
    /// Something that makes the merged weight another than W + s·B·A.
    #[error(
        "it uses {feature}, which is not supported; merge it into its base with peft's merge_and_unload() first and \
         give the result as a whole model"
    )]
    Unsupported {
        /// The field or tensor.
        feature: String,
    },
    /// A field of `adapter_config.json` is missing or out of range.
    #[error("`{field}` in adapter_config.json {reason}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A tensor of no known meaning.
    #[error("the tensor `{tensor}` is neither a LoRA factor nor a saved module of a base model")]
    UnknownTensor {
        /// Its name.
        tensor: String,
    },
    /// Two adapters in one file, or one tensor under its old and its new name.
    #[error(
        "`{first}` and `{second}` both change `{target}`; keep the tensors of one adapter in the file and save the other apart"
    )]
    TwoTensors {
        /// Key of the base.
        target: String,
        /// One tensor.
        first: String,
        /// The other tensor.
        second: String,
    },
    /// One factor of a pair is missing.
    #[error("`{target}` has only one of lora_A and lora_B; fetch the adapter again")]
    MissingFactor {
        /// Key of the base.
        target: String,
    },
    /// Factors that fit neither each other nor the rank in the config.
    #[error(
        "`{target}`: lora_A {a_shape:?} and lora_B {b_shape:?} do not have the rank {rank} that adapter_config.json gives"
    )]
    FactorShapes {
        /// Key of the base.
        target: String,
        /// Shape of A, r × n.
        a_shape: Vec<usize>,
        /// Shape of B, m × r.
        b_shape: Vec<usize>,
        /// Rank by `r` and `rank_pattern`.
        rank: usize,
    },
    /// The base has no such tensor.
    #[error(
        "wrong adapter target: {} has no `{target}`{}; is this the adapter's base model?", base.display(),
        nearest.as_ref().map(|key| format!(" (nearest: `{key}`)")).unwrap_or_default()
    )]
    WrongTarget {
        /// Key that the adapter changes.
        target: String,
        /// The base.
        base: PathBuf,
        /// The base key most like it.
        nearest: Option<String>,
    },
    /// The base's tensor has another shape.
    #[error(
        "wrong adapter target: `{target}` has shape {base_shape:?} in the base, the adapter is made for {adapter_shape:?}"
    )]
    TargetShape {
        /// Key of the base.
        target: String,
        /// Shape that the adapter gives.
        adapter_shape: Vec<usize>,
        /// Shape in the base.
        base_shape: Vec<usize>,
    },
    /// The base ties two weights that the adapter treats differently.
    #[error(
        "it changes `{target}`, which the base ties to `{stored}`; merge it into its base with peft's \
         merge_and_unload() first and give the result as a whole model"
    )]
    TiedTarget {
        /// Key that the adapter changes.
        target: String,
        /// The key that it is tied to.
        stored: String,
    },
    /// The base weight saved with the adapter is not the base's.
    #[error(
        "the base weight saved with it for `{target}` is another than this base's; is this the adapter's base model?"
    )]
    OtherBase {
        /// Key of the base.
        target: String,
    },
}
