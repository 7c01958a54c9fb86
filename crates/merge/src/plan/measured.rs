//! Statistics of experts, which methods such as `fisher` weigh them by: whether they are there and fit.

use skillweld_plugin_host::flags;
use skillweld_store::Checkpoint;
use skillweld_tensor::TensorView;

use super::PlannedTensor;
use super::build::Context;
use super::check::subject;
use crate::MergeError;
use crate::models::Model;

/// The statistics of each expert for a tensor; all `None` where the method needs none.
type Measured<'a> = Vec<Option<TensorView<'a>>>;

impl<'a> Context<'a> {
    fn needs_statistics(&self) -> bool {
        self.method.has(flags::NEEDS_STATISTICS)
    }

    /// Checks which models have statistics; gives notes on what is not read.
    ///
    /// # Errors
    /// [`MergeError::NoStatistics`] when an expert has none though the method needs them; [`MergeError::Unfit`] when they
    /// are of another model.
    pub(super) fn check_statistics(&self) -> Result<Vec<String>, MergeError> {
        let is_expert = |index: &usize| self.tasks.contains(index);
        let (experts, others): (Vec<usize>, Vec<usize>) = (0..self.models.all.len()).partition(is_expert);
        let models = |of: &[usize]| of.iter().map(|&i| &self.models.all[i]).collect::<Vec<_>>();
        let (experts, others) = (models(&experts), models(&others));
        let names = |of: &[&Model], with: bool| -> Vec<String> {
            of.iter()
                .filter(|model| model.statistics.is_some() == with)
                .map(|model| model.name.clone())
                .collect()
        };
        let unread =
            |names: &[String], why: &str| format!("`statistics` of {} are not read: {why}", names.join(", "));
        let mut notes = Vec::new();
        if !self.needs_statistics() {
            let idle = [names(&experts, true), names(&others, true)].concat();
            if !idle.is_empty() {
                notes.push(unread(&idle, &format!("`{}` uses none", self.method.id())));
            }
            return Ok(notes);
        }
        let missing = names(&experts, false);
        if !missing.is_empty() {
            return Err(MergeError::NoStatistics { method: self.method.id().to_owned(), models: missing });
        }
        let idle = names(&others, true);
        if !idle.is_empty() {
            notes.push(unread(&idle, "only experts are weighed"));
        }
        for model in experts {
            notes.extend(unknown_keys(model)?);
        }
        Ok(notes)
    }

    /// The statistics that the method wants of a tensor, given its experts with their names for it. `None` when no expert
    /// has any of this tensor.
    ///
    /// # Errors
    /// Why it cannot be merged: some experts have statistics of it and others not, or they do not fit.
    pub(super) fn measured(
        &self,
        experts: &[(&'a Model, &str)],
        shape: &[usize],
    ) -> Result<Option<Measured<'a>>, String> {
        if !self.needs_statistics() {
            return Ok(Some(vec![None; experts.len()]));
        }
        let found: Measured<'a> = experts.iter().map(|(model, key)| of_key(model, key)).collect();
        let having = |with: bool| -> Vec<&str> {
            let fitting = experts.iter().zip(&found).filter(|(_, found)| found.is_some() == with);
            fitting.map(|((model, _), _)| model.name.as_str()).collect()
        };
        if found.iter().all(Option::is_none) {
            return Ok(None);
        }
        if found.iter().any(Option::is_none) {
            return Err(format!(
                "missing in the statistics of {}, though {} it; all experts' need it, or none",
                having(false).join(", "),
                subject(&having(true), "has", "have")
            ));
        }
        let (wanted, why) = match shape {
            [_, columns] if self.method.has(flags::MATRIX) => {
                (vec![*columns; 2], "one row and one column for each of its inputs")
            }
            _ => (shape.to_vec(), "that of the tensor"),
        };
        for ((model, _), view) in experts.iter().zip(found.iter().flatten()) {
            if view.shape() != wanted {
                return Err(format!(
                    "its statistics of {} have shape {:?}, needed is {wanted:?}, {why}",
                    model.name,
                    view.shape()
                ));
            }
            if !view.dtype().is_computable() {
                return Err(format!(
                    "its statistics of {} are {}; store a float type",
                    model.name,
                    view.dtype()
                ));
            }
        }
        Ok(Some(found))
    }

    /// No expert has statistics of the tensor, though the method would use them.
    pub(super) fn is_unmeasured(&self, tensor: &PlannedTensor<'_>) -> bool {
        let experts = || self.tasks.iter().map(|&i| &self.models.all[i]);
        self.needs_statistics()
            && (!self.method.only_matrices() || tensor.shape.len() == 2)
            && experts().all(|model| of_key(model, &tensor.key).is_none())
    }
}

fn of_key<'a>(model: &'a Model, key: &str) -> Option<TensorView<'a>> {
    let statistics = model.statistics.as_ref()?;
    // Measured under one of a tied weight's names, asked for under the other.
    statistics.get(key).or_else(|| statistics.get(model.weights.resolve(key)?))
}

/// A note on statistics that are of no tensor of their model.
fn unknown_keys(model: &Model) -> Result<Option<String>, MergeError> {
    let Some(statistics) = &model.statistics else { return Ok(None) };
    let keys = model.keys();
    let known = |key: &&str| keys.contains(key) || model.weights.resolve(key).is_some();
    let (known, unknown): (Vec<&str>, Vec<&str>) = statistics.keys().partition(known);
    match (&known[..], &unknown[..]) {
        (_, []) => Ok(None),
        ([], [first, ..]) => Err(unfit(statistics, model, first, keys.first().copied().unwrap_or_default())),
        (_, [first, more @ ..]) => {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            Ok(Some(format!(
                "not read, because {} has no such tensor: statistics of {first}{more}",
                model.name
            )))
        }
    }
}

fn unfit(statistics: &Checkpoint, model: &Model, key: &str, example: &str) -> MergeError {
    let problem = format!(
        "holds statistics of no tensor of {}: they are named like `{key}`, its tensors like `{example}`; give them the tensors' names",
        model.name
    );
    MergeError::Unfit { path: statistics.path().to_owned(), problem }
}
