use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use skillweld_spelling::nearest;
use skillweld_store::Checkpoint;
use skillweld_tensor::TensorView;

use crate::error::problem;
use crate::layout::RESCALER;
use crate::parts::Parts;
use crate::{ExpertPart, Mask, MergedError, RouterSubspace, TaskVector, TaskWeight, Weight, official, own};

/// One merged checkpoint, whichever code wrote it. Shared between threads freely.
#[derive(Debug)]
pub struct MergedCheckpoint {
    pub(crate) dir: PathBuf,
    pub(crate) tasks: Vec<String>,
    /// The whole of `skillweld.json`; null for the published code's layout.
    pub(crate) document: Value,
    /// Θ₀, or the final weights when there is no task vector. The first that has a key counts.
    pub(crate) weights: Vec<Checkpoint>,
    pub(crate) vector: Vector,
    pub(crate) masks: Option<Masks>,
    /// One a task; 1 where the mask method has none.
    pub(crate) rescalers: Vec<f32>,
    pub(crate) parts: Parts,
    /// Dataset → statistics, for each task.
    pub(crate) statistics: Vec<Option<Map<String, Value>>>,
}

/// How τ is stored.
#[derive(Debug)]
pub(crate) enum Vector {
    /// Not at all: the weights are final.
    None,
    /// As it is, under the keys that masks apply to.
    Stored(Checkpoint),
    /// As a whole model, by the published code.
    Official { merged: Checkpoint, form: OfficialForm, zeros: Zeros },
}

/// Which tensors of a published checkpoint hold nothing but zeros: found out when first asked for, once a key, because
/// that reads the whole tensor.
#[derive(Debug)]
pub(crate) struct Zeros(BTreeMap<String, OnceLock<bool>>);

impl Zeros {
    pub(crate) fn of(merged: &Checkpoint) -> Self {
        Self(merged.keys().map(|key| (key.to_owned(), OnceLock::new())).collect())
    }

    fn is_zero(&self, key: &str, stored: &TensorView<'_>) -> bool {
        let look = || stored.bytes().iter().all(|&byte| byte == 0);
        self.0.get(key).map_or_else(look, |known| *known.get_or_init(look))
    }
}

impl Vector {
    pub(crate) fn file(&self) -> Option<&Checkpoint> {
        match self {
            Vector::None => None,
            Vector::Stored(file) | Vector::Official { merged: file, .. } => Some(file),
        }
    }
}

/// What the published code's `model.safetensors` holds beside its masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfficialForm {
    /// τ, and zeros under the keys that are the same in all models: what the released scripts save.
    TaskVector,
    /// Θ₀ + τ.
    Dense,
    /// Nobody can tell without the pretrained model.
    Unknown,
}

/// The masks of all tasks, as `<task>/<key>`.
#[derive(Debug)]
pub(crate) struct Masks {
    pub(crate) file: Checkpoint,
    /// Eight elements a byte (ours), or one (`torch.bool`).
    pub(crate) packed: bool,
}

/// Learnt query tokens. Published base models have none, so the mean of the experts is stored, not a task vector; our layout may have one.
pub const ACTION_QUERIES: &str = "action_queries.weight";

impl MergedCheckpoint {
    /// True when `dir` looks like a merged checkpoint of either layout.
    pub fn is_at(dir: &Path) -> bool {
        own::is_at(dir) || official::is_at(dir)
    }

