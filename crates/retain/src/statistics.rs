//! Normalisation statistics: what turns a robot's state and actions into the model's numbers and back. They belong to the
//! data a policy was trained on, and are never interpolated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skillweld_merged::layout::STATISTICS;
use skillweld_merged::read_json;
use skillweld_store::{Checkpoint, Hash, StoreError, copy_file, is_normalisation_buffer, write_json};
use skillweld_tensor::TensorView;

use crate::RetainError;

/// Whose statistics are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The pretrained policy's.
    Base,
    /// The finetuned policy's.
    Finetuned,
}

impl Keep {
    /// Its name on the command line and in ledgers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Finetuned => "finetuned",
        }
    }
}

/// Files of one policy that hold statistics: OpenVLA's and its kin's, openpi's, GR00T's.
const JSON_FILES: [&str; 4] =
    [STATISTICS, "norm_stats.json", "statistics.json", "experiment_cfg/metadata.json"];
/// openpi keeps them by data set, below this folder.
const ASSETS: &str = "assets";
const IN_ASSETS: &str = "norm_stats.json";
/// Folders below `assets` that are looked into.
const DEEPEST: usize = 4;
/// LeRobot's pipelines around a policy: `<name>.json`, and tensors in `<name>_step_<n>_….safetensors`.
const PROCESSORS: [&str; 2] = ["policy_preprocessor", "policy_postprocessor"];
/// OpenVLA keeps those of its training data here as well.
const CONFIG: &str = "config.json";
const IN_CONFIG: &str = "norm_stats";

/// One value, so that it can be compared and shown.
#[derive(Debug, Clone)]
struct Entry {
    exact: String,
    shown: String,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.exact == other.exact
    }
}

/// All statistics of a policy.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    root: PathBuf,
    /// By file and field.
    entries: BTreeMap<String, Entry>,
    /// Files below the root.
    files: Vec<PathBuf>,
    /// `norm_stats` of `config.json`.
    in_config: Option<Value>,
}

