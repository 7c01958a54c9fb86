use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use skillweld_store::{Checkpoint, Family, Modality};
use skillweld_tensor::TensorView;

use super::{CheckpointKind, Inspection};

/// One stored tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// Its name, without what wrappers add.
    pub key: String,
    /// Its element type, as safetensors calls it.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: u64,
    /// vision, language, action or other.
    pub modality: String,
    /// Name of the file that holds it.
    pub file: String,
}

/// Sums over tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// How many there are.
    pub tensors: u64,
    /// Elements of all.
    pub elements: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// Two names of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alias {
    /// The other name.
    pub name: String,
    /// The name that is stored.
    pub key: String,
}

/// Where the modality of a file's tensors comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group<'a> {
    /// Their keys.
    Model,
    /// Their keys behind `<task>/`.
    PerTask(&'a [String]),
    /// They belong to the action expert.
    Action,
}

impl Totals {
    fn add(&mut self, view: &TensorView<'_>) {
        self.tensors += 1;
        self.elements += view.numel() as u64;
        self.bytes += view.bytes().len() as u64;
    }
}

/// Tensors collected from files.
pub(super) struct Listing {
    family: Option<Family>,
    tensors: Vec<TensorInfo>,
    total: Totals,
    by_dtype: BTreeMap<String, Totals>,
    by_modality: BTreeMap<String, Totals>,
    aliases: Vec<Alias>,
}

impl Listing {
    pub(super) fn new(family: Option<Family>) -> Self {
        Self {
            family,
            tensors: Vec::new(),
            total: Totals::default(),
            by_dtype: BTreeMap::new(),
            by_modality: BTreeMap::new(),
            aliases: Vec::new(),
        }
    }

    /// Adds a file's tensors; gives their sums.
    pub(super) fn add(&mut self, checkpoint: &Checkpoint, group: Group<'_>) -> Totals {
        let mut own = Totals::default();
        for key in checkpoint.keys() {
            let Some(view) = checkpoint.get(key) else { continue };
            let modality = self.modality(key, group).to_string();
            let dtype = view.dtype().to_string();
            for totals in [
                &mut own,
                &mut self.total,
                self.by_dtype.entry(dtype.clone()).or_default(),
                self.by_modality.entry(modality.clone()).or_default(),
            ] {
                totals.add(&view);
            }
            let file = checkpoint.file_of(key).and_then(Path::file_name).unwrap_or_default();
            self.tensors.push(TensorInfo {
                key: key.to_owned(),
                dtype,
                shape: view.shape().to_vec(),
                bytes: view.bytes().len() as u64,
                modality,
                file: file.to_string_lossy().into_owned(),
            });
        }
        let aliases =
            checkpoint.aliases().map(|(name, key)| Alias { name: name.to_owned(), key: key.to_owned() });
        self.aliases.extend(aliases);
        own
    }

    fn modality(&self, key: &str, group: Group<'_>) -> Modality {
        let key = match group {
            Group::Action => return Modality::Action,
            Group::Model => target(key),
            Group::PerTask(tasks) => tasks
                .iter()
                .find_map(|task| key.strip_prefix(task.as_str())?.strip_prefix('/'))
                .unwrap_or(key),
        };
        self.family.map_or(Modality::Other, |family| family.modality(key))
    }

    pub(super) fn into_inspection(self, path: &Path, kind: CheckpointKind) -> Inspection {
        Inspection {
            path: path.to_owned(),
            kind,
            family: self.family.map(|family| family.to_string()),
            total: self.total,
            by_dtype: self.by_dtype,
            by_modality: self.by_modality,
            aliases: self.aliases,
            adapter: None,
            side_files: Vec::new(),
            statistics: Vec::new(),
            merged: None,
            tensors: self.tensors,
        }
    }
}

/// The key of the base that a tensor of an adapter belongs to; any other key as it is.
pub(super) fn target(key: &str) -> &str {
    key.strip_prefix("base_model.model.").unwrap_or(key)
}
