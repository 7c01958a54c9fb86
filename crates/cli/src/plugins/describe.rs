//! What a method says of itself, in words and as JSON.

use serde_json::{Value, json};
use skillweld_plugin_host::{Method, flags, laws};

const FLAGS: &[(u64, &str)] = &[
    (flags::TASK_VECTORS, "task_vectors"),
    (flags::NEEDS_BASE, "needs_base"),
    (flags::ELEMENTWISE, "elementwise"),
    (flags::ROWS, "rows"),
    (flags::MATRIX, "matrix"),
    (flags::LOW_RANK, "low_rank"),
    (flags::DETERMINISTIC, "deterministic"),
    (flags::EMITS_MASKS, "emits_masks"),
    (flags::PROPAGATES_NON_FINITE, "propagates_non_finite"),
    (flags::OPTIONAL_BASE, "optional_base"),
    (flags::NEEDS_STATISTICS, "needs_statistics"),
    (flags::ANY_SHAPE, "any_shape"),
];

const LAWS: &[(u64, &str)] = &[
    (laws::IDENTITY, "identity"),
    (laws::PERMUTATION, "permutation"),
    (laws::ENDPOINTS, "endpoints"),
    (laws::LINEAR, "linear"),
    (laws::HOMOGENEOUS, "homogeneous"),
    (laws::ZERO, "zero"),
    (laws::SIGN_AGREEMENT, "sign_agreement"),
    (laws::KEEPS_ITSELF, "keeps_itself"),
];

/// Names of the flags it sets.
pub(crate) fn flags_of(method: &Method) -> Vec<&'static str> {
    FLAGS.iter().filter(|(flag, _)| method.has(*flag)).map(|(_, name)| *name).collect()
}

/// Names of the laws it claims to keep.
pub(crate) fn laws_of(method: &Method) -> Vec<&'static str> {
    LAWS.iter().filter(|(law, _)| method.claims(*law)).map(|(_, name)| *name).collect()
}

/// How many experts it joins: `2`, `1 to 4`, `1 or more`.
pub(crate) fn experts(method: &Method) -> String {
    match (method.min_experts(), method.max_experts()) {
        (min, Some(max)) if min == max => min.to_string(),
        (min, Some(max)) => format!("{min} to {max}"),
        (min, None) => format!("{min} or more"),
    }
}

/// Everything, for scripts. The parameters are the author's JSON Schema.
pub(crate) fn description(method: &Method) -> Value {
    json!({
        "id": method.id(),
        "kind": method.kind().to_string(),
        "version": method.version(),
        "summary": method.summary(),
        "citation": method.citation(),
        "min_experts": method.min_experts(),
        "max_experts": method.max_experts(),
        "needs_base_model": method.needs_base_model(),
        "flags": flags_of(method),
        "laws": laws_of(method),
        "mask": method.mask(),
        "cuda": method.cuda().map(|code| &code.run),
        "parameters": serde_json::from_str::<Value>(method.schema()).unwrap_or_default(),
        "plugin": method.path(),
    })
}