impl Statistics {
    /// Reads the statistics of a policy in a folder; a file of weights has its buffers alone.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, RetainError> {
        let mut statistics = Self { root: path.to_owned(), ..Self::default() };
        if path.is_dir() {
            statistics.read_json_files()?;
            statistics.read_processors()?;
        }
        match Checkpoint::open(path) {
            Ok(weights) => statistics.add_tensors("weights", &weights, is_normalisation_buffer),
            Err(StoreError::OnlyAdapter { .. } | StoreError::NoWeights { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(statistics)
    }

    fn read_json_files(&mut self) -> Result<(), RetainError> {
        let named = JSON_FILES.iter().map(PathBuf::from).filter(|name| self.root.join(name).is_file());
        let mut files: Vec<PathBuf> = named.collect();
        below(&self.root, Path::new(ASSETS), DEEPEST, &mut files)?;
        for name in files {
            self.add_json(&name.display().to_string(), &read_json(&self.root.join(&name))?);
            self.files.push(name);
        }
        let config = self.root.join(CONFIG);
        if config.is_file()
            && let Some(own) = read_json(&config)?.get(IN_CONFIG).filter(|own| !own.is_null())
        {
            self.add_json(&format!("{CONFIG}: {IN_CONFIG}"), own);
            self.in_config = Some(own.clone());
        }
        Ok(())
    }

    fn read_processors(&mut self) -> Result<(), RetainError> {
        for name in names(&self.root)? {
            let Some(processor) = PROCESSORS.iter().find(|processor| name.starts_with(**processor)) else {
                continue;
            };
            if name.ends_with(".safetensors") {
                // The number of a step is no part of what it does.
                self.add_tensors(processor, &Checkpoint::open(self.root.join(&name))?, |_| true);
            }
            self.files.push(PathBuf::from(name));
        }
        Ok(())
    }

    fn add_json(&mut self, place: &str, value: &Value) {
        let entry = match value {
            Value::Object(fields) => {
                return fields.iter().for_each(|(name, value)| self.add_json(&join(place, name), value));
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                return items.for_each(|(i, value)| self.add_json(&format!("{place}[{i}]"), value));
            }
            // 1 and 1.0 are the same number.
            Value::Number(number) => format!("{:?}", number.as_f64()),
            other => other.to_string(),
        };
        self.entries.insert(place.to_owned(), Entry { exact: entry, shown: value.to_string() });
    }

    fn add_tensors(&mut self, place: &str, checkpoint: &Checkpoint, wanted: impl Fn(&str) -> bool) {
        for key in checkpoint.keys().filter(|key| wanted(key)) {
            let Some(view) = checkpoint.get(key) else { continue };
            let hash = blake3::hash(view.bytes());
            let exact = format!("{} {:?} {}", view.dtype(), view.shape(), hash.to_hex());
            self.entries.insert(format!("{place}: {key}"), Entry { exact, shown: first_values(&view) });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// BLAKE3 over all fields and values; `None` where there are none.
    pub(crate) fn hash(&self) -> Option<Hash> {
        if self.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new_derive_key("skillweld normalisation statistics v1");
        for (place, entry) in &self.entries {
            for text in [place, &entry.exact] {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        Some(hasher.finalize())
    }

    /// Makes these the statistics of the checkpoint in `out`, which has configuration files of the pretrained policy.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub(crate) fn write(&self, out: &Path) -> Result<(), RetainError> {
        let is_processor = |name: &String| PROCESSORS.iter().any(|processor| name.starts_with(processor));
        for name in
            names(out)?.into_iter().filter(|name| JSON_FILES.contains(&name.as_str()) || is_processor(name))
        {
            let path = out.join(name);
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        for name in &self.files {
            let to = out.join(name);
            let folder = to.parent().unwrap_or(out);
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
            copy_file(&self.root.join(name), &to)?;
        }
        let config = out.join(CONFIG);
        if !config.is_file() {
            return Ok(());
        }
        let mut document = read_json(&config)?;
        let Some(fields) = document.as_object_mut() else { return Ok(()) };
        let before = fields.get(IN_CONFIG).cloned();
        match &self.in_config {
            Some(own) => fields.insert(IN_CONFIG.to_owned(), own.clone()),
            None => fields.remove(IN_CONFIG),
        };
        if fields.get(IN_CONFIG) == before.as_ref() {
            return Ok(());
        }
        Ok(write_json(&config, &document)?)
    }
}

/// Whose statistics the output gets, and what is worth knowing of it.
///
/// # Errors
/// [`RetainError::StatisticsDiffer`] with the first field unless `asked` decides; [`RetainError::NoStatistics`].
pub(crate) fn choose(
    base: &Statistics,
    finetuned: &Statistics,
    asked: Option<Keep>,
) -> Result<(Option<Keep>, Option<String>), RetainError> {
    if base.is_empty() && finetuned.is_empty() {
        return Ok((None, None));
    }
    if let Some(asked) = asked {
        let (chosen, other) = if asked == Keep::Base { (base, finetuned) } else { (finetuned, base) };
        if chosen.is_empty() {
            return Err(RetainError::NoStatistics { asked: asked.name(), path: chosen.root.clone() });
        }
        let differ = chosen.entries != other.entries;
        let note = format!("normalisation statistics are those of the {} policy, as asked", asked.name());
        return Ok((Some(asked), differ.then_some(note)));
    }
    for (own, other, keep) in [(base, finetuned, Keep::Base), (finetuned, base, Keep::Finetuned)] {
        if other.is_empty() {
            let note =
                format!("normalisation statistics are those of {}, which alone has any", own.root.display());
            return Ok((Some(keep), Some(note)));
        }
    }
    let places = base.entries.keys().chain(finetuned.entries.keys());
    let first = places.filter(|place| base.entries.get(*place) != finetuned.entries.get(*place)).min();
    let Some(field) = first else { return Ok((Some(Keep::Base), None)) };
    let shown = |side: &Statistics| side.entries.get(field).map_or("absent", |entry| &entry.shown).to_owned();
    Err(RetainError::StatisticsDiffer {
        field: format!("`{field}`"),
        base: shown(base),
        finetuned: shown(finetuned),
    })
}

fn join(place: &str, name: &str) -> String {
    if place.ends_with(".json") { format!("{place}: {name}") } else { format!("{place}.{name}") }
}

/// The beginning of a tensor, for people.
fn first_values(view: &TensorView<'_>) -> String {
    const SHOWN: usize = 3;
    let mut values = vec![0.0; SHOWN.min(view.numel())];
    if view.decode_block(0, &mut values).is_err() {
        return format!("{} {:?}", view.dtype(), view.shape());
    }
    let values: Vec<String> = values.iter().map(f32::to_string).collect();
    let more = if view.numel() > SHOWN { ", …" } else { "" };
    format!("[{}{more}]", values.join(", "))
}

/// Names in a folder, sorted.
fn names(dir: &Path) -> Result<Vec<String>, RetainError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io("read", dir))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(StoreError::io("read", dir))?;
    names.sort();
    Ok(names)
}

/// Adds every file of statistics below `folder`, by its path from `root`.
fn below(root: &Path, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), RetainError> {
    if !root.join(folder).is_dir() {
        return Ok(());
    }
    for name in names(&root.join(folder))? {
        let path = folder.join(&name);
        if root.join(&path).is_dir() && depth > 0 {
            below(root, &path, depth - 1, files)?;
        } else if name == IN_ASSETS {
            files.push(path);
        }
    }
    Ok(())
}
