//! The small files beside the weights.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};
use skillweld_tensor::Dtype;

/// The spelling in `config.json`.
pub(crate) fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        Dtype::F64 => "float64",
        _ => "float32",
    }
}

pub(crate) fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text)
}

/// A byte-level BPE tokenizer without merges: 256 tokens, one a byte.
pub(crate) fn write_tokenizer(dir: &Path) -> io::Result<()> {
    // The printable stand-ins of GPT-2's byte-level tokenizers: a printable Latin-1 byte is itself, the others take
    // code points from 256 on.
    let mut vocab = Map::new();
    let mut unprintable = 0;
    for byte in 0..=255u8 {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let symbol = if printable {
            char::from(byte)
        } else {
            unprintable += 1;
            char::from_u32(255 + unprintable).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
        vocab.insert(symbol.to_string(), json!(byte));
    }
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": [],
        },
    });
    write_json(&dir.join("tokenizer.json"), &tokenizer)?;
    let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32768 });
    write_json(&dir.join("tokenizer_config.json"), &config)
}
