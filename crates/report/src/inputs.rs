//! The models that a merge was made of, if they still lie where the recipe says and are what they were.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use skillweld_store::{Checkpoint, Hash, content_hash};

use crate::tensor::{Model, lone_adapter};
use crate::{Control, ReportError};

/// One model that a merge was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    /// The task's name, or the base's.
    pub name: String,
    /// `base` or `expert`.
    pub role: String,
    /// As the recipe has it.
    pub path: String,
    /// Hash of its weights when it was merged.
    pub weights_blake3: String,
    /// Hash of the adapter on them, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_blake3: Option<String>,
    /// Whether it is still there.
    pub state: InputState,
}

/// Whether an input can be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InputState {
    /// It is there, and its hashes are those that the merge wrote down.
    Found,
    /// Something is there, but other weights.
    Changed,
    /// It is not where the recipe says.
    Missing,
    /// Nobody has looked.
    NotSought,
}

/// The inputs, and those that are still there.
pub(crate) struct Inputs {
    pub(crate) list: Vec<Input>,
    pub(crate) base: Option<Arc<Checkpoint>>,
    /// One a task, in their order; `None` for those that are gone.
    pub(crate) experts: Vec<Option<Model>>,
}

/// Checkpoints by their real path, with their hashes.
struct Opened<'c> {
    control: &'c Control<'c>,
    by_path: HashMap<PathBuf, (Arc<Checkpoint>, String)>,
}

impl Opened<'_> {
    fn open(&mut self, path: &Path) -> Result<Option<(Arc<Checkpoint>, String)>, ReportError> {
        let Ok(real) = path.canonicalize() else { return Ok(None) };
        if let Some(known) = self.by_path.get(&real) {
            return Ok(Some(known.clone()));
        }
        let Ok(checkpoint) = Checkpoint::open(path) else { return Ok(None) };
        let hash = hash(&checkpoint, self.control)?.to_hex().to_string();
        let opened = (Arc::new(checkpoint), hash);
        self.by_path.insert(real, opened.clone());
        Ok(Some(opened))
    }
}

/// [`Checkpoint::content_hash`], with all threads.
fn hash(checkpoint: &Checkpoint, control: &Control<'_>) -> Result<Hash, ReportError> {
    let keys: Vec<&str> = checkpoint.keys().collect();
    let hashes: Vec<Mutex<Option<Hash>>> = keys.iter().map(|_| Mutex::default()).collect();
    let one = |(): &mut (), index: usize| {
        control.check()?;
        let hash = checkpoint.get(keys[index]).map(|view| blake3::hash(view.bytes()));
        *hashes[index].lock().unwrap_or_else(PoisonError::into_inner) = hash;
        Ok::<_, ReportError>(())
    };
    control.threads.for_each(keys.len(), || (), one)?;
    let tensors = keys.iter().zip(hashes).filter_map(|(key, hash)| {
        let view = checkpoint.get(key)?;
        let hash = hash.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        Some((*key, view.dtype(), view.shape(), hash))
    });
    Ok(content_hash(tensors))
}

impl Inputs {
    /// What `document` (`skillweld.json`) says, without looking.
    pub(crate) fn not_sought(document: &Value, tasks: &[String]) -> Self {
        Self { list: list(document), base: None, experts: tasks.iter().map(|_| None).collect() }
    }

