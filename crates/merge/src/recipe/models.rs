//! The models a recipe names: where they lie and what their tasks are called.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::error::{Place, RecipeError};
use super::fields::Fields;
use super::yaml::{Node, Yaml};

/// The longest task name, in bytes: it becomes part of file names.
const MAX_NAME_BYTES: usize = 100;

/// One checkpoint, with or without an adapter on top.
#[derive(Debug, Clone)]
pub struct Model {
    /// The task's name: unique, and safe as part of file and tensor names.
    pub name: String,
    /// The checkpoint, as written.
    pub path: PathBuf,
    /// The PEFT adapter on top of it, as written.
    pub adapter: Option<PathBuf>,
    /// What its owner measured of it, as written, for methods that need that: a safetensors file, or a folder with one.
    pub statistics: Option<(PathBuf, Place)>,
    /// Where the recipe first names it.
    pub place: Place,
}

/// A `model:` before it has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) path: PathBuf,
    pub(crate) adapter: Option<PathBuf>,
}

const NO_REVISIONS: &str = "models are local; download that revision and write its path";

impl Reference {
    /// `PATH`, `PATH+ADAPTER`, or `{model: {path: PATH}, lora: {path: ADAPTER}}`, whose paths are taken literally.
    pub(crate) fn parse(node: &Node, path: &str) -> Result<Reference, RecipeError> {
        let Yaml::Text(text) = &node.value else { return Reference::parse_mapping(node, path) };
        let mut parts = text.split('+').map(str::trim);
        let checkpoint = parts.next().unwrap_or_default();
        let adapter = parts.next();
        if parts.next().is_some() {
            return Err(RecipeError::Conflict {
                place: node.place(path),
                problem: format!(
                    "`{text}` has more than one `+`; write `{{model: {{path: …}}, lora: {{path: …}}}}` for paths that contain one"
                ),
            });
        }
        if checkpoint.is_empty() || adapter == Some("") {
            return Err(RecipeError::OutOfRange {
                place: node.place(path),
                expected: "a path, or PATH+ADAPTER".to_owned(),
                found: format!("{text:?}"),
            });
        }
        Ok(Reference { path: checkpoint.into(), adapter: adapter.map(PathBuf::from) })
    }

    fn parse_mapping(node: &Node, path: &str) -> Result<Reference, RecipeError> {
        if !matches!(node.value, Yaml::Map(_)) {
            return Err(node.wrong_type(path, "a path"));
        }
        let fields = Fields::open(node, path, &["model", "lora", "override_architecture"])?;
        fields.refuse("override_architecture", "the key family is read from the checkpoint")?;
        let (model, model_path) = fields.require("model", "write `model: {path: …}`")?;
        let adapter = fields.get("lora").map(|(node, path)| literal_path(node, &path)).transpose()?;
        Ok(Reference { path: literal_path(model, &model_path)?, adapter })
    }

    /// Both name the same, but for `./` here and there. Links are followed when models are opened.
    fn is(&self, other: &Self) -> bool {
        let plain =
            |path: &Path| path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
        let adapters = [self, other].map(|reference| reference.adapter.as_deref().map(plain));
        plain(&self.path) == plain(&other.path) && adapters[0] == adapters[1]
    }

    /// The last folder's name, made safe: the adapter's where there is one, since it is what makes the task.
    fn default_name(&self) -> String {
        let path = self.adapter.as_ref().unwrap_or(&self.path);
        let last = path.components().rev().find_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy()),
            _ => None,
        });
        let clean: String = last
            .as_deref()
            .unwrap_or("model")
            .chars()
            .map(|c| if c.is_control() || "/\\".contains(c) { '_' } else { c })
            .collect();
        let mut clean = clean.trim().to_owned();
        while clean.len() > MAX_NAME_BYTES - 4 {
            clean.pop();
        }
        if name_fault(&clean).is_some() { "model".to_owned() } else { clean }
    }
}

fn literal_path(node: &Node, path: &str) -> Result<PathBuf, RecipeError> {
    let (text_node, text_path) = if matches!(node.value, Yaml::Map(_)) {
        let fields = Fields::open(node, path, &["path", "revision"])?;
        fields.refuse("revision", NO_REVISIONS)?;
        fields.require("path", "write the model's folder")?
    } else {
        (node, path.to_owned())
    };
    let text = text_node.text(&text_path)?;
    if text.is_empty() {
        return Err(RecipeError::OutOfRange {
            place: text_node.place(&text_path),
            expected: "a path".to_owned(),
            found: "empty".to_owned(),
        });
    }
    Ok(text.into())
}

/// What keeps a text from being the name of a task or of a recipe: it becomes part of file names.
pub(crate) fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name == "." || name == ".." {
        Some("means a folder")
    } else if name.contains(['/', '\\']) {
        Some("contains a path separator")
    } else if name.chars().any(char::is_control) {
        Some("contains a control character")
    } else if name.trim() != name {
        Some("begins or ends with a space")
    } else if name.starts_with("__") {
        Some("begins with `__`, which the file format keeps for itself")
    } else if name.len() > MAX_NAME_BYTES {
        Some("has more than 100 bytes")
    } else {
        None
    }
}

/// Every model once, in the order the recipe first names it.
#[derive(Debug, Default)]
pub(crate) struct ModelTable {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    reference: Reference,
    name: Option<String>,
    statistics: Option<(PathBuf, Place)>,
    place: Place,
}

