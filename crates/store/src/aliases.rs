//! Tied weights: one tensor that goes by two names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::StoreError;

/// How architectures name the input embedding, relative to the place of `lm_head.weight`.
const EMBEDDINGS: [&str; 6] = [
    "model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "model.text_model.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "transformer.wte.weight",
    "gpt_neox.embed_in.weight",
];
const OUTPUT_HEAD: &str = "lm_head.weight";

/// Missing name → stored key, for pairs of output head and embedding of which only one is stored, unless the
/// `config.json` in `dir` says that they are not tied.
pub(crate) fn tied_by_config<'a>(
    dir: &Path,
    is_stored: impl Fn(&str) -> bool,
    keys: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut aliases = BTreeMap::new();
    if !may_be_tied(dir)? {
        return Ok(aliases);
    }
    for key in keys {
        // Only whole components match: `my_lm_head.weight` is something else.
        let before = |suffix: &str| key.strip_suffix(suffix).filter(|p| p.is_empty() || p.ends_with('.'));
        let mut others: Vec<String> = Vec::new();
        if let Some(prefix) = before(OUTPUT_HEAD) {
            others.extend(EMBEDDINGS.iter().map(|embedding| format!("{prefix}{embedding}")));
        }
        others.extend(
            EMBEDDINGS.iter().filter_map(|e| before(e)).map(|prefix| format!("{prefix}{OUTPUT_HEAD}")),
        );
        // With both stored they are two tensors, whatever the config says.
        if !others.iter().any(|other| is_stored(other)) {
            aliases.extend(others.into_iter().map(|other| (other, key.to_owned())));
        }
    }
    Ok(aliases)
}

/// False only when the config says so: many configs (Gemma's, π0's) leave `tie_word_embeddings` out although the
/// weights are tied.
fn may_be_tied(dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join("config.json");
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    let config: Value = serde_json::from_slice(&text).map_err(|source| StoreError::Json { path, source })?;
    let parts = [&config, &config["text_config"], &config["llm_config"], &config["language_config"]];
    let flags: Vec<bool> = parts.iter().filter_map(|part| part["tie_word_embeddings"].as_bool()).collect();
    Ok(flags.is_empty() || flags.contains(&true))
}
