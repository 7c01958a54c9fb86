use std::path::PathBuf;

use numpy::PyUntypedArray;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use skillweld_merged::{MergedCheckpoint, TaskWeight};
use skillweld_spelling::nearest;
use skillweld_tensor::TensorView;

use crate::convert::{array, task_array};
use crate::error;

/// Tensors of a checkpoint by key, read when asked for.
#[pyclass(frozen, module = "skillweld")]
pub(crate) struct Checkpoint {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Plain(skillweld_store::Checkpoint),
    Merged(Box<MergedCheckpoint>),
}

/// Opens a model, a file of tensors, or a merged checkpoint; `base` is the pretrained model of those that do not hold it.
#[pyfunction]
#[pyo3(signature = (path, base=None))]
pub(crate) fn open(path: PathBuf, base: Option<PathBuf>) -> PyResult<Checkpoint> {
    let kind = if MergedCheckpoint::is_at(&path) || base.is_some() {
        let merged = MergedCheckpoint::open_with_base(&path, base.as_deref());
        Kind::Merged(Box::new(merged.map_err(|e| error(&e))?))
    } else {
        Kind::Plain(skillweld_store::Checkpoint::open(&path).map_err(|e| error(&e))?)
    };
    Ok(Checkpoint { path, kind })
}

impl Checkpoint {
    fn names(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Plain(checkpoint) => checkpoint.keys().collect(),
            Kind::Merged(merged) => merged.keys().into_iter().collect(),
        }
    }

    fn missing(&self, key: &str) -> PyErr {
        let hint = nearest(key, self.names()).map(|key| format!("; did you mean `{key}`?"));
        PyKeyError::new_err(format!(
            "there is no tensor `{key}` in {}{}",
            self.path.display(),
            hint.unwrap_or_default()
        ))
    }

    fn view(&self, key: &str) -> PyResult<TensorView<'_>> {
        let view = match &self.kind {
            Kind::Plain(checkpoint) => checkpoint.resolve(key).and_then(|key| checkpoint.get(key)),
            Kind::Merged(merged) if merged.keys().contains(key) => {
                Some(merged.weight(key).map_err(|e| error(&e))?.stored())
            }
            Kind::Merged(_) => None,
        };
        view.ok_or_else(|| self.missing(key))
    }

    fn merged(&self) -> PyResult<&MergedCheckpoint> {
        match &self.kind {
            Kind::Merged(merged) => Ok(merged),
            Kind::Plain(_) => Err(crate::Error::new_err(format!(
                "{} is no merged checkpoint, so it has no tasks",
                self.path.display()
            ))),
        }
    }
}

#[pymethods]
impl Checkpoint {
    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[getter]
    fn tasks(&self) -> Vec<String> {
        match &self.kind {
            Kind::Plain(_) => Vec::new(),
            Kind::Merged(merged) => merged.tasks().to_vec(),
        }
    }

    fn keys(&self) -> Vec<String> {
        self.names().into_iter().map(str::to_owned).collect()
    }

    fn __len__(&self) -> usize {
        self.names().len()
    }

    fn __contains__(&self, key: &str) -> bool {
        match &self.kind {
            Kind::Plain(checkpoint) => checkpoint.resolve(key).is_some(),
            Kind::Merged(merged) => merged.keys().contains(key),
        }
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Bound<'py, PyUntypedArray>> {
        array(py, &self.view(key)?)
    }

    fn dtype(&self, key: &str) -> PyResult<String> {
        Ok(self.view(key)?.dtype().name().to_owned())
    }

    fn shape(&self, key: &str) -> PyResult<Vec<usize>> {
        Ok(self.view(key)?.shape().to_vec())
    }

    fn weights(slf: Py<Self>, task: &str) -> PyResult<Weights> {
        let task = slf.get().merged()?.task_index(task).map_err(|e| error(&e))?;
        Ok(Weights { checkpoint: slf, task })
    }

    fn __repr__(&self) -> String {
        let tasks = match &self.kind {
            Kind::Plain(_) => String::new(),
            Kind::Merged(merged) => format!(", tasks {}", merged.tasks().join(", ")),
        };
        format!("<skillweld.Checkpoint {}: {} tensors{tasks}>", self.path.display(), self.names().len())
    }
}

/// One task's model out of a merged checkpoint: Θ₀ + rescaler · M ⊙ τ.
#[pyclass(frozen, module = "skillweld")]
pub(crate) struct Weights {
    checkpoint: Py<Checkpoint>,
    task: usize,
}

impl Weights {
    fn weight(&self, key: &str) -> PyResult<TaskWeight<'_>> {
        let checkpoint = self.checkpoint.get();
        let merged = checkpoint.merged()?;
        if !merged.keys().contains(key) {
            return Err(checkpoint.missing(key));
        }
        merged.task_weight(self.task, key).map_err(|e| error(&e))
    }
}

#[pymethods]
impl Weights {
    #[getter]
    fn task(&self) -> PyResult<String> {
        Ok(self.checkpoint.get().merged()?.tasks()[self.task].clone())
    }

    fn keys(&self) -> Vec<String> {
        self.checkpoint.get().keys()
    }

    fn __len__(&self) -> usize {
        self.checkpoint.get().__len__()
    }

    fn __contains__(&self, key: &str) -> bool {
        self.checkpoint.get().__contains__(key)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Bound<'py, PyUntypedArray>> {
        task_array(py, &self.weight(key)?)
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("<skillweld.Weights of task {}: {} tensors>", self.task()?, self.__len__()))
    }
}