impl ModelTable {
    /// The model's index, adding it if it is new.
    pub(crate) fn intern(&mut self, reference: Reference, place: Place) -> usize {
        if let Some(index) = self.entries.iter().position(|entry| entry.reference.is(&reference)) {
            return index;
        }
        self.entries.push(Entry { reference, name: None, statistics: None, place });
        self.entries.len() - 1
    }

    /// Takes the `name:` beside a `model:`.
    pub(crate) fn name(&mut self, index: usize, node: &Node, path: &str) -> Result<(), RecipeError> {
        let name = node.text(path)?;
        let place = node.place(path);
        if let Some(reason) = name_fault(name) {
            return Err(RecipeError::TaskName { place, name: name.to_owned(), reason });
        }
        if self.entries.iter().enumerate().any(|(i, entry)| i != index && entry.name.as_deref() == Some(name))
        {
            return Err(RecipeError::TaskName {
                place,
                name: name.to_owned(),
                reason: "is another model's already",
            });
        }
        match &mut self.entries[index].name {
            Some(known) if known != name => {
                let problem = format!("the same model is named `{known}` above; give it one name");
                Err(RecipeError::Conflict { place, problem })
            }
            slot => {
                *slot = Some(name.to_owned());
                Ok(())
            }
        }
    }

    /// Takes the `statistics:` beside a `model:`.
    pub(crate) fn statistics(&mut self, index: usize, node: &Node, path: &str) -> Result<(), RecipeError> {
        let (written, place) = (literal_path(node, path)?, node.place(path));
        match &mut self.entries[index].statistics {
            Some((known, _)) if *known != written => {
                let problem =
                    format!("the same model has statistics in {} above; give it one path", known.display());
                Err(RecipeError::Conflict { place, problem })
            }
            slot => {
                *slot = Some((written, place));
                Ok(())
            }
        }
    }

    /// Gives every unnamed model its folder's name, with `-2`, `-3` … where that is taken; the base chooses last.
    pub(crate) fn finish(self, base: Option<usize>) -> Vec<Model> {
        let mut names: Vec<Option<String>> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let mut taken: HashSet<String> = names.iter().flatten().cloned().collect();
        let order = (0..names.len()).filter(|&i| Some(i) != base).chain(base);
        for i in order {
            if names[i].is_none() {
                let wish = self.entries[i].reference.default_name();
                let free = std::iter::once(wish.clone())
                    .chain((2_usize..).map(|n| format!("{wish}-{n}")))
                    .find(|name| !taken.contains(name));
                names[i] = free.inspect(|name| {
                    taken.insert(name.clone());
                });
            }
        }
        let named = self.entries.into_iter().zip(names);
        named
            .map(|(Entry { reference, statistics, place, .. }, name)| Model {
                name: name.unwrap_or_default(),
                path: reference.path,
                adapter: reference.adapter,
                statistics,
                place,
            })
            .collect()
    }
}

impl Model {
    /// The reference in the form that takes paths literally, unless the short one says the same.
    pub(crate) fn to_value(&self) -> Value {
        let plain = |path: &Path| {
            let text = path.to_string_lossy();
            !text.contains('+') && text.trim() == text
        };
        match &self.adapter {
            None if plain(&self.path) => json!(self.path.to_string_lossy()),
            None => json!({ "model": { "path": self.path.to_string_lossy() } }),
            Some(adapter) if plain(&self.path) && plain(adapter) => {
                json!(format!("{}+{}", self.path.to_string_lossy(), adapter.to_string_lossy()))
            }
            Some(adapter) => json!({
                "model": { "path": self.path.to_string_lossy() },
                "lora": { "path": adapter.to_string_lossy() },
            }),
        }
    }
}

/// Finds a path as written: absolute, else in the recipe's folder, else in the working directory.
pub(crate) fn locate(written: &Path, folder: Option<&Path>, place: &Place) -> Result<PathBuf, RecipeError> {
    let mut tried: Vec<PathBuf> =
        folder.filter(|_| written.is_relative()).map(|f| f.join(written)).into_iter().collect();
    if tried.iter().all(|candidate| candidate != written) {
        tried.push(written.to_owned());
    }
    match tried.iter().find(|candidate| candidate.exists()) {
        Some(found) => Ok(found.clone()),
        None => Err(RecipeError::NotLocal {
            place: place.clone(),
            path: written.display().to_string(),
            tried,
            remedy: absence_remedy(&written.to_string_lossy()),
        }),
    }
}

fn absence_remedy(written: &str) -> String {
    let hub_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    match written.split_once('@') {
        Some((path, _)) if Path::new(path).exists() => {
            return format!("revisions are not supported: write `{path}`");
        }
        _ => {}
    }
    let id = written.split('@').next().unwrap_or(written);
    if written.starts_with('~') {
        "`~` is not expanded: write the whole path".to_owned()
    } else if id.split_once('/').is_some_and(|(owner, name)| hub_part(owner) && hub_part(name)) {
        format!(
            "if it is a Hugging Face id, download it first: `hf download {id} --local-dir DIR`, and write DIR"
        )
    } else {
        "check the spelling; relative paths start at the recipe's folder, then at the working directory"
            .to_owned()
    }
}
