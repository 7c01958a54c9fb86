//! YAML as a bounded tree whose every node knows its line.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use skillweld_spelling::nearest;

use super::error::{Place, RecipeError};

/// Recipes are small; anything larger was not meant to be one.
const MAX_BYTES: usize = 1 << 20;
/// A recipe nests about eight deep (slices → sources → parameters → list → rule → gradient).
const MAX_DEPTH: usize = 32;
/// Stages of one recipe file.
const MAX_DOCUMENTS: usize = 256;
/// Nodes of the text plus what aliases replay: bounds the memory of an alias bomb to some megabytes.
const MAX_NODES: usize = 50_000;

/// A value with the line it was written on (or referred to, for an alias).
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Yaml,
}

#[derive(Debug, Clone)]
pub(crate) enum Yaml {
    Null,
    Bool(bool),
    /// Integers keep all 64 bits: a seed is not a float.
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_line: usize,
    pub(crate) value: Node,
}

fn check_size(text: &str) -> Result<(), RecipeError> {
    if text.len() > MAX_BYTES { Err(RecipeError::TooLarge { limit_bytes: MAX_BYTES }) } else { Ok(()) }
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unusable(error: serde_saphyr::Error) -> RecipeError {
    RecipeError::Yaml { message: error.to_string() }
}

fn options(max_documents: usize) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: max_documents,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
        },
        // NaN and infinity arrive as numbers, so that they are refused with their field's name.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        // `y`, `no` and `on` are folders and words here; parameters that are booleans read them as such.
        strict_booleans: true,
        // Ours to refuse, in our own words.
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    }
}

impl Node {
    /// Reads exactly one YAML document.
    pub(crate) fn parse(text: &str) -> Result<Node, RecipeError> {
        check_size(text)?;
        serde_saphyr::from_str_with_options(text, options(1)).map_err(|error| match Node::parse_all(text) {
            Ok(documents) if documents.len() > 1 => RecipeError::Several { count: documents.len() },
            _ => unusable(error),
        })
    }

    /// Reads every YAML document of a text; empty ones are passed over.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Node>, RecipeError> {
        check_size(text)?;
        serde_saphyr::from_multiple_with_options(text, options(MAX_DOCUMENTS)).map_err(unusable)
    }

    pub(crate) fn place(&self, path: &str) -> Place {
        Place { path: path.to_owned(), line: self.line }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Yaml::Null)
    }

    pub(crate) fn wrong_type(&self, path: &str, expected: &'static str) -> RecipeError {
        RecipeError::WrongType { place: self.place(path), expected, found: self.describe() }
    }

    /// The value as an error message shows it.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Yaml::Null => "nothing".to_owned(),
            Yaml::Bool(b) => format!("`{b}`"),
            Yaml::Int(i) => format!("`{i}`"),
            Yaml::Float(x) => format!("`{x}`"),
            Yaml::Text(text) => format!("the text {:?}", text.chars().take(60).collect::<String>()),
            Yaml::List(_) => "a list".to_owned(),
            Yaml::Map(_) => "a mapping".to_owned(),
        }
    }

    pub(crate) fn text(&self, path: &str) -> Result<&str, RecipeError> {
        match &self.value {
            Yaml::Text(text) => Ok(text),
            _ => Err(self.wrong_type(path, "text")),
        }
    }

    pub(crate) fn list(&self, path: &str) -> Result<&[Node], RecipeError> {
        match &self.value {
            Yaml::List(items) => Ok(items),
            _ => Err(self.wrong_type(path, "a list")),
        }
    }

    /// A whole number within `min..=max`.
    pub(crate) fn integer(&self, path: &str, min: u64, max: u64) -> Result<u64, RecipeError> {
        let Yaml::Int(i) = self.value else { return Err(self.wrong_type(path, "a whole number")) };
        u64::try_from(i).ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| RecipeError::OutOfRange {
            place: self.place(path),
            expected: format!("a whole number from {min} to {max}"),
            found: i.to_string(),
        })
    }

    /// What one of a few names stands for.
    pub(crate) fn choice<T: Copy>(&self, path: &str, choices: &[(&str, T)]) -> Result<T, RecipeError> {
        let text = self.text(path)?;
        let named = choices.iter().find(|(name, _)| *name == text);
        named.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            let hint = nearest(text, choices.iter().map(|(name, _)| *name));
            let hint = hint.map_or_else(String::new, |right| format!("; did you mean `{right}`?"));
            let (last, others) =
                names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
            let expected = format!("{} or {last}{hint}", others.join(", "));
            RecipeError::OutOfRange { place: self.place(path), expected, found: self.describe() }
        })
    }

    pub(crate) fn boolean(&self, path: &str) -> Result<bool, RecipeError> {
        match &self.value {
            Yaml::Bool(b) => Ok(*b),
            _ => Err(self.wrong_type(path, "true or false")),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Yaml>::deserialize(deserializer)?;
        Ok(Node { line: line_of(&spanned), value: spanned.value })
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> usize {
    usize::try_from(spanned.referenced.line()).unwrap_or(0)
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = items.next_element()? {
            list.push(node);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut map: Vec<Entry> = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let key_line = line_of(&key);
            if map.iter().any(|entry| entry.key == key.value) {
                return Err(A::Error::custom(format_args!(
                    "`{}` is written twice in one mapping, the second time in line {key_line}; keep one of them",
                    key.value
                )));
            }
            map.push(Entry { key: key.value, key_line, value: entries.next_value()? });
        }
        Ok(Yaml::Map(map))
    }
}
