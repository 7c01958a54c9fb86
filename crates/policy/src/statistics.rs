//! Dataset statistics: robot state into what the model knows, its actions back into the robot's units.

mod bounds;

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayRef2};
use serde_json::{Map, Value};
use skillweld_merged::is_one_data_set;
use skillweld_store::StoreError;

use crate::PolicyError;
pub use bounds::Bounds;
use bounds::Range;

/// `dataset_statistics.json`, or `norm_stats` of a `config.json`: statistics by dataset, in a merged checkpoint by task.
#[derive(Debug, Clone)]
pub struct DatasetStatistics {
    path: PathBuf,
    /// Name and contents. A file without the level of names has one entry with the empty name.
    datasets: Vec<(String, Map<String, Value>)>,
}

impl DatasetStatistics {
    /// Reads a file of statistics, with or without the level of dataset names.
    ///
    /// # Errors
    /// [`PolicyError::Store`] when it cannot be read or is no JSON; [`PolicyError::Checkpoint`] when it holds something
    /// else.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        let text = fs::read(path).map_err(StoreError::io("read", path))?;
        let json = serde_json::from_slice(&text)
            .map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
        Self::from_json(path, &json)
    }

    /// As [`DatasetStatistics::open`], from what has been read already; `path` says where, for errors.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when it does not hold statistics.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self, PolicyError> {
        let fail = |problem: String| PolicyError::Checkpoint { path: path.to_owned(), problem };
        let not_statistics = || {
            fail(
                "holds no dataset statistics; expected {dataset: {\"action\": …, \"proprio\": …}}".to_owned(),
            )
        };
        let object = json.as_object().filter(|object| !object.is_empty()).ok_or_else(not_statistics)?;
        let datasets = if is_one_data_set(object) {
            vec![(String::new(), object.clone())]
        } else {
            let named = object.iter().map(|(name, contents)| {
                let contents = contents.as_object().filter(|contents| contents.contains_key("action"));
                let contents =
                    contents.ok_or_else(|| fail(format!("`{name}` holds no `action` statistics")))?;
                Ok((name.clone(), contents.clone()))
            });
            named.collect::<Result<_, PolicyError>>()?
        };
        Ok(Self { path: path.to_owned(), datasets })
    }

    /// Names of the datasets or tasks, in the file's order; none where the file has no level of names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.datasets.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty())
    }

    /// The statistics under `name`: a task or dataset, also without the ending `_no_noops` that LIBERO's data sets have
    /// as converted for training. Without a name, the only ones. `bounds` says which ends of the data are −1 and 1;
    /// `None` leaves it to [`Bounds::of_dataset`].
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when there are none or several to choose from, or when they are incomplete.
    pub fn select(&self, name: Option<&str>, bounds: Option<Bounds>) -> Result<Statistics, PolicyError> {
        let fail = |problem: String| PolicyError::Checkpoint { path: self.path.clone(), problem };
        let (found, contents) = self.find(name).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            match name {
                Some(name) => fail(format!("no statistics of `{name}`; there are: {}", names.join(", "))),
                None => fail(format!("statistics of several datasets; name one of: {}", names.join(", "))),
            }
        })?;
        // A file without names is told apart by what the caller calls it.
        let shown = if found.is_empty() { name.unwrap_or("dataset") } else { found };
        let bounds = bounds.unwrap_or_else(|| Bounds::of_dataset(shown));
        let range = |part: &str, entry: &Value| {
            Range::from_json(entry, bounds)
                .map_err(|problem| fail(format!("`{part}` statistics of `{shown}`: {problem}")))
        };
        Ok(Statistics {
            name: shown.to_owned(),
            action: range("action", &contents["action"])?,
            proprio: contents.get("proprio").map(|entry| range("proprio", entry)).transpose()?,
        })
    }

    fn find(&self, name: Option<&str>) -> Option<(&str, &Map<String, Value>)> {
        let entry = |wanted: &str| self.datasets.iter().find(|(name, _)| name == wanted);
        let only = || self.datasets.first().filter(|_| self.datasets.len() == 1);
        let found = match name {
            Some(name) => entry(name)
                .or_else(|| entry(&format!("{name}_no_noops")))
                .or_else(|| only().filter(|(only, _)| only.is_empty())),
            None => only(),
        };
        found.map(|(name, contents)| (name.as_str(), contents))
    }
}

/// The statistics of one dataset or task.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    name: String,
    action: Range,
    proprio: Option<Range>,
}

impl Statistics {
    /// The dataset or task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions of an action.
    pub fn action_dim(&self) -> usize {
        self.action.len()
    }

    /// Dimensions of the robot's state; `None` when the statistics have none.
    pub fn proprio_dim(&self) -> Option<usize> {
        self.proprio.as_ref().map(Range::len)
    }

    /// The robot's state as the model takes it: clip(2 (x − low) / (high − low + 1e-8) − 1, −1, 1), in f64 as the
    /// published code computes it. Dimensions whose mask is false are only clipped.
    ///
    /// # Errors
    /// [`PolicyError::Observation`] when there are no statistics of states, the number of dimensions is wrong, or a value
    /// is NaN or infinite.
    pub fn normalize_proprio(&self, state: &[f64]) -> Result<Vec<f32>, PolicyError> {
        let Some(range) = &self.proprio else {
            return Err(PolicyError::Observation(format!(
                "state: the statistics of `{}` have no `proprio`, so none can be used",
                self.name
            )));
        };
        self.check_len("state", state.len(), range)?;
        if let Some(index) = state.iter().position(|value| !value.is_finite()) {
            return Err(PolicyError::Observation(format!(
                "state[{index}] is {}; every value must be finite",
                state[index]
            )));
        }
        Ok(range.normalize(state))
    }

    /// Actions in the robot's units from the model's: ½ (â + 1) (high − low + 1e-8) + low; dimensions whose mask is
    /// false stay as they are. f32 horizon × dimensions → the same. The first factor is f32 and the rest f64, as
    /// numpy computes it.
    ///
    /// # Errors
    /// [`PolicyError::Observation`] when the number of dimensions is wrong or a value is NaN or infinite.
    pub fn unnormalize_actions(&self, actions: &ArrayRef2<f32>) -> Result<Array2<f32>, PolicyError> {
        self.check_len("action", actions.ncols(), &self.action)?;
        if let Some(((step, dimension), value)) = actions.indexed_iter().find(|(_, value)| !value.is_finite())
        {
            return Err(PolicyError::Observation(format!(
                "action[{step}][{dimension}] came out as {value}: the weights or the inputs are not usable"
            )));
        }
        let mut out = actions.to_owned();
        for mut action in out.rows_mut() {
            for (dimension, value) in action.iter_mut().enumerate() {
                *value = self.action.unnormalize(dimension, *value);
            }
        }
        Ok(out)
    }

    fn check_len(&self, what: &str, len: usize, range: &Range) -> Result<(), PolicyError> {
        if len == range.len() {
            return Ok(());
        }
        Err(PolicyError::Observation(format!(
            "{what}: {len} dimensions, but the statistics of `{}` are of {}",
            self.name,
            range.len()
        )))
    }
}