    /// Looks for the inputs of `document`, relative paths below each of `folders`, and compares their hashes.
    ///
    /// # Errors
    /// [`ReportError::Cancelled`]; what cannot be read counts as missing or changed.
    pub(crate) fn seek(
        document: &Value,
        tasks: &[String],
        folders: &[PathBuf],
        control: &Control<'_>,
    ) -> Result<Self, ReportError> {
        let mut inputs = Self::not_sought(document, tasks);
        let mut opened = Opened { control, by_path: HashMap::new() };
        let recorded: Vec<&Value> = document["inputs"].as_array().into_iter().flatten().collect();
        // The base first: adapters lie on it.
        let mut order: Vec<usize> = (0..recorded.len()).collect();
        order.sort_by_key(|&index| inputs.list[index].role != "base");
        let mut base_path = None;
        for index in order {
            let input = recorded[index];
            let is_base = inputs.list[index].role == "base";
            let adapter = adapter_of(document, &inputs.list[index].name);
            let mut state = InputState::Missing;
            for folder in folders {
                let path = folder.join(&inputs.list[index].path);
                if !path.exists() {
                    continue;
                }
                state = InputState::Changed;
                let adapter = adapter.as_ref().map(|adapter| folder.join(adapter));
                let Some(model) = same(input, &path, adapter, base_path.as_deref(), &mut opened)? else {
                    continue;
                };
                state = InputState::Found;
                if is_base {
                    inputs.base = Some(Arc::clone(&model.weights));
                    base_path = Some(path);
                } else if let Some(task) = tasks.iter().position(|task| *task == inputs.list[index].name) {
                    inputs.experts[task] = Some(model);
                }
                break;
            }
            inputs.list[index].state = state;
        }
        Ok(inputs)
    }
}

/// The model at `path`, if its hashes are those of `input`.
fn same(
    input: &Value,
    path: &Path,
    adapter: Option<PathBuf>,
    base: Option<&Path>,
    opened: &mut Opened<'_>,
) -> Result<Option<Model>, ReportError> {
    let (weights, adapter) = match (adapter, lone_adapter(path)) {
        (Some(adapter), _) => (path.to_owned(), Some(adapter)),
        (None, Some(adapter)) => match base {
            Some(base) => (base.to_owned(), Some(adapter)),
            None => return Ok(None),
        },
        (None, None) => (path.to_owned(), None),
    };
    let Some((weights, hash)) = opened.open(&weights)? else { return Ok(None) };
    if input["weights_blake3"].as_str() != Some(&hash) {
        return Ok(None);
    }
    let Ok(model) = Model::new(weights, adapter.as_deref()) else { return Ok(None) };
    let adapter_hash = model.adapter.as_ref().map(|adapter| adapter.tensors().content_hash().to_hex());
    let same = adapter_hash.as_ref().map(|hash| hash.as_str()) == input["adapter_blake3"].as_str();
    Ok(same.then_some(model))
}

/// The adapter that the recipe names beside a model's path, in its models or in its slices.
fn adapter_of(document: &Value, name: &str) -> Option<String> {
    let recipe = &document["recipe"];
    let slices = recipe["slices"].as_array().into_iter().flatten();
    let sources = slices.filter_map(|slice| slice["sources"].as_array()).flatten();
    let mut all = recipe["models"].as_array().into_iter().flatten().chain(sources);
    let model = &all.find(|model| model["name"] == name)?["model"];
    // `PATH+ADAPTER`, or both by name where one of them has a `+` in it.
    let short = || Some(model.as_str()?.split_once('+')?.1);
    model["lora"]["path"].as_str().or_else(short).map(str::to_owned)
}

fn list(document: &Value) -> Vec<Input> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let input = |input: &Value| Input {
        name: text(&input["name"]),
        role: text(&input["role"]),
        path: text(&input["path"]),
        weights_blake3: text(&input["weights_blake3"]),
        adapter_blake3: input["adapter_blake3"].as_str().map(str::to_owned),
        state: InputState::NotSought,
    };
    document["inputs"].as_array().into_iter().flatten().map(input).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::adapter_of;

    #[test]
    fn adapters_are_found_however_the_recipe_names_them() {
        let lora = json!({"model": {"path": "a+b"}, "lora": {"path": "c"}});
        let models = json!([{"model": "base", "name": "base"}, {"model": "base+pick", "name": "pick"}, {"model": lora, "name": "odd"}]);
        let found = |recipe: serde_json::Value, name: &str| adapter_of(&json!({"recipe": recipe}), name);
        let sliced = json!({"slices": [{"sources": []}, {"sources": models}]});
        for recipe in [json!({"models": models}), sliced] {
            assert_eq!(found(recipe.clone(), "pick").as_deref(), Some("pick"));
            assert_eq!(found(recipe.clone(), "odd").as_deref(), Some("c"));
            assert_eq!(found(recipe.clone(), "base"), None);
            assert_eq!(found(recipe, "nobody"), None);
        }
    }
}
