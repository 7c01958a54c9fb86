//! How a masked merge keeps Θ₀: with bytes of its own, with the base model's own files, or as a note of where it lies.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};
use skillweld_merged::layout::stem;
use skillweld_store::{Checkpoint, Link, StoreError, link_file, reflink_file, write_json};
use skillweld_tensor::TensorView;

use crate::MergeError;
use crate::plan::{Action, Part, Plan, PlannedTensor};
use crate::source::same_bytes;

/// How the output of a masked merge keeps the pretrained weights Θ₀.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseMode {
    /// Independent of the base model: its files on shared copy-on-write blocks (reflinks) where the file system offers
    /// them and the files can be taken whole, bytes of its own otherwise.
    #[default]
    Copy,
    /// The base model's files under a second name: hard links, or symbolic ones to another file system.
    Link,
    /// Not at all: `skillweld.json` says where the base model lies.
    Reference,
}

/// What became of Θ₀ in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeptBase {
    /// Written anew.
    Copied,
    /// The base model's files, on shared blocks.
    Reflinked,
    /// The base model's files themselves; they stay even if the base's folder is removed.
    HardLinked,
    /// Symbolic links to the base model's files.
    SymbolicLinked,
    /// Only named.
    Referenced,
}

impl fmt::Display for BaseMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BaseMode::Copy => "copy",
            BaseMode::Link => "link",
            BaseMode::Reference => "reference",
        })
    }
}

/// The base model as an output keeps it.
#[derive(Debug)]
pub(crate) struct BaseFiles<'a> {
    pub(crate) kept: KeptBase,
    /// Name in the output and keys of each file that is taken whole.
    files: Vec<(String, Vec<&'a str>)>,
    /// Stem of the file with the other tensors under [`stem::MODEL`].
    pub(crate) rest_stem: String,
}

impl BaseFiles<'_> {
    /// Θ₀ is written tensor by tensor.
    pub(crate) fn written() -> Self {
        Self { kept: KeptBase::Copied, files: Vec::new(), rest_stem: stem::MODEL.to_owned() }
    }
}

impl<'a> Plan<'a> {
    /// Fails unless the base model can be kept in this way.
    ///
    /// # Errors
    /// [`MergeError::BaseMode`] with the reason and the remedy.
    pub fn check_base(&self, mode: BaseMode) -> Result<(), MergeError> {
        let problem = match mode {
            BaseMode::Copy => return Ok(()),
            _ if !self.masked => "needs a merge with masks; this one writes final weights, which no base model has: leave `--base` out".to_owned(),
            BaseMode::Link => match self.whole_base_files() {
                Ok(_) => return Ok(()),
                Err(reason) => format!("cannot take the base model's files as they are: {reason}; use `--base copy`"),
            },
            BaseMode::Reference => match self.unplanned_base_key() {
                None => return Ok(()),
                Some(key) => format!("cannot leave Θ₀ with the base model, which also holds `{key}`, no part of this merge; use `--base copy`"),
            },
        };
        Err(MergeError::BaseMode { mode, problem })
    }

