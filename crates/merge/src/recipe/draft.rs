//! A recipe some of whose values come from elsewhere: from the command line, or from a sweep.

use std::path::{Path, PathBuf};

use super::error::{Allowed, Place, RecipeError};
use super::fields::join;
use super::yaml::{Entry, Node, Yaml};
use super::{Decimal, Recipe, read_text};

/// A recipe's text before its values are settled.
///
/// A value is given to a *placeholder*, `${NAME}` anywhere in the text, and `${1-NAME}` for what it lacks of 1:
///
/// ```yaml
/// models:
///   - {model: base, parameters: {weight: "${1-alpha}"}}
///   - {model: finetuned, parameters: {weight: "${alpha}"}}
/// ```
///
/// or, where there is no placeholder of that name, to a *field* by its path: `mask.lambda`, `models.0.parameters.weight`,
/// `models.pick.parameters.weight` by the model's name, `groups.vision.weight`. Fields that are not there yet are added.
#[derive(Debug, Clone)]
pub struct Draft {
    text: String,
    folder: Option<PathBuf>,
}

/// A name and its value, as text.
type Setting<'s> = (&'s str, &'s str);

impl Draft {
    /// Reads a recipe file; relative paths in it start at its folder.
    ///
    /// # Errors
    /// [`RecipeError::Read`], [`RecipeError::NotUtf8`].
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        Ok(Self { text: read_text(path)?, folder: path.parent().map(Path::to_owned) })
    }

    /// Takes a recipe's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), folder: None }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The recipe with these values.
    ///
    /// # Errors
    /// A placeholder without value, a path that leads nowhere, and whatever [`Recipe::parse`] refuses.
    pub fn recipe(&self, settings: &[Setting<'_>]) -> Result<Recipe, RecipeError> {
        let text = self.filled(settings)?;
        let stands = |name: &str| {
            placeholders(&self.text).any(|found| found.strip_prefix("1-").unwrap_or(found) == name)
        };
        let fields = settings.iter().filter(|(name, _)| !stands(name));
        let mut root = Node::parse(&text)?;
        for &(name, value) in fields {
            // `models[0]` is how messages write a path.
            let path = name.replace('[', ".").replace(']', "");
            set(&mut root, "", &path, value)?;
        }
        Ok(Recipe { folder: self.folder.clone(), ..Recipe::from_root(&root)? })
    }

    /// The text with a value for every placeholder. Values are not looked through for placeholders.
    ///
    /// One that stands alone in quotes goes with them: quotes keep its braces from being YAML, and are not meant to make a
    /// text of a number.
    fn filled(&self, settings: &[Setting<'_>]) -> Result<String, RecipeError> {
        let mut filled = String::with_capacity(self.text.len());
        let mut rest = self.text.as_str();
        while let Some((before, inner, after)) = split_at_placeholder(rest) {
            let place = || {
                let start = self.text.len() - after.len() - inner.len() - "${}".len();
                let line = self.text[..start].matches('\n').count() + 1;
                Place { path: format!("${{{}}}", inner.strip_prefix("1-").unwrap_or(inner)), line }
            };
            let name = inner.strip_prefix("1-").unwrap_or(inner);
            let Some(&(_, value)) = settings.iter().rev().find(|(set, _)| *set == name) else {
                let problem = format!("has no value; give it one with `--set {name}=VALUE`");
                return Err(RecipeError::Conflict { place: place(), problem });
            };
            let quote =
                ['"', '\''].into_iter().find(|&quote| before.ends_with(quote) && after.starts_with(quote));
            let width = quote.map_or(0, char::len_utf8);
            filled += &before[..before.len() - width];
            if inner == name {
                filled += value;
            } else {
                let number: Decimal = value.parse().map_err(|()| RecipeError::Conflict {
                    place: place(),
                    problem: format!("needs a number for `{name}`, not `{value}`"),
                })?;
                filled += &(Decimal::ONE - number).to_string();
            }
            rest = &after[width..];
        }
        Ok(filled + rest)
    }
}

/// What stands before the first placeholder, in it, and after it.
fn split_at_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("${")?;
    let (inner, after) = rest.split_once('}')?;
    Some((before, inner, after))
}

