//! Prompts through tokenizers as checkpoints bring them.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use skillweld_policy::text::{PromptEncoder, PromptTemplate};

use support::data;

fn open(dir: &Path) -> Result<PromptEncoder, String> {
    PromptEncoder::open(dir, PromptTemplate::QwenChat).map_err(|error| error.to_string())
}

/// The bytes that the ids of a byte-level vocabulary stand for.
fn bytes(ids: &[u32], vocabulary: &Value) -> Vec<u8> {
    // A printable byte is its own character, the others are shifted beyond 255 in their order.
    let shifted: Vec<u8> = (0u8..=255).filter(|b| !matches!(b, 33..=126 | 161..=172 | 174..=255)).collect();
    let character = |id: u32| {
        let entries = vocabulary.as_object().unwrap();
        entries.iter().find(|(_, value)| **value == json!(id)).unwrap().0.chars().next().unwrap()
    };
    let byte = |c: char| match u8::try_from(c) {
        Ok(byte) => byte,
        Err(_) => shifted[c as usize - 256],
    };
    ids.iter().map(|id| byte(character(*id))).collect()
}

#[test]
fn a_byte_level_tokenizer_spells_the_prompt() {
    let dir = data("policy-tiny");
    let tokenizer: Value = serde_json::from_slice(&fs::read(dir.join("tokenizer.json")).unwrap()).unwrap();
    for template in [PromptTemplate::QwenChat, PromptTemplate::InOut] {
        let encoder = PromptEncoder::open(&dir, template).unwrap();
        assert_eq!(encoder.vocabulary_len(), 256);
        let ids = encoder.encode("Put the Möhre\tAWAY", 1000).unwrap();
        let text = String::from_utf8(bytes(&ids, &tokenizer["model"]["vocab"])).unwrap();
        assert_eq!(text, template.render("Put the Möhre\tAWAY"));
        assert!(text.contains("put the möhre\taway?"));
    }
}

#[test]
fn empty_and_overlong_prompts_are_refused() {
    let encoder = open(&data("policy-tiny")).unwrap();
    for empty in ["", "  \n"] {
        let error = encoder.encode(empty, 1000).unwrap_err().to_string();
        assert!(error.contains("prompt: it is empty"), "{error}");
    }
    let len = encoder.encode("go", 1000).unwrap().len();
    assert_eq!(encoder.encode("go", len).unwrap().len(), len);
    let error = encoder.encode("go", len - 1).unwrap_err().to_string();
    assert!(error.contains(&format!("{len} tokens")) && error.contains(&format!("{}", len - 1)), "{error}");
    // Too long to be worth cutting into tokens.
    let error = encoder.encode(&"go ".repeat(100_000), 512).unwrap_err().to_string();
    assert!(error.contains("300000 bytes") && error.contains("512 tokens"), "{error}");
}

#[test]
fn a_training_runs_truncation_and_padding_do_not_touch_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let file = data("policy-tiny").join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let expected = open(&data("policy-tiny")).unwrap().encode("go", 1000).unwrap();
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 4096}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    assert_eq!(open(dir.path()).unwrap().encode("go", 1000).unwrap(), expected);
}

/// The byte-level vocabulary with three merges and Qwen's special tokens, as the slow tokenizer saves it.
fn write_parts(dir: &Path, class: &str) {
    let file = data("policy-tiny").join("tokenizer.json");
    let tokenizer: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let mut vocabulary = tokenizer["model"]["vocab"].clone();
    for (token, id) in [("th", 256), ("the", 257), ("Ġthe", 258)] {
        vocabulary[token] = json!(id);
    }
    fs::write(dir.join("vocab.json"), vocabulary.to_string()).unwrap();
    fs::write(dir.join("merges.txt"), "#version: 0.2\nt h\nth e\nĠ the\n").unwrap();
    let special = |content: &str| {
        json!({"content": content, "lstrip": false, "rstrip": false, "normalized": false,
               "single_word": false, "special": true})
    };
    let config = json!({
        "tokenizer_class": class,
        "added_tokens_decoder": {"260": special("<|im_end|>"), "259": special("<|im_start|>")},
    });
    fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

#[test]
fn qwen2s_vocabulary_and_merges_make_a_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    write_parts(dir.path(), "Qwen2Tokenizer");
    let encoder = open(dir.path()).unwrap();
    assert_eq!(encoder.vocabulary_len(), 261);
    let ids = encoder.encode("open the drawer", 1000).unwrap();
    let count = |id: u32| ids.iter().filter(|&&found| found == id).count();
    // `<|im_start|>` three times, `<|im_end|>` twice; ` the` in `should the robot` and in the instruction.
    assert_eq!([count(259), count(260), count(258), count(257), count(256)], [3, 2, 2, 0, 0]);
    assert_eq!(ids[0], 259);

    // Saved by older versions: only the numbers of the special tokens.
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "Qwen2TokenizerFast"}"#)
        .unwrap();
    fs::write(dir.path().join("added_tokens.json"), r#"{"<|im_end|>": 260, "<|im_start|>": 259}"#).unwrap();
    assert_eq!(open(dir.path()).unwrap().encode("open the drawer", 1000).unwrap(), ids);

    fs::write(dir.path().join("added_tokens.json"), r#"{"<|im_end|>": 300}"#).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.contains("`<|im_end|>`"), "{error}");
}

#[test]
fn words_are_cut_as_qwen2_cuts_them() {
    let dir = tempfile::tempdir().unwrap();
    write_parts(dir.path(), "Qwen2Tokenizer");
    // Merges stop at the borders of words: `th e` inside a word, not across `t|he`, digits one by one.
    let merges = "#version: 0.2\nt h\nth e\n1 2\n";
    let path = dir.path().join("vocab.json");
    let mut vocabulary: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    vocabulary.as_object_mut().unwrap().shift_remove("Ġthe");
    vocabulary["12"] = json!(258);
    fs::write(path, vocabulary.to_string()).unwrap();
    fs::write(dir.path().join("merges.txt"), merges).unwrap();
    let ids = open(dir.path()).unwrap().encode("bathe 12 t'he", 1000).unwrap();
    let count = |id: u32| ids.iter().filter(|&&found| found == id).count();
    // `bathe` and the template's `the` are merged; `t'he` is not, nor is `12`, whose digits are words.
    assert_eq!([count(257), count(258)], [2, 0]);
}

#[test]
fn missing_and_strange_tokenizers_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.contains("tokenizer.json") && error.contains("merges.txt"), "{error}");
    write_parts(dir.path(), "GPT2Tokenizer");
    assert!(open(dir.path()).unwrap_err().contains("Qwen2 tokenizer"));
    fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.contains("tokenizer.json") && error.contains("not a tokenizer"), "{error}");
}
