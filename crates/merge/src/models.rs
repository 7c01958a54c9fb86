//! The models of a recipe, opened: weights, adapters, action experts, statistics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use skillweld_merged::MergedCheckpoint;
use skillweld_merged::layout::STATISTICS;
use skillweld_store::{Adapter, AdapterDelta, Checkpoint, ExpertFiles, Family, StoreError};
use skillweld_tensor::TensorView;

use crate::MergeError;
use crate::plan::Part;
use crate::recipe::{Place, Recipe, RecipeError};
use crate::source::Source;

/// Every model that a recipe names, in its order.
#[derive(Debug)]
pub struct Models {
    /// Same indices as [`Recipe::models`].
    pub(crate) all: Vec<Model>,
    /// Key family of the base, or of the first model.
    pub(crate) family: Family,
    /// What the plans so far have found out.
    pub(crate) compared: Compared,
}

/// Which tensors hold the same bits, as far as anybody asked: several plans over the same models compare them once.
#[derive(Debug, Default)]
pub(crate) struct Compared(Mutex<HashMap<[(usize, usize); 2], bool>>);

impl Compared {
    /// True when two views hold the same bytes. Both look at files of the models that own this memory.
    pub(crate) fn same_bits(&self, a: &TensorView<'_>, b: &TensorView<'_>) -> bool {
        let place = |view: &TensorView<'_>| (view.bytes().as_ptr().addr(), view.bytes().len());
        let places = [place(a), place(b)];
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known().get(&places) {
            return *same;
        }
        let same = a.bytes() == b.bytes();
        known().insert(places, same);
        same
    }
}

/// One model.
#[derive(Debug)]
pub(crate) struct Model {
    /// The task's name.
    pub(crate) name: String,
    /// Where it was found.
    pub(crate) path: PathBuf,
    pub(crate) weights: Arc<Checkpoint>,
    pub(crate) adapter: Option<BoundAdapter>,
    /// What its owner measured of it, for methods that need that.
    pub(crate) statistics: Option<Checkpoint>,
    /// What lies beside the weights, or beside the adapter's folder.
    pub(crate) files: SideFiles,
    /// Parts that lie beside a model that is named as a file: they may belong to anyone, and are not opened.
    pub(crate) ignored: Vec<PathBuf>,
}

/// An adapter on its base.
#[derive(Debug)]
pub(crate) struct BoundAdapter {
    pub(crate) adapter: Adapter,
    /// Key of the base → the adapter's name for it.
    targets: BTreeMap<String, String>,
    /// Second names of tied weights with the first names, which the adapter replaces: what was trained is a copy, so peft
    /// leaves the base's weight under the second name, and the two are tied no longer.
    untied: Vec<(String, String)>,
}

/// An expert's other files.
#[derive(Debug, Default)]
pub(crate) struct SideFiles {
    pub(crate) action_head: Option<Checkpoint>,
    pub(crate) proprio_projector: Option<Checkpoint>,
    pub(crate) noisy_action_projector: Option<Checkpoint>,
    pub(crate) dataset_statistics: Option<PathBuf>,
}

impl BoundAdapter {
    fn open(dir: &Path, base: &Checkpoint) -> Result<Self, MergeError> {
        let adapter = Adapter::open(dir)?;
        let targets = adapter.check_targets(base)?;
        let targets = targets.into_iter().map(|(stored, target)| (stored, target.to_owned())).collect();
        let mut bound = Self { adapter, targets, untied: Vec::new() };
        for (alias, first) in base.aliases() {
            if !bound.replaces(first) {
                continue;
            }
            if first.ends_with("lm_head.weight") {
                let problem = format!(
                    "replaces `{first}`, which {} also has as its embedding, under no name of its own; save that model with both \
                     (`tie_word_embeddings: false`) first",
                    base.path().display()
                );
                return Err(MergeError::Unfit { path: dir.to_owned(), problem });
            }
            bound.untied.push((alias.to_owned(), first.to_owned()));
        }
        Ok(bound)
    }

    /// The adapter holds the stored `key` whole (`modules_to_save`), no factors.
    fn replaces(&self, key: &str) -> bool {
        self.targets.get(key).is_some_and(|target| self.adapter.rank(target).is_none())
    }
}

