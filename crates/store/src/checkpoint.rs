use std::collections::{BTreeMap, btree_map};
use std::path::{Path, PathBuf};

use skillweld_tensor::TensorView;

use crate::StoreError;
use crate::aliases::tied_by_config;
use crate::hash::{Hash, content_hash};
use crate::locate::{self, Weights, locate};
use crate::mapped::MappedFile;
use crate::safetensors::{parse_header, read_index};
use crate::stored::StoredTensor;
use crate::torch::TorchFile;

/// One model's tensors by key, mapped from their files.
///
/// Keys lose what wrappers added: a leading `module.` (data parallelism) and every `_orig_mod.` (`torch.compile`).
/// Opening reads headers only; a tensor's pages are read when first touched. Shared between threads freely.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    dir: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Entry>,
    /// Other name → key.
    aliases: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    stored_name: String,
    file: usize,
    tensor: StoredTensor,
}

/// One file's tensors under their stored names.
struct Contents {
    file: MappedFile,
    tensors: Vec<(String, StoredTensor)>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a model: a directory in Hugging Face layout (`model.safetensors`, `pytorch_model.bin`, either with an index
    /// and shards, or one other file of these kinds), or such a file itself. Side files of an expert, as
    /// `action_head--*checkpoint.pt`, are not part of it.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading. Every header, offset, shape and dtype is checked here, so that nothing read later
    /// can fail.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let contents = match locate(path)? {
            Weights::File(file) => vec![Contents::read(&file)?],
            Weights::Index(index) => {
                let index = read_index(&index)?;
                let contents =
                    index.shard_paths().map(|shard| Contents::read(&shard)).collect::<Result<Vec<_>, _>>()?;
                index.check(contents.iter().map(|c| c.tensors.iter().map(|(name, _)| name.as_str())))?;
                contents
            }
        };
        let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let mut checkpoint = Self {
            path: path.to_owned(),
            dir: dir.to_owned(),
            files: Vec::with_capacity(contents.len()),
            tensors: BTreeMap::new(),
            aliases: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        for contents in contents {
            checkpoint.add(contents)?;
        }
        checkpoint.find_aliases()?;
        Ok(checkpoint)
    }

    fn add(&mut self, contents: Contents) -> Result<(), StoreError> {
        let file = self.files.len();
        for (stored_name, tensor) in contents.tensors {
            match self.tensors.entry(normalise(&stored_name)) {
                btree_map::Entry::Vacant(slot) => {
                    slot.insert(Entry { stored_name, file, tensor });
                }
                btree_map::Entry::Occupied(slot) => {
                    return Err(StoreError::KeyCollision {
                        path: self.path.clone(),
                        key: slot.key().clone(),
                        first: slot.get().stored_name.clone(),
                        second: stored_name,
                    });
                }
            }
        }
        self.metadata.extend(contents.metadata);
        self.files.push(contents.file);
        Ok(())
    }

    fn find_aliases(&mut self) -> Result<(), StoreError> {
        self.aliases = tied_by_config(&self.dir, |key| self.tensors.contains_key(key), self.keys())?;
        let mut by_place: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
        for (key, entry) in &self.tensors {
            let same_place = by_place.entry((entry.file, entry.tensor.range.start)).or_default();
            same_place.push(key);
        }
        for keys in by_place.into_values().filter(|keys| keys.len() > 1) {
            // An output head is the alias of the embedding, not the other way round; otherwise the first name counts.
            let canonical = keys.iter().find(|key| !key.ends_with("lm_head.weight")).unwrap_or(&keys[0]);
            for alias in keys.iter().filter(|key| key != &canonical) {
                if self.tensors[*alias].tensor.is_same_view(&self.tensors[*canonical].tensor) {
                    self.aliases.insert((*alias).to_owned(), (*canonical).to_owned());
                }
            }
        }
        Ok(())
    }

    /// Unmaps what has been read; whatever is read again is mapped again, out of the page cache. A process that ends
    /// unmaps everything too, but on one thread.
    pub fn release(&self) {
        self.files.iter().for_each(MappedFile::release);
    }

