//! The tokenizer of a checkpoint, from whichever files hold it.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use skillweld_store::StoreError;
use tokenizers::Tokenizer;

use crate::PolicyError;

/// Qwen2's way of cutting text into words before byte-pair encoding (`tokenization_qwen2.py`).
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const WHOLE: &str = "tokenizer.json";
const PARTS: [&str; 2] = ["vocab.json", "merges.txt"];

pub(super) fn are_in(dir: &Path) -> bool {
    dir.join(WHOLE).is_file() || PARTS.iter().all(|name| dir.join(name).is_file())
}

pub(super) fn open(dir: &Path) -> Result<Tokenizer, PolicyError> {
    let whole = dir.join(WHOLE);
    let mut tokenizer = if whole.is_file() {
        parse(&whole, &read(&whole)?)?
    } else if are_in(dir) {
        from_parts(dir)?
    } else {
        return Err(problem(
            dir,
            "no tokenizer: neither tokenizer.json nor vocab.json with merges.txt is there; copy them from the base model",
        ));
    };
    // Prompts are whole and alone; what a training run left in the file would cut or fill them.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| problem(dir, error.to_string()))?;
    Ok(tokenizer)
}

/// What `tokenizer.json` would say, put together from the files that the slow tokenizer saves.
fn from_parts(dir: &Path) -> Result<Tokenizer, PolicyError> {
    let path = dir.join("tokenizer_config.json");
    let config = if path.is_file() { object(&path)? } else { Map::new() };
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    if !class.starts_with("Qwen2") {
        return Err(problem(
            dir,
            "vocab.json with merges.txt is read only where tokenizer_config.json names a Qwen2 tokenizer; save \
             tokenizer.json beside them (transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...))",
        ));
    }
    let merges = dir.join("merges.txt");
    let text = String::from_utf8(read(&merges)?).map_err(|error| problem(&merges, error.to_string()))?;
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let added = added_tokens(dir, &config)?;
    let description = json!({
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": QWEN2_WORDS }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        ] },
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        "model": { "type": "BPE", "vocab": object(&dir.join("vocab.json"))?, "merges": lines },
    });
    let tokenizer = parse(dir, description.to_string().as_bytes())?;
    // The library numbers added tokens itself: onward from the vocabulary.
    for token in &added {
        let (content, id) = (token["content"].as_str().unwrap_or_default(), token["id"].as_u64());
        if tokenizer.token_to_id(content).map(u64::from) != id {
            return Err(problem(
                dir,
                format!(
                    "added token `{content}` does not follow on the vocabulary; save tokenizer.json beside it"
                ),
            ));
        }
    }
    Ok(tokenizer)
}

/// Tokens outside the vocabulary, by id, as `tokenizer.json` describes them.
fn added_tokens(dir: &Path, config: &Map<String, Value>) -> Result<Vec<Value>, PolicyError> {
    let path = dir.join("added_tokens.json");
    let mut tokens: Vec<Value> = match config.get("added_tokens_decoder").and_then(Value::as_object) {
        Some(decoder) => decoder
            .iter()
            .map(|(id, token)| {
                let mut token = token.clone();
                token["id"] = json!(id.parse::<u64>().ok());
                token
            })
            .collect(),
        None if path.is_file() => {
            let described = object(&path)?.into_iter().map(|(content, id)| {
                json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": true })
            });
            described.collect()
        }
        None => Vec::new(),
    };
    tokens.sort_by_key(|token| token["id"].as_u64());
    Ok(tokens)
}

fn parse(path: &Path, description: &[u8]) -> Result<Tokenizer, PolicyError> {
    Tokenizer::from_bytes(description)
        .map_err(|error| problem(path, format!("not a tokenizer that can be read: {error}")))
}

fn object(path: &Path) -> Result<Map<String, Value>, PolicyError> {
    serde_json::from_slice(&read(path)?)
        .map_err(|source| StoreError::Json { path: path.to_owned(), source }.into())
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    Ok(fs::read(path).map_err(StoreError::io("read", path))?)
}

fn problem(path: &Path, problem: impl Into<String>) -> PolicyError {
    PolicyError::Checkpoint { path: path.to_owned(), problem: problem.into() }
}
