use std::num::NonZeroUsize;
use std::path::PathBuf;

use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;
use skillweld_retain::{Alphas, Interpolation, Keep, Method, Pair};

use crate::watched::{Log, watched};
use crate::{Error, error, registry};

/// How to interpolate, as the Python half says it: the command's options by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    alpha: Option<f64>,
    alpha_vision: Option<f64>,
    alpha_language: Option<f64>,
    alpha_action: Option<f64>,
    preset: Option<String>,
    method: Method,
    density: Option<f64>,
    seed: u64,
    dtype: Option<String>,
    statistics: Option<Keep>,
}

impl Options {
    fn interpolation(self) -> PyResult<Interpolation> {
        let general = match (self.preset.as_deref(), self.alpha) {
            (None, Some(alpha)) => Alphas::all(alpha),
            (Some("language-only"), None) => Alphas::LANGUAGE_ONLY,
            (Some(_), Some(_)) => return Err(Error::new_err("give alpha or a preset, not both")),
            (Some(other), None) => {
                return Err(Error::new_err(format!(
                    "no preset is called `{other}`; there is `language-only`"
                )));
            }
            (None, None) => return Err(Error::new_err("alpha is missing: how far to go, from 0 to 1")),
        };
        let alpha = Alphas {
            vision: self.alpha_vision.unwrap_or(general.vision),
            language: self.alpha_language.unwrap_or(general.language),
            action: self.alpha_action.unwrap_or(general.action),
            other: general.other,
        };
        let Self { method, density, seed, dtype, statistics, .. } = self;
        let interpolation = Interpolation { alpha, method, density, seed, dtype, statistics };
        interpolation.check().map_err(|e| error(&e))?;
        Ok(interpolation)
    }
}

/// Interpolates between two policies and gives the report as JSON, and what plugins logged. `options` is JSON.
#[pyfunction]
#[pyo3(signature = (base, finetuned, out, options, plugins, bundled, threads, force, progress))]
#[allow(clippy::too_many_arguments, reason = "called by the Python half alone, which names them")]
pub(crate) fn retain(
    py: Python<'_>,
    base: PathBuf,
    finetuned: PathBuf,
    out: PathBuf,
    options: String,
    plugins: Vec<PathBuf>,
    bundled: PathBuf,
    threads: Option<NonZeroUsize>,
    force: bool,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(String, Log)> {
    let options: Options = serde_json::from_str(&options).map_err(|e| Error::new_err(e.to_string()))?;
    let interpolation = options.interpolation()?;
    let registry = registry(&plugins, bundled)?;
    watched(py, threads, progress.as_ref(), |control, total| {
        let pair = Pair::open(&base, &finetuned, &interpolation).map_err(|e| error(&e))?;
        let step = pair.plan(&registry, control).map_err(|e| error(&e))?;
        total(step.work());
        let done = step.run(&out, force, control).map_err(|e| error(&e))?;
        let document = json!({
            "output": out,
            "interpolation": interpolation,
            "statistics": done.statistics,
            "base_blake3": done.base,
            "finetuned_blake3": done.finetuned,
            "result_blake3": done.result,
            "report": done.report,
        });
        Ok(document.to_string())
    })
}