    /// Every key that is stored, sorted. A tied weight stored under two names has both here.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True when no tensor is stored.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor under exactly this key. Zero-copy and without allocation, except for a transposed or sliced PyTorch
    /// tensor, which is gathered when first asked for.
    pub fn get(&self, key: &str) -> Option<TensorView<'_>> {
        let entry = self.tensors.get(key)?;
        entry.tensor.view(self.files[entry.file].bytes()).ok()
    }

    /// The stored key that `key` stands for: itself, or the other name of a tied weight.
    pub fn resolve(&self, key: &str) -> Option<&str> {
        let (stored, _) = self.tensors.get_key_value(key).or_else(|| {
            let canonical = self.aliases.get(key)?;
            self.tensors.get_key_value(canonical)
        })?;
        Some(stored)
    }

    /// Tied weights, as (other name, canonical key), sorted. The other name may be stored as well (PyTorch files keep
    /// both names of one storage) or be missing (Hugging Face saves `tie_word_embeddings` models under one name).
    pub fn aliases(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.aliases.iter().map(|(alias, canonical)| (alias.as_str(), canonical.as_str()))
    }

    /// The `__metadata__` of the safetensors headers, joined over all shards.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the weights, where `config.json` and the rest lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files that hold the tensors, in order of their names.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(MappedFile::path)
    }

    /// The files with the keys that each holds, if another checkpoint can take them as they are: all are safetensors and
    /// store every tensor under its key. `None` otherwise.
    pub fn whole_files(&self) -> Option<Vec<(&Path, Vec<&str>)>> {
        let mut files: Vec<(&Path, Vec<&str>)> = self.files().map(|path| (path, Vec::new())).collect();
        let plain = files.iter().all(|(path, _)| path.extension().is_some_and(|end| end == "safetensors"));
        let unwrapped = self.tensors.iter().all(|(key, entry)| entry.stored_name == *key);
        for (key, entry) in &self.tensors {
            files[entry.file].1.push(key);
        }
        (plain && unwrapped).then_some(files)
    }

    /// The file that holds `key`: for error texts.
    pub fn file_of(&self, key: &str) -> Option<&Path> {
        self.tensors.get(key).map(|entry| self.files[entry.file].path())
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.tensor.byte_len() as u64).sum()
    }

    /// [`content_hash`] of everything stored, in one pass on this thread.
    pub fn content_hash(&self) -> Hash {
        let tensors = self.keys().filter_map(|key| {
            let view = self.get(key)?;
            Some((key, view.dtype(), view.shape(), blake3::hash(view.bytes())))
        });
        content_hash(tensors)
    }
}

impl Contents {
    fn read(path: &Path) -> Result<Self, StoreError> {
        if locate::is_torch(path) {
            let (file, tensors) = TorchFile::open(path)?.into_state_dict()?;
            return Ok(Self { file, tensors, metadata: BTreeMap::new() });
        }
        let file = MappedFile::open(path)?;
        let header = parse_header(file.bytes())
            .map_err(|problem| StoreError::Header { path: path.to_owned(), problem })?;
        Ok(Self { file, tensors: header.tensors, metadata: header.metadata })
    }
}

/// Strips what wrappers add to names: leading `module.`, and `_orig_mod` wherever it stands.
pub(crate) fn normalise(stored: &str) -> String {
    let mut key = stored;
    while let Some(rest) = key.strip_prefix("module.").or_else(|| key.strip_prefix("_orig_mod.")) {
        key = rest;
    }
    key.replace("._orig_mod", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapper_names_are_stripped() {
        for (stored, key) in [
            ("module.a.weight", "a.weight"),
            ("module.module.a", "a"),
            ("_orig_mod.a.weight", "a.weight"),
            ("module._orig_mod.a", "a"),
            ("model._orig_mod.layers.0._orig_mod.w", "model.layers.0.w"),
            ("a.module.w", "a.module.w"),
            ("modules.a", "modules.a"),
        ] {
            assert_eq!(normalise(stored), key);
        }
    }

    #[test]
    fn checkpoints_are_shared_between_threads() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<Checkpoint>();
    }
}
