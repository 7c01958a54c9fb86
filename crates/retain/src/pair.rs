use std::path::{Path, PathBuf};

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, Models, Plan};
use skillweld_merged::layout::stem;
use skillweld_plugin_host::Registry;
use skillweld_store::{Checkpoint, is_normalisation_buffer, is_unused};

use crate::recipe::recipe;
use crate::statistics::{Statistics, choose};
use crate::{Interpolation, Keep, Method, RetainError, Step};

/// A pretrained and a finetuned policy, opened, and what is to be done with them.
#[derive(Debug)]
pub struct Pair {
    pub(crate) base: PathBuf,
    pub(crate) finetuned: PathBuf,
    pub(crate) interpolation: Interpolation,
    pub(crate) keep: Option<Keep>,
    pub(crate) base_statistics: Statistics,
    pub(crate) finetuned_statistics: Statistics,
    pub(crate) note: Option<String>,
    recipe: Recipe,
    models: Models,
}

impl Pair {
    /// Opens both: folders as training leaves them, or files of weights. The finetuned one may be a PEFT adapter on the
    /// base. Reads headers and statistics, no weights.
    ///
    /// # Errors
    /// Numbers out of range, the same policy twice, policies of different families (π0 and π0.5 among them), statistics
    /// that differ where `interpolation` does not say whose to keep, whatever cannot be read.
    pub fn open(base: &Path, finetuned: &Path, interpolation: &Interpolation) -> Result<Self, RetainError> {
        interpolation.check()?;
        [base, finetuned].into_iter().try_for_each(refuse_merged)?;
        if real(base)? == real(finetuned)? {
            return Err(RetainError::SameModel { path: finetuned.to_owned() });
        }
        // Whether they go together at all comes before anything about their statistics.
        let models = Models::open(&recipe(base, finetuned, interpolation, None)?)?;
        let (base_statistics, finetuned_statistics) = (Statistics::open(base)?, Statistics::open(finetuned)?);
        let (keep, note) = choose(&base_statistics, &finetuned_statistics, interpolation.statistics)?;
        Ok(Self {
            base: base.to_owned(),
            finetuned: finetuned.to_owned(),
            interpolation: interpolation.clone(),
            keep,
            base_statistics,
            finetuned_statistics,
            note,
            recipe: recipe(base, finetuned, interpolation, keep)?,
            models,
        })
    }

    /// Decides what happens to every tensor.
    ///
    /// # Errors
    /// A method that is not installed, a finetuned policy that lacks tensors. Tensors that cannot be interpolated are
    /// listed as refused in the plan, and [`Step::check`] fails.
    pub fn plan<'a>(
        &'a self,
        registry: &'a Registry,
        control: &Control<'a>,
    ) -> Result<Step<'a>, RetainError> {
        if self.interpolation.method == Method::Dare {
            self.check_complete()?;
        }
        let plan = Plan::new(&self.recipe, &self.models, registry, control)?;
        Ok(Step { pair: self, plan })
    }

    /// A merge of task vectors takes a tensor that no expert has for one that nobody trained: fine among many experts, not
    /// between two policies.
    fn check_complete(&self) -> Result<(), RetainError> {
        // An adapter has every tensor of its base.
        let Ok(finetuned) = Checkpoint::open(&self.finetuned) else { return Ok(()) };
        let base = Checkpoint::open(&self.base)?;
        let needed = |key: &&str| !is_normalisation_buffer(key) && !is_unused(key);
        let missing: Vec<&str> =
            base.keys().filter(needed).filter(|key| finetuned.resolve(key).is_none()).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let (first, count) = ((*first).to_owned(), missing.len());
        Err(RetainError::Missing { path: self.finetuned.clone(), first, count })
    }
}

/// Merged checkpoints keep their action experts elsewhere than plain ones do.
fn refuse_merged(path: &Path) -> Result<(), RetainError> {
    if !["safetensors", "safetensors.index.json"]
        .iter()
        .any(|end| path.join(format!("{}.{end}", stem::ACTION_EXPERT)).is_file())
    {
        return Ok(());
    }
    let problem =
        "is a merged checkpoint; write one task's policy with `skillweld materialize` and take that"
            .to_owned();
    Err(RetainError::Unfit { path: path.to_owned(), problem })
}

/// Where a policy really lies.
pub(crate) fn real(path: &Path) -> Result<PathBuf, RetainError> {
    path.canonicalize().map_err(|_| RetainError::Unfit {
        path: path.to_owned(),
        problem: "is not there; policies are local paths, and a Hugging Face id has to be downloaded first: \
                  `hf download ID --local-dir DIR`"
            .to_owned(),
    })
}
