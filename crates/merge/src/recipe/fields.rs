//! Walking a mapping field by field, so that none goes unread.

use super::error::{Allowed, Place, RecipeError};
use super::yaml::{Entry, Node, Yaml};

/// A mapping of which only `known` fields are allowed.
pub(crate) struct Fields<'n> {
    pub(crate) path: String,
    node: &'n Node,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// Opens the mapping at `path`, refusing any field outside `known`.
    pub(crate) fn open(node: &'n Node, path: &str, known: &[&'static str]) -> Result<Self, RecipeError> {
        let Yaml::Map(entries) = &node.value else { return Err(node.wrong_type(path, "a mapping")) };
        if let Some(entry) = entries.iter().find(|entry| !known.contains(&entry.key.as_str())) {
            return Err(RecipeError::UnknownField {
                place: Place { path: path.to_owned(), line: entry.key_line },
                name: entry.key.clone(),
                allowed: Allowed::instead_of(&entry.key, known.iter().copied()),
            });
        }
        Ok(Fields { path: path.to_owned(), node, entries })
    }

    /// The field's value and its path; an explicit null counts as absent, as in mergekit.
    pub(crate) fn get(&self, field: &str) -> Option<(&'n Node, String)> {
        self.get_or_null(field).filter(|(node, _)| !node.is_null())
    }

    /// As [`Fields::get`], for a field of which null says something.
    pub(crate) fn get_or_null(&self, field: &str) -> Option<(&'n Node, String)> {
        let entry = self.entries.iter().find(|entry| entry.key == field)?;
        Some((&entry.value, self.path_of(field)))
    }

    /// As [`Fields::get`], for a field that must be there.
    pub(crate) fn require(
        &self,
        field: &'static str,
        remedy: &'static str,
    ) -> Result<(&'n Node, String), RecipeError> {
        self.get(field).ok_or_else(|| RecipeError::Missing {
            place: self.node.place(&self.path),
            field,
            remedy,
        })
    }

    /// Refuses a field that mergekit has and Skillweld does not.
    pub(crate) fn refuse(&self, field: &str, remedy: &'static str) -> Result<(), RecipeError> {
        match self.get(field) {
            None => Ok(()),
            Some((node, path)) => {
                Err(RecipeError::Unsupported { place: node.place(&path), what: format!("`{field}`"), remedy })
            }
        }
    }

    pub(crate) fn path_of(&self, field: &str) -> String {
        join(&self.path, field)
    }
}

/// `path.field`, or just `field` at the top level.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