    /// Opens a merged checkpoint of either layout.
    ///
    /// # Errors
    /// [`MergedError::Invalid`] naming the file, what is missing in it or contradicts another one, and the remedy;
    /// [`MergedError::Store`] for a file that cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, MergedError> {
        Self::open_with_base(dir, None)
    }

    /// As [`MergedCheckpoint::open`], with the pretrained model for checkpoints that do not hold it: those of the
    /// published code with masks, and ours merged with `--base reference` whose base has moved.
    ///
    /// # Errors
    /// As [`MergedCheckpoint::open`]; also when the checkpoint has no use for a base.
    pub fn open_with_base(dir: impl AsRef<Path>, base: Option<&Path>) -> Result<Self, MergedError> {
        let dir = dir.as_ref();
        let merged = if own::is_at(dir) {
            own::open(dir, base)?
        } else if official::is_at(dir) {
            official::open(dir, base)?
        } else {
            return Err(problem(
                dir,
                "not a merged checkpoint: it has neither skillweld.json nor task2idx.pt; give the directory that \
                 `skillweld merge` wrote",
            ));
        };
        merged.check()?;
        Ok(merged)
    }

    /// The directory that was opened.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of the tasks; their order is that of expert heads and masks.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// The index of a task by its name.
    ///
    /// # Errors
    /// [`MergedError::Invalid`] with the nearest name and all of them.
    pub fn task_index(&self, name: &str) -> Result<usize, MergedError> {
        if let Some(index) = self.tasks.iter().position(|task| task == name) {
            return Ok(index);
        }
        let hint = match nearest(name, self.tasks.iter().map(String::as_str)) {
            Some(task) => format!("; did you mean `{task}`? Its"),
            None => "; its".to_owned(),
        };
        let text = format!("there is no task `{name}`{hint} tasks are {}", self.tasks.join(", "));
        Err(problem(&self.dir, text))
    }

    /// `skillweld.json` as it stands: recipe, hashes, versions, report. Null for the published code's layout.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// True for a checkpoint of the published MergeVLA code.
    pub fn is_official(&self) -> bool {
        self.document.is_null()
    }

    /// True when each task has its own mask over τ; otherwise all tasks share the final weights.
    pub fn is_masked(&self) -> bool {
        self.masks.is_some()
    }

    /// True when the weights of a task cannot be told until the pretrained model is given with
    /// [`MergedCheckpoint::open_with_base`].
    pub fn needs_base(&self) -> bool {
        matches!(self.vector, Vector::Official { form: OfficialForm::Unknown, .. })
    }

    /// Every key of a task's model, sorted.
    pub fn keys(&self) -> BTreeSet<&str> {
        let vector = match &self.vector {
            Vector::Official { merged, .. } => Some(merged),
            Vector::None | Vector::Stored(_) => None,
        };
        self.weights.iter().chain(vector).flat_map(Checkpoint::keys).collect()
    }

    /// Elements of one task's model.
    pub fn elements(&self) -> u64 {
        let stored = |key| self.base(key).or_else(|| self.vector_of(key));
        self.keys().into_iter().filter_map(stored).map(|view| view.numel() as u64).sum()
    }

    /// Keys that have masks, sorted; the same for every task.
    pub fn masked_keys(&self) -> impl Iterator<Item = &str> {
        let first = self.tasks.first().map(|task| format!("{task}/")).unwrap_or_default();
        let names = self.masks.iter().flat_map(|masks| masks.file.keys());
        names.filter_map(move |name| name.strip_prefix(&first)).filter(|key| !is_rescaler(key))
    }

    /// Θ₀ under `key`, or the final weights when there are no masks; `None` when it is not there.
    pub fn base(&self, key: &str) -> Option<TensorView<'_>> {
        self.weights.iter().find_map(|checkpoint| checkpoint.get(key))
    }

    /// What is known of `key` for all tasks.
    ///
    /// # Errors
    /// [`MergedError::Invalid`] for a key that is not there, and when [`MergedCheckpoint::needs_base`].
    pub fn weight(&self, key: &str) -> Result<Weight<'_>, MergedError> {
        let base = self.base(key);
        let missing = || problem(&self.dir, format!("there is no tensor `{key}`"));
        let (merged, form, zeros) = match &self.vector {
            Vector::None => return base.map(Weight::Shared).ok_or_else(missing),
            Vector::Stored(vector) => {
                let base = base.ok_or_else(missing)?;
                return Ok(match vector.get(key) {
                    Some(vector) => Weight::Masked { base, vector: TaskVector::Stored(vector) },
                    None => Weight::Shared(base),
                });
            }
            Vector::Official { form: OfficialForm::Unknown, .. } => return Err(self.base_needed()),
            Vector::Official { merged, form, zeros } => (merged, *form, zeros),
        };
        let masked = !self.tasks.is_empty() && self.mask(0, key).is_some();
        Ok(match (merged.get(key), base) {
            (None, None) => return Err(missing()),
            (Some(only), None) | (None, Some(only)) => Weight::Shared(only),
            (Some(stored), Some(_)) if key == ACTION_QUERIES => Weight::Shared(stored),
            (Some(stored), Some(base)) => match (form, masked) {
                (OfficialForm::Dense, false) => Weight::Shared(stored),
                (OfficialForm::Dense, true) => {
                    Weight::Masked { base, vector: TaskVector::Difference(stored) }
                }
                (_, false) if zeros.is_zero(key, &stored) => Weight::Shared(base),
                // The published loader adds whatever is stored without a mask to every task.
                _ => Weight::Masked { base, vector: TaskVector::Stored(stored) },
            },
        })
    }

    /// The weight `key` of one task: Θ₀ + rescaler · M ⊙ τ.
    ///
    /// # Errors
    /// As [`MergedCheckpoint::weight`].
    ///
    /// # Panics
    /// When `task` is no index into [`MergedCheckpoint::tasks`].
    pub fn task_weight(&self, task: usize, key: &str) -> Result<TaskWeight<'_>, MergedError> {
        Ok(TaskWeight {
            weight: self.weight(key)?,
            mask: self.mask(task, key),
            rescaler: self.rescalers[task],
        })
    }

    /// True when tasks differ in the weight `key`: it has masks, or a τ without masks that each task's own rescaler scales.
    ///
    /// # Errors
    /// As [`MergedCheckpoint::weight`].
    pub fn depends_on_task(&self, key: &str) -> Result<bool, MergedError> {
        if matches!(self.weight(key)?, Weight::Shared(_)) {
            return Ok(false);
        }
        let rescaled = self.rescalers.windows(2).any(|pair| pair[0].to_bits() != pair[1].to_bits());
        Ok(rescaled || (0..self.tasks.len()).any(|task| self.mask(task, key).is_some()))
    }

    /// The mask of a task over `key`; `None` for keys that every task shares.
    ///
    /// # Panics
    /// When `task` is no index into [`MergedCheckpoint::tasks`].
    pub fn mask(&self, task: usize, key: &str) -> Option<Mask<'_>> {
        let masks = self.masks.as_ref()?;
        let view = masks.file.get(&format!("{}/{key}", self.tasks[task]))?;
        if masks.packed {
            let len = self.vector_of(key)?.numel();
            Mask::packed(view.bytes(), len)
        } else {
            Some(Mask::flags(view.bytes()))
        }
    }

    /// What a task's masked task vector is multiplied with (EMR); 1 for methods without.
    ///
    /// # Panics
    /// When `task` is no index into [`MergedCheckpoint::tasks`].
    pub fn rescaler(&self, task: usize) -> f32 {
        self.rescalers[task]
    }

    /// Tensors of an expert's part that all tasks share, by the name that the expert's own file has, sorted.
    pub fn shared_part(&self, part: ExpertPart) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.parts.shared(part)
    }

    /// Tensors of an expert's part that belong to one task alone (its expert head), by the name that the expert's own
    /// file has, sorted.
    ///
    /// # Panics
    /// When `task` is no index into [`MergedCheckpoint::tasks`].
    pub fn own_part(&self, part: ExpertPart, task: usize) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.parts.own(part, task)
    }

    /// The router's pairs of subspaces of a task, those of values before those of keys; empty without a router.
    ///
    /// # Panics
    /// When `task` is no index into [`MergedCheckpoint::tasks`].
    pub fn router(&self, task: usize) -> Vec<RouterSubspace<'_>> {
        self.parts.router(task)
    }

    /// Normalisation statistics of a task's data sets, by their names.
    ///
    /// # Panics
    /// When `task` is no index into [`MergedCheckpoint::tasks`].
    pub fn statistics(&self, task: usize) -> Option<&Map<String, Value>> {
        self.statistics[task].as_ref()
    }

    /// Every file that holds tensors of it, with what it is for.
    pub fn checkpoints(&self) -> impl Iterator<Item = (Role, &Checkpoint)> {
        let role = if self.is_official() { Role::Weights } else { Role::TaskVector };
        let vector = self.vector.file().map(|vector| (role, vector));
        let weights = self.weights.iter().map(|weights| (Role::Weights, weights));
        let masks = self.masks.iter().map(|masks| (Role::Masks, &masks.file));
        weights.chain(vector).chain(masks).chain(self.parts.files())
    }

    /// The stored form of τ, for its shape.
    fn vector_of(&self, key: &str) -> Option<TensorView<'_>> {
        self.vector.file()?.get(key)
    }

    fn base_needed(&self) -> MergedError {
        problem(
            &self.dir,
            "written by the published MergeVLA code, which keeps masks and merged task vector but not the pretrained \
             weights that they belong to; name that model with `--base PATH`",
        )
    }
}

/// What a file of a merged checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Θ₀, or the final weights; the whole model of the published code.
    Weights,
    /// τ.
    TaskVector,
    /// Task masks.
    Masks,
    /// Action expert and projectors.
    ActionExpert,
    /// The router's subspaces.
    Router,
}

/// True for the name, after `<task>/`, of a rescaler among masks: ours or the published code's.
pub(crate) fn is_rescaler(name: &str) -> bool {
    name == RESCALER || name == official::RESCALER
}
