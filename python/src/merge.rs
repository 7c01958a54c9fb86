use std::num::NonZeroUsize;
use std::path::PathBuf;

use pyo3::prelude::*;
use serde_json::json;
use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Models, Plan, RunOptions};

use crate::watched::{Log, watched};
use crate::{error, registry};

/// Runs the recipe (a file, or with `is_text` a recipe itself) and gives the report as JSON, and what plugins logged.
#[pyfunction]
#[pyo3(signature = (recipe, is_text, out, plugins, bundled, threads, force, progress))]
#[allow(clippy::too_many_arguments, reason = "called by the Python half alone, which names them")]
pub(crate) fn merge(
    py: Python<'_>,
    recipe: String,
    is_text: bool,
    out: PathBuf,
    plugins: Vec<PathBuf>,
    bundled: PathBuf,
    threads: Option<NonZeroUsize>,
    force: bool,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(String, Log)> {
    let recipe = if is_text { Recipe::parse(&recipe) } else { Recipe::read(recipe.as_ref()) };
    let recipe = recipe.map_err(|e| error(&e))?;
    let registry = registry(&plugins, bundled)?;
    watched(py, threads, progress.as_ref(), |control, total| {
        let models = Models::open(&recipe).map_err(|e| error(&e))?;
        let plan = Plan::new(&recipe, &models, &registry, control).map_err(|e| error(&e))?;
        total(plan.work());
        let options = RunOptions { force, ..RunOptions::default() };
        let report = plan.run(&out, options, control).map_err(|e| error(&e))?;
        let summary = plan.summary();
        let document = json!({"output": out, "tasks": summary.tasks, "base": report.base, "report": report});
        Ok(document.to_string())
    })
}