impl SideFiles {
    /// Action head and projectors: what each is, the prefix of its keys in the output, and its tensors.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, &'static str, &Checkpoint)> {
        let parts = [
            ("action head", "", &self.action_head),
            ("proprio projector", "proprio_projector.", &self.proprio_projector),
            ("noisy action projector", "noisy_action_projector.", &self.noisy_action_projector),
        ];
        parts.into_iter().filter_map(|(name, prefix, part)| Some((name, prefix, part.as_ref()?)))
    }

    /// Every key of all parts, as the output has it.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> {
        self.parts().flat_map(|(_, prefix, part)| part.keys().map(move |key| format!("{prefix}{key}")))
    }

    /// The tensor that the output has as `key`.
    pub(crate) fn get(&self, key: &str) -> Option<TensorView<'_>> {
        let (part, name) = self.part_of(key);
        part?.get(name)
    }

    /// The part to which the output's `key` belongs is there.
    pub(crate) fn has_part_of(&self, key: &str) -> bool {
        self.part_of(key).0.is_some()
    }

    /// The part to which the output's `key` belongs, and its name there.
    fn part_of<'k>(&self, key: &'k str) -> (Option<&Checkpoint>, &'k str) {
        let projectors = [
            ("proprio_projector.", &self.proprio_projector),
            ("noisy_action_projector.", &self.noisy_action_projector),
        ];
        let own = projectors.into_iter().find_map(|(prefix, part)| Some((part, key.strip_prefix(prefix)?)));
        let (part, name) = own.unwrap_or((&self.action_head, key));
        (part.as_ref(), name)
    }

    /// A model that is one file has no others: what lies beside it may belong to anyone.
    fn open(dir: &Path) -> Result<Self, StoreError> {
        if !dir.is_dir() {
            return Ok(Self::default());
        }
        let files = ExpertFiles::discover(dir)?;
        Ok(Self {
            action_head: files.action_head()?,
            proprio_projector: files.proprio_projector()?,
            noisy_action_projector: files.noisy_action_projector()?,
            dataset_statistics: files.file(STATISTICS),
        })
    }
}

impl Models {
    /// Opens every model of the recipe; a checkpoint that several share is opened once.
    ///
    /// # Errors
    /// Whatever is wrong with a file, naming it; [`MergeError::AdapterWithoutBase`].
    pub fn open(recipe: &Recipe) -> Result<Self, MergeError> {
        let mut opened = Opened::default();
        let base_path = recipe.base.map(|base| recipe.locate(base)).transpose()?.map(|(path, _)| path);
        let mut all: Vec<Model> = Vec::with_capacity(recipe.models.len());
        let mut places = Places::default();
        for (i, model) in recipe.models.iter().enumerate() {
            let (path, adapter) = recipe.locate(i)?;
            places.refuse_second((&path, adapter.as_deref()), &model.place, &all)?;
            refuse_masked(&path)?;
            let found = Found::at(path, adapter, base_path.as_deref())?;
            let weights = opened.open(&found.weights)?;
            let adapter =
                found.adapter.as_deref().map(|dir| BoundAdapter::open(dir, &weights)).transpose()?;
            let files = SideFiles::open(&found.side_files)?;
            let ignored = parts_beside(&found.side_files);
            let statistics = recipe.locate_statistics(i)?.map(Checkpoint::open).transpose()?;
            let (name, path) = (model.name.clone(), found.path);
            all.push(Model { name, path, weights, adapter, statistics, files, ignored });
        }
        let base = &all[recipe.base.unwrap_or(0)];
        let family = Family::detect(base.weights.keys());
        for model in &all {
            let other = Family::detect(model.weights.keys());
            if let (Some(expected), Some(found)) = (family, other)
                && expected != found
            {
                return Err(MergeError::Family {
                    model: model.name.clone(),
                    found,
                    other: base.name.clone(),
                    expected,
                });
            }
        }
        let family = family.unwrap_or(Family::Llm);
        Ok(Self { all, family, compared: Compared::default() })
    }
}

/// A merged checkpoint with masks is no model: its weights are Θ₀ (or τ, as the published code keeps them).
fn refuse_masked(path: &Path) -> Result<(), MergeError> {
    if MergedCheckpoint::is_at(path) && MergedCheckpoint::open(path).is_ok_and(|merged| merged.is_masked()) {
        let problem = "is a merged checkpoint with task masks, no single model; write one task's weights with `skillweld materialize` and merge those";
        return Err(MergeError::Unfit { path: path.to_owned(), problem: problem.to_owned() });
    }
    Ok(())
}

/// Where the models seen so far really lie.
#[derive(Default)]
struct Places(Vec<(PathBuf, Option<PathBuf>)>);

impl Places {
    /// Refuses a model that is there under another spelling of its path: the base would count as a task of its own.
    fn refuse_second(
        &mut self,
        (path, adapter): (&Path, Option<&Path>),
        place: &Place,
        before: &[Model],
    ) -> Result<(), RecipeError> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let own = (real(path), adapter.map(real));
        if let Some(first) = self.0.iter().position(|other| *other == own) {
            let problem = format!(
                "is the same model as {} by another path ({}); write the path alike in both places",
                before[first].name,
                own.0.display()
            );
            return Err(RecipeError::Conflict { place: place.clone(), problem });
        }
        self.0.push(own);
        Ok(())
    }
}

/// Checkpoints by real path.
#[derive(Default)]
struct Opened(HashMap<PathBuf, Arc<Checkpoint>>);

impl Opened {
    fn open(&mut self, path: &Path) -> Result<Arc<Checkpoint>, MergeError> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(checkpoint) = self.0.get(&real) {
            return Ok(Arc::clone(checkpoint));
        }
        let checkpoint = Arc::new(Checkpoint::open(path)?);
        self.0.insert(real, Arc::clone(&checkpoint));
        Ok(checkpoint)
    }
}