/// What stands between `${` and `}`.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(split_at_placeholder(text), |(.., after)| split_at_placeholder(after))
        .map(|(_, inner, _)| inner)
}

/// Gives the field at `rest` below `node`, which lies at `path`, a value.
fn set(node: &mut Node, path: &str, rest: &str, value: &str) -> Result<(), RecipeError> {
    if rest.is_empty() {
        let fields = match &node.value {
            Yaml::Map(entries) => entries.iter().map(|entry| entry.key.clone()).collect(),
            Yaml::List(items) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => {
                node.value = scalar(value);
                return Ok(());
            }
        };
        let fields: Vec<String> = fields;
        let example = fields.first().map_or("…", String::as_str);
        let problem = format!(
            "is {}, no single value; set one of its fields, such as `{path}.{example}`",
            node.describe()
        );
        return Err(RecipeError::Conflict { place: node.place(path), problem });
    }
    if node.is_null() {
        node.value = Yaml::Map(Vec::new());
    }
    let place = node.place(path);
    let described = node.describe();
    match &mut node.value {
        Yaml::Map(entries) => {
            let known = longest(rest, entries.iter().map(|entry| entry.key.as_str()));
            let key =
                known.unwrap_or_else(|| rest.split_once('.').map_or(rest, |(first, _)| first).to_owned());
            let rest = after(rest, &key);
            let path = join(path, &key);
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) {
                return set(&mut entry.value, &path, rest, value);
            }
            let mut node = Node { line: 0, value: Yaml::Null };
            set(&mut node, &path, rest, value)?;
            entries.push(Entry { key, key_line: 0, value: node });
            Ok(())
        }
        Yaml::List(items) => {
            let names: Vec<Option<String>> = items.iter().map(name_of).collect();
            let indices: Vec<String> = (0..items.len()).map(|index| index.to_string()).collect();
            let known = names.iter().flatten().chain(&indices).map(String::as_str);
            let Some(word) = longest(rest, known.clone()) else {
                let name = rest.split_once('.').map_or(rest, |(first, _)| first);
                let allowed = Allowed::instead_of(name, known);
                return Err(RecipeError::UnknownField { place, name: name.to_owned(), allowed });
            };
            let named = names.iter().position(|name| name.as_ref() == Some(&word));
            let index = named.or_else(|| indices.iter().position(|index| *index == word)).unwrap_or(0);
            set(&mut items[index], &format!("{path}[{index}]"), after(rest, &word), value)
        }
        _ => Err(RecipeError::Conflict {
            place,
            problem: format!("is {described}, which has no field `{rest}`; write it as a mapping"),
        }),
    }
}

/// The longest of `words` that `rest` begins with, as a whole part of a path: names may have points in them.
fn longest<'w>(rest: &str, words: impl Iterator<Item = &'w str>) -> Option<String> {
    let fits =
        |word: &&str| rest.strip_prefix(word).is_some_and(|after| after.is_empty() || after.starts_with('.'));
    words.filter(fits).max_by_key(|word| word.len()).map(str::to_owned)
}

/// What follows `word` and its point.
fn after<'r>(rest: &'r str, word: &str) -> &'r str {
    let after = &rest[word.len()..];
    after.strip_prefix('.').unwrap_or(after)
}

/// What a model in a list is called: its `name`, or the last part of its path.
fn name_of(item: &Node) -> Option<String> {
    let Yaml::Map(entries) = &item.value else { return None };
    let text = |key: &str| {
        entries.iter().find(|entry| entry.key == key).and_then(|entry| match &entry.value.value {
            Yaml::Text(text) => Some(text.as_str()),
            _ => None,
        })
    };
    text("name")
        .map(str::to_owned)
        .or_else(|| Some(Path::new(text("model")?).file_name()?.to_string_lossy().into_owned()))
}

/// A number, a boolean or a text, as YAML reads it.
fn scalar(value: &str) -> Yaml {
    match Node::parse(value).map(|node| node.value) {
        Ok(scalar @ (Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Text(_))) => scalar,
        _ => Yaml::Text(value.to_owned()),
    }
}
