//! The recipes that both programs run, and Skillweld's own.

use std::fmt::Write as _;

/// How outputs of two programs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// Every value within one step of the output dtype, but for cancellation.
    OneStep,
    /// As well, but for a coefficient that the peer sums up in f32: over the 136 million elements of the embeddings its
    /// cos θ of nearly orthogonal task vectors is 1.6 % off that in f64, and so every value by up to 2⁻¹³ of the inputs.
    PeerSums,
    /// The method draws random numbers, or chooses among equals: shares and sizes agree, values do not.
    Statistics,
}

/// What TIES keeps of a task vector.
pub(crate) const TRIM_DENSITY: f64 = 0.2;

/// A merge of the bench inputs.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// The checkpoints that it reads.
    pub(crate) models: &'static [&'static str],
    pub(crate) agreement: Agreement,
    /// Keeps only the largest [`TRIM_DENSITY`] of each task vector.
    pub(crate) trims: bool,
    head: &'static str,
    /// Parameters of every expert.
    per_model: &'static str,
}

const EXPERTS: &[&str] = &["expert0", "expert1", "expert2", "expert3"];
const WITH_BASE: &[&str] = &["base", "expert0", "expert1", "expert2", "expert3"];

pub(crate) const PEER: &[Recipe] = &[
    Recipe {
        name: "linear",
        models: EXPERTS,
        agreement: Agreement::OneStep,
        trims: false,
        head: "merge_method: linear",
        per_model: "weight: 0.25",
    },
    Recipe {
        name: "slerp",
        models: &["expert0", "expert1"],
        agreement: Agreement::OneStep,
        trims: false,
        head: "merge_method: slerp\nbase_model: expert0\nparameters: { t: 0.4 }",
        per_model: "",
    },
    Recipe {
        name: "nuslerp",
        models: &["expert0", "expert1"],
        agreement: Agreement::OneStep,
        trims: false,
        head: "merge_method: nuslerp",
        per_model: "weight: 0.5",
    },
    Recipe {
        name: "karcher",
        models: EXPERTS,
        agreement: Agreement::OneStep,
        trims: false,
        head: "merge_method: karcher",
        per_model: "",
    },
    Recipe {
        name: "model_stock",
        models: WITH_BASE,
        agreement: Agreement::PeerSums,
        trims: false,
        head: "merge_method: model_stock\nbase_model: base",
        per_model: "",
    },
    Recipe {
        name: "task_arithmetic",
        models: WITH_BASE,
        agreement: Agreement::OneStep,
        trims: false,
        head: "merge_method: task_arithmetic\nbase_model: base",
        per_model: "weight: 0.4",
    },
    Recipe {
        name: "ties",
        models: WITH_BASE,
        agreement: Agreement::OneStep,
        trims: true,
        head: "merge_method: ties\nbase_model: base\nparameters: { normalize: true }",
        per_model: "weight: 1.0, density: 0.2",
    },
    Recipe {
        name: "dare_ties",
        models: WITH_BASE,
        agreement: Agreement::Statistics,
        trims: false,
        head: "merge_method: dare_ties\nbase_model: base",
        per_model: "weight: 0.4, density: 0.5",
    },
    Recipe {
        name: "della",
        models: WITH_BASE,
        agreement: Agreement::Statistics,
        trims: false,
        head: "merge_method: della\nbase_model: base",
        per_model: "weight: 0.4, density: 0.5",
    },
    Recipe {
        name: "breadcrumbs",
        models: WITH_BASE,
        agreement: Agreement::Statistics,
        trims: false,
        head: "merge_method: breadcrumbs\nbase_model: base",
        per_model: "weight: 0.4, density: 0.5, gamma: 0.05",
    },
    Recipe {
        name: "sce",
        models: WITH_BASE,
        agreement: Agreement::Statistics,
        trims: false,
        head: "merge_method: sce\nbase_model: base\nparameters: { select_topk: 0.5 }",
        per_model: "",
    },
];

/// Θ₀, τ and one mask an expert instead of final weights.
pub(crate) const MERGEVLA: Recipe = Recipe {
    name: "mergevla",
    models: WITH_BASE,
    agreement: Agreement::OneStep,
    trims: false,
    head: "merge_method: task_arithmetic\nbase_model: base\nmask: { method: tall, lambda: 0.6 }",
    per_model: "weight: 0.4",
};

impl Recipe {
    /// The recipe as YAML, computing in `dtype` and writing bf16. Paths start at the inputs' folder.
    pub(crate) fn yaml(&self, dtype: &str) -> String {
        let mut yaml = format!("{}\nmodels:\n", self.head);
        for model in self.models.iter().filter(|model| **model != "base") {
            let parameters = match self.per_model {
                "" => String::new(),
                parameters => format!(", parameters: {{ {parameters} }}"),
            };
            let name = if self.head.contains("mask:") { format!(", name: {model}") } else { String::new() };
            // Writing to a string cannot fail.
            let _ = writeln!(yaml, "  - {{ model: {model}{name}{parameters} }}");
        }
        yaml + &format!("dtype: {dtype}\nout_dtype: bfloat16\n")
    }
}