/// Which folders make up a model.
struct Found {
    path: PathBuf,
    weights: PathBuf,
    adapter: Option<PathBuf>,
    side_files: PathBuf,
}

impl Found {
    /// A folder may hold weights; or an adapter alone, itself or as `lora_adapter/`, which then goes on the base. Where
    /// both are there the weights count: published checkpoints keep the adapter that is already merged into them.
    fn at(path: PathBuf, adapter: Option<PathBuf>, base: Option<&Path>) -> Result<Self, MergeError> {
        const CONFIG: &str = "adapter_config.json";
        const SUBFOLDER: &str = "lora_adapter";
        if let Some(adapter) = adapter {
            // The expert's other files lie beside its adapter, or one folder up from `lora_adapter/`.
            let side_files = match adapter.file_name() {
                Some(name) if name == SUBFOLDER => adapter.parent().unwrap_or(&adapter).to_owned(),
                _ => adapter.clone(),
            };
            return Ok(Self { weights: path.clone(), path, adapter: Some(adapter), side_files });
        }
        let nested = path.join(SUBFOLDER);
        let adapter = if path.join(CONFIG).is_file() {
            if has_weights(&path) {
                let problem = "holds both a model's weights and a LoRA adapter; name the weights' file, or write `model: CHECKPOINT+ADAPTER`";
                return Err(MergeError::Unfit { path, problem: problem.to_owned() });
            }
            path.clone()
        } else if nested.join(CONFIG).is_file() && !has_weights(&path) {
            nested
        } else {
            return Ok(Self { weights: path.clone(), adapter: None, side_files: path.clone(), path });
        };
        let Some(base) = base else { return Err(MergeError::AdapterWithoutBase { path: adapter }) };
        Ok(Self { weights: base.to_owned(), adapter: Some(adapter), side_files: path.clone(), path })
    }
}

/// Action head and projectors in the folder of a model that is one file.
fn parts_beside(file: &Path) -> Vec<PathBuf> {
    let folder = file.parent().filter(|_| file.is_file());
    let found = folder.and_then(|folder| ExpertFiles::discover(folder).ok());
    found.iter().flat_map(ExpertFiles::parts).map(|(_, path)| path.to_owned()).collect()
}

/// True when a folder holds a model's weights, not only an adapter and action heads.
fn has_weights(dir: &Path) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // LeRobot's processors keep their statistics beside either.
        let beside = ["adapter_", "policy_preprocessor", "policy_postprocessor"];
        let is_beside = beside.iter().any(|prefix| name.starts_with(prefix));
        (name.ends_with(".safetensors") && !is_beside) || name.starts_with("pytorch_model")
    })
}

impl Model {
    /// Every key the model has: stored ones, and those its adapter adds or unties.
    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        let added = self.adapter.iter().flat_map(|adapter| adapter.targets.keys());
        let untied = self.adapter.iter().flat_map(|adapter| &adapter.untied).map(|(alias, _)| alias);
        self.weights.keys().chain(added.chain(untied).map(String::as_str)).collect()
    }

    /// True for the second name of a weight that this model no longer ties to the first.
    pub(crate) fn unties(&self, key: &str) -> bool {
        self.adapter.iter().flat_map(|adapter| &adapter.untied).any(|(alias, _)| alias == key)
    }

    /// What is worth knowing of this model.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let untied = self.adapter.iter().flat_map(|adapter| &adapter.untied);
        untied.map(|(alias, first)| {
            format!(
                "untied: the adapter of {} replaces `{first}` alone, so `{alias}` keeps the base's values",
                self.name
            )
        })
    }

    /// As [`source`](Self::source), of either part of the output.
    pub(crate) fn source_in(&self, part: Part, key: &str) -> Result<Option<Source<'_>>, MergeError> {
        match part {
            Part::Model => self.source(key),
            Part::ActionExpert => Ok(self.files.get(key).map(Source::Stored)),
        }
    }

    /// Where the values of `key` come from, also under the other name of a tied weight.
    ///
    /// # Errors
    /// An adapter's tensor that cannot be read.
    pub(crate) fn source(&self, key: &str) -> Result<Option<Source<'_>>, MergeError> {
        let stored_key = self.weights.resolve(key);
        let stored = stored_key.and_then(|key| self.weights.get(key));
        let Some(bound @ BoundAdapter { adapter, targets, .. }) = &self.adapter else {
            return Ok(stored.map(Source::Stored));
        };
        // Factors go into the weight that both names share, a replacement under its own name only.
        let shared = stored_key.filter(|stored| !bound.replaces(stored));
        let target = targets.get(key).or_else(|| targets.get(shared?));
        let Some(target) = target else { return Ok(stored.map(Source::Stored)) };
        if adapter.rank(target).is_some() {
            return Ok(stored.map(|stored| Source::Adapted { stored, adapter, target }));
        }
        Ok(match adapter.delta(target)? {
            Some(AdapterDelta::Replace(view)) => Some(Source::Stored(view)),
            Some(AdapterDelta::LowRank(_)) | None => stored.map(Source::Stored),
        })
    }
}
