//! Whose tokenizer the merged checkpoint gets.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::error::{Place, RecipeError};
use super::fields::Fields;
use super::yaml::{Node, Yaml};

/// Whose tokenizer files are copied. Vocabularies are never resized.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// The base model's.
    Base,
    /// Those of a checkpoint, as written.
    Model {
        /// The checkpoint's path.
        path: PathBuf,
        /// Where it stands.
        place: Place,
    },
}

const NO_UNION: &str = "it would resize the embeddings; write `base` or a model's path, and bring the vocabularies into line beforehand";

/// Reads `tokenizer_source` or `tokenizer`.
pub(crate) fn parse(top: &Fields<'_>, has_base: bool) -> Result<Option<Tokenizer>, RecipeError> {
    let (node, path) = match (top.get("tokenizer_source"), top.get("tokenizer")) {
        (None, None) => return Ok(None),
        (Some(_), Some((node, path))) => {
            let problem = "give `tokenizer_source` or `tokenizer`, not both".to_owned();
            return Err(RecipeError::Conflict { place: node.place(&path), problem });
        }
        (Some(source), None) => source,
        (None, Some((node, path))) => {
            let fields = Fields::open(node, &path, &["source", "tokens", "pad_to_multiple_of"])?;
            let tokens_are_set = |tokens: &Node| !matches!(&tokens.value, Yaml::Map(map) if map.is_empty());
            if fields.get("tokens").is_some_and(|(tokens, _)| tokens_are_set(tokens)) {
                fields.refuse("tokens", "set these embeddings in the models beforehand")?;
            }
            fields.refuse("pad_to_multiple_of", "pad the embeddings after the merge")?;
            // mergekit's default is `union`: silence cannot be read as consent to something else.
            fields.require("source", "write `source: base` or a model's path")?
        }
    };
    match node.text(&path)? {
        "union" => Err(RecipeError::Unsupported {
            place: node.place(&path),
            what: "`union`".to_owned(),
            remedy: NO_UNION,
        }),
        "base" if !has_base => {
            let problem = "`base` needs a `base_model`; name one, or write a model's path".to_owned();
            Err(RecipeError::Conflict { place: node.place(&path), problem })
        }
        "base" => Ok(Some(Tokenizer::Base)),
        "" => Err(node.wrong_type(&path, "`base` or a model's path")),
        model => Ok(Some(Tokenizer::Model { path: model.into(), place: node.place(&path) })),
    }
}

impl Tokenizer {
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Tokenizer::Base => json!("base"),
            Tokenizer::Model { path, .. } => json!(path.to_string_lossy()),
        }
    }
}
