//! The native half of the Python package `skillweld`; the other half, in `skillweld/`, gives it its form.
//!
//! Long work runs on threads of its own without the interpreter's lock, while the calling thread reports progress and looks
//! for signals: Ctrl-C stops a merge as it does in the program.

#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod arrays;
mod checkpoint;
mod convert;
mod merge;
mod retain;
mod watched;

use std::error::Error as StdError;
use std::path::PathBuf;

use pyo3::prelude::*;
use skillweld_plugin_host::Registry;

pyo3::create_exception!(
    skillweld,
    Error,
    pyo3::exceptions::PyException,
    "What Skillweld refuses or cannot do: what, where, and the remedy."
);

/// The error and its causes in one line; a cause that its consequence already quotes is not said twice.
fn error(error: &dyn StdError) -> PyErr {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        cause = inner.source();
    }
    Error::new_err(text)
}

/// `extra` before the plugins of the wheel (`bundled`), and `$SKILLWELD_PLUGINS` after them.
fn registry(extra: &[PathBuf], bundled: PathBuf) -> PyResult<Registry> {
    let variable = std::env::var_os("SKILLWELD_PLUGINS").unwrap_or_default();
    let named = std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty());
    let search_path: Vec<PathBuf> = std::iter::once(bundled).chain(named).collect();
    Registry::discover_in(extra, &search_path).map_err(|e| error(&e))
}

/// id, kind, version, summary, citation and JSON Schema of each method.
type MethodRow = (String, String, String, String, String, String);

#[pyfunction]
fn methods(extra: Vec<PathBuf>, bundled: PathBuf) -> PyResult<Vec<MethodRow>> {
    let registry = registry(&extra, bundled)?;
    let rows = registry.iter().map(|method| {
        let text = |text: &str| text.to_owned();
        (
            text(method.id()),
            method.kind().to_string(),
            text(method.version()),
            text(method.summary()),
            text(method.citation()),
            text(method.schema()),
        )
    });
    Ok(rows.collect())
}

#[pymodule]
fn _skillweld(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", module.py().get_type::<Error>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<checkpoint::Checkpoint>()?;
    module.add_class::<checkpoint::Weights>()?;
    module.add_function(wrap_pyfunction!(checkpoint::open, module)?)?;
    module.add_function(wrap_pyfunction!(merge::merge, module)?)?;
    module.add_function(wrap_pyfunction!(retain::retain, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::merge_arrays, module)?)?;
    module.add_function(wrap_pyfunction!(methods, module)?)
}
