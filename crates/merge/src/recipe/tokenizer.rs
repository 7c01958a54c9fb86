//! Whose tokenizer the merged checkpoint gets.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Recipe;
use super::error::{Place, RecipeError};
use super::fields::Fields;
use super::yaml::{Node, Yaml};

/// Whose tokenizer files are copied. Vocabularies are never resized.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// The base model's; the first model's where there is no base.
    Base,
    /// All models', which must be one and the same: a plan is refused otherwise.
    Union {
        /// Where it stands.
        place: Place,
    },
    /// Those of a checkpoint, as written.
    Model {
        /// The checkpoint's path.
        path: PathBuf,
        /// Where it stands.
        place: Place,
    },
}

const NO_UNION: &str = "bring the vocabularies into line beforehand, or write `base` or a model's path";

/// Files that make up a vocabulary, as they are, but for `tokenizer.json`.
const VOCABULARY: [&str; 4] = ["tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"];
/// The file of which only some fields are vocabulary.
const TOKENIZER: &str = "tokenizer.json";

/// `chat_template: auto` is what happens anyway: the template comes with the tokenizer.
pub(crate) fn check_chat_template(top: &Fields<'_>) -> Result<(), RecipeError> {
    match top.get("chat_template") {
        Some((node, path)) if node.text(&path)? != "auto" => top.refuse(
            "chat_template",
            "the template comes with the tokenizer; write `auto`, and edit the output's tokenizer_config.json",
        ),
        _ => Ok(()),
    }
}

impl Recipe {
    /// Fails if the recipe asks for a vocabulary made of several: embeddings are never resized.
    ///
    /// # Errors
    /// [`RecipeError::Vocabularies`] with two models whose vocabularies differ.
    pub(crate) fn check_tokenizers(&self) -> Result<(), RecipeError> {
        let Some(Tokenizer::Union { place }) = &self.tokenizer else { return Ok(()) };
        let mut first: Option<(&str, Vocabulary)> = None;
        for (i, model) in self.models.iter().enumerate() {
            let (path, adapter) = self.locate(i)?;
            // An adapter may bring its own tokenizer; a folder without any takes the others'.
            for folder in adapter.iter().chain([&path]) {
                let vocabulary = Vocabulary::read(folder);
                match &first {
                    _ if vocabulary.0.is_empty() => {}
                    None => first = Some((&model.name, vocabulary)),
                    Some((_, known)) if *known == vocabulary => {}
                    Some((name, _)) => {
                        return Err(RecipeError::Vocabularies {
                            place: place.clone(),
                            first: (*name).to_owned(),
                            other: model.name.clone(),
                            remedy: NO_UNION,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// A model's vocabulary: its files by name, each reduced to what says which token has which number.
#[derive(Debug, PartialEq)]
struct Vocabulary(Vec<(&'static str, Vec<u8>)>);

impl Vocabulary {
    fn read(folder: &Path) -> Self {
        // Where it is there it says all that the others do.
        if let Ok(bytes) = std::fs::read(folder.join(TOKENIZER)) {
            let essence =
                |json: Value| [&json["model"], &json["added_tokens"]].map(Value::to_string).concat();
            let essence = serde_json::from_slice(&bytes).map(|json| essence(json).into_bytes());
            return Self(vec![(TOKENIZER, essence.unwrap_or(bytes))]);
        }
        let file = |name: &'static str| Some((name, std::fs::read(folder.join(name)).ok()?));
        Self(VOCABULARY.into_iter().filter_map(file).collect())
    }
}

/// Reads `tokenizer_source` or `tokenizer`.
pub(crate) fn parse(top: &Fields<'_>) -> Result<Option<Tokenizer>, RecipeError> {
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
        "union" => Ok(Some(Tokenizer::Union { place: node.place(&path) })),
        "base" => Ok(Some(Tokenizer::Base)),
        "" => Err(node.wrong_type(&path, "`base` or a model's path")),
        model => Ok(Some(Tokenizer::Model { path: model.into(), place: node.place(&path) })),
    }
}

impl Tokenizer {
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Tokenizer::Base => json!("base"),
            Tokenizer::Union { .. } => json!("union"),
            Tokenizer::Model { path, .. } => json!(path.to_string_lossy()),
        }
    }
}