    /// Puts the base model's files into the output directory, as far as `mode` wants them there.
    ///
    /// # Errors
    /// Those of [`Plan::check_base`], and of the file system.
    pub(crate) fn place_base(&self, out: &Path, mode: BaseMode) -> Result<BaseFiles<'a>, MergeError> {
        self.check_base(mode)?;
        if mode == BaseMode::Reference {
            let rest_stem = stem::MODEL.to_owned();
            return Ok(BaseFiles { kept: KeptBase::Referenced, files: Vec::new(), rest_stem });
        }
        let Some(taken) = self.whole_base_files().ok().filter(|_| self.masked) else {
            return Ok(BaseFiles::written());
        };
        let count = taken.len() + usize::from(self.tensors.iter().any(|tensor| self.is_beside_base(tensor)));
        let stem_of = |number: usize| match count {
            1 => stem::MODEL.to_owned(),
            _ => format!("{}-{number:05}-of-{count:05}", stem::MODEL),
        };
        let mut kept = if mode == BaseMode::Copy { KeptBase::Reflinked } else { KeptBase::HardLinked };
        let mut files = Vec::with_capacity(taken.len());
        for (i, (from, keys)) in taken.into_iter().enumerate() {
            let name = format!("{}.safetensors", stem_of(i + 1));
            let to = out.join(&name);
            match mode {
                BaseMode::Copy if !reflink_file(from, &to)? => {
                    remove(out, &files)?;
                    return Ok(BaseFiles::written());
                }
                BaseMode::Copy => {}
                _ if link_file(from, &to)? == Link::Symbolic => kept = KeptBase::SymbolicLinked,
                _ => {}
            }
            files.push((name, keys));
        }
        Ok(BaseFiles { kept, files, rest_stem: stem_of(count) })
    }

    /// Writes the index over files of the base and the file with the rest, where there is more than one.
    pub(crate) fn write_base_index(&self, out: &Path, base: &BaseFiles<'_>) -> Result<(), MergeError> {
        let rest: Vec<&PlannedTensor<'_>> =
            self.tensors.iter().filter(|tensor| self.is_beside_base(tensor)).collect();
        if base.files.len() + usize::from(!rest.is_empty()) < 2 {
            return Ok(());
        }
        let rest_name = format!("{}.safetensors", base.rest_stem);
        let of_base = base.files.iter().flat_map(|(name, keys)| keys.iter().map(move |key| (*key, name)));
        let of_rest = rest.iter().map(|tensor| (tensor.key.as_str(), &rest_name));
        let mut places: Vec<(&str, &String)> = of_base.chain(of_rest).collect();
        places.sort_unstable();
        let weight_map: Map<String, Value> =
            places.into_iter().map(|(key, file)| (key.to_owned(), json!(file))).collect();
        let rest_bytes = |tensor: &&PlannedTensor<'_>| tensor.dtype.byte_len(tensor.numel()).unwrap_or(0);
        let total_bytes = self.base().map_or(0, Checkpoint::total_bytes)
            + rest.iter().map(rest_bytes).map(|bytes| bytes as u64).sum::<u64>();
        let index = json!({"metadata": {"total_size": total_bytes}, "weight_map": weight_map});
        Ok(write_json(&out.join(format!("{}.safetensors.index.json", stem::MODEL)), &index)?)
    }

    /// Every tensor of the output that lies in the base model's files, with its name.
    pub(crate) fn tensors_in_base(&self, base: &BaseFiles<'_>) -> Vec<(&str, TensorView<'_>)> {
        if base.files.is_empty() {
            return Vec::new();
        }
        let of = |tensor: &'_ PlannedTensor<'a>| self.in_base(tensor);
        self.tensors.iter().filter_map(|tensor| Some((tensor.key.as_str(), of(tensor)?))).collect()
    }

    /// Where the referenced base lies: an absolute path, so that the output can be moved. Links on the way are not
    /// followed: what they lead to may have no name that tells what it is.
    pub(crate) fn base_path(&self) -> Result<PathBuf, MergeError> {
        let path = self.base().map_or(Path::new("."), Checkpoint::path);
        Ok(std::path::absolute(path).map_err(StoreError::io("find", path))?)
    }

    /// The base model's own tensor, where it is Θ₀ of `tensor` as it stands.
    pub(crate) fn in_base(&self, tensor: &PlannedTensor<'a>) -> Option<TensorView<'a>> {
        let theta = match &tensor.action {
            Action::Merge(merge) => merge.base?,
            Action::Copy(view) if view.dtype() == tensor.dtype => *view,
            _ => return None,
        };
        let own = self.base()?.get(&tensor.key)?;
        (self.masked && tensor.part == Part::Model && same_bytes(&own, &theta)).then_some(theta)
    }

    fn base(&self) -> Option<&'a Checkpoint> {
        self.recipe.base.map(|base| &*self.models.all[base].weights)
    }

    /// A tensor that belongs to [`stem::MODEL`] and is no tensor of the base model.
    fn is_beside_base(&self, tensor: &PlannedTensor<'a>) -> bool {
        let stored = match &tensor.action {
            Action::Merge(merge) => merge.base.is_some(),
            Action::Refuse(_) | Action::LeaveOut(_) => false,
            _ => true,
        };
        stored && tensor.part == Part::Model && self.in_base(tensor).is_none()
    }

    /// A key of the base model that the output would gain if it took the base model whole.
    fn unplanned_base_key(&self) -> Option<&'a str> {
        let planned: std::collections::BTreeSet<&str> =
            self.tensors.iter().filter(|t| t.is_of_model()).map(|t| t.key.as_str()).collect();
        self.base()?.keys().find(|key| !planned.contains(key))
    }

    /// The base model's files with their keys, if all of them can be taken as they are; otherwise the reason.
    fn whole_base_files(&self) -> Result<Vec<(&'a Path, Vec<&'a str>)>, String> {
        let base = self.base().ok_or("there is no base model")?;
        if let Some(key) = self.unplanned_base_key() {
            return Err(format!("they hold `{key}`, which is no part of this merge"));
        }
        let changed = self.tensors.iter().filter(|tensor| tensor.part == Part::Model);
        if let Some(tensor) =
            changed.into_iter().find(|t| base.get(&t.key).is_some() && self.in_base(t).is_none())
        {
            return Err(format!("`{}` is not kept as it is there", tensor.key));
        }
        base.whole_files().ok_or_else(|| {
            format!(
                "{} is not in safetensors files with every tensor under its own name",
                base.path().display()
            )
        })
    }
}

/// Removes files that were placed before another one could not be.
fn remove(out: &Path, files: &[(String, Vec<&str>)]) -> Result<(), StoreError> {
    for (name, _) in files {
        let path = out.join(name);
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
    }
    Ok(())
}
