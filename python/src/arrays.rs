//! One tensor merged in memory, through the plugins.

use std::path::PathBuf;

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use serde_json::{Map, Value};
use skillweld_plugin_host::{
    BlockInputs, Bound as BoundMethod, ExpertBlock, HostHooks, Method, PluginError, flags,
};
use skillweld_spelling::nearest;

use crate::{Error, error, registry};

/// `params` is a JSON object; a list there has a value for each expert. Arrays are float32, of one shape.
#[pyfunction]
#[pyo3(signature = (method, base, experts, params, seed, plugins, bundled))]
#[allow(clippy::too_many_arguments, reason = "called by the Python half alone, which names them")]
pub(crate) fn merge_arrays<'py>(
    py: Python<'py>,
    method: &str,
    base: Option<PyReadonlyArrayDyn<'py, f32>>,
    experts: Vec<PyReadonlyArrayDyn<'py, f32>>,
    params: &str,
    seed: u64,
    plugins: Vec<PathBuf>,
    bundled: PathBuf,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let registry = registry(&plugins, bundled)?;
    let method = registry.merge(method).map_err(|e| error(&e))?;
    let params: Map<String, Value> = serde_json::from_str(params).map_err(|e| error(&e))?;
    check_params(method, &params, experts.len())?;
    let Some(shape) = experts.first().map(|expert| expert.shape().to_vec()) else {
        return Err(Error::new_err("there are no experts to merge"));
    };
    let all = experts.iter().chain(&base);
    if let Some(other) = all.map(|array| array.shape()).find(|other| *other != shape) {
        return Err(Error::new_err(format!("arrays must have one shape, not {shape:?} and {other:?}")));
    }
    let values =
        |array: &PyReadonlyArrayDyn<'py, f32>| array.as_array().iter().copied().collect::<Vec<f32>>();
    let base = base.as_ref().map(values);
    let mut experts: Vec<Vec<f32>> = experts.iter().map(values).collect();
    let named = experts.iter().enumerate().map(|(k, expert)| (format!("expert {k}"), expert));
    for (name, values) in named.chain(base.iter().map(|base| ("the base".to_owned(), base))) {
        if let Some(element) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::new_err(format!("{name} holds NaN or infinity, first at element {element}")));
        }
    }
    if method.has(flags::NEEDS_STATISTICS) {
        return Err(Error::new_err(format!(
            "merge method `{}` weighs experts by statistics from files: use `merge` with a recipe",
            method.id()
        )));
    }
    if method.only_matrices() && shape.len() != 2 {
        return Err(Error::new_err(format!(
            "merge method `{}` merges matrices alone, not arrays of shape {shape:?}",
            method.id()
        )));
    }
    if method.needs_base_model() && base.is_none() {
        return Err(Error::new_err(format!("merge method `{}` needs a base", method.id())));
    }
    let merged = py.detach(|| run(method, base.as_deref(), &mut experts, &params, (&shape, seed)));
    PyArray1::from_vec(py, merged.map_err(|e| error(&e))?).reshape(shape)
}

/// Every parameter is the method's, and a list has a value for each expert. Types and ranges are checked by `bind`.
fn check_params(method: &Method, params: &Map<String, Value>, experts: usize) -> PyResult<()> {
    for spec in method.params().iter().filter(|spec| spec.per_expert) {
        if let Some(list) = params.get(&spec.name).and_then(Value::as_array)
            && list.len() != experts
        {
            let (name, len) = (&spec.name, list.len());
            return Err(Error::new_err(format!(
                "`{name}` has {len} values for {experts} experts; give one for each"
            )));
        }
    }
    let known: Vec<&str> = method.params().iter().map(|spec| spec.name.as_str()).collect();
    let Some(name) = params.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let hint = nearest(name, known.iter().copied()).map(|name| format!("; did you mean `{name}`?"));
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Error::new_err(format!(
        "{} has no parameter `{name}`{} Its parameters: {known}",
        method.id(),
        hint.unwrap_or_else(|| ".".to_owned())
    )))
}

/// The tensor in one block: all passes of the method, then the method. Gives weights: Θ₀ + τ for a method on task vectors.
fn run(
    method: &Method,
    base: Option<&[f32]>,
    experts: &mut [Vec<f32>],
    params: &Map<String, Value>,
    (shape, seed): (&[usize], u64),
) -> Result<Vec<f32>, PluginError> {
    let on_base = base.filter(|_| method.takes_task_vectors());
    if let Some(base) = on_base {
        for expert in experts.iter_mut() {
            expert.iter_mut().zip(base).for_each(|(value, base)| *value -= base);
        }
    }
    let bound: BoundMethod = method.bind(experts.len(), &HostHooks::SILENT, |spec, expert| {
        let value = params.get(&spec.name);
        Ok::<_, PluginError>(match (value, expert) {
            (Some(Value::Array(list)), Some(expert)) => list.get(expert).cloned(),
            (value, _) => value.cloned(),
        })
    })?;
    let len = shape.iter().product();
    let blocks: Vec<ExpertBlock<'_>> = experts.iter().map(|expert| ExpertBlock::Dense(expert)).collect();
    let inputs = BlockInputs {
        key: "array",
        shape,
        offset: 0,
        len,
        experts: &blocks,
        statistics: &[],
        base,
        merged: None,
        seed,
        hooks: &HostHooks::SILENT,
    };
    let plan = bound.plan();
    let mut scratch = vec![0.0; plan.scratch_per_element * len];
    let mut totals = Vec::with_capacity(plan.totals_len());
    for (pass, &sums_len) in plan.sums_len.iter().enumerate() {
        let mut sums = vec![0.0; sums_len];
        if bound.observe(&inputs, pass, &totals, &mut sums, &mut scratch)?.is_break() {
            sums.fill(0.0);
        }
        totals.append(&mut sums);
    }
    let mut merged = vec![0.0; len];
    bound.run(&inputs, &totals, &mut merged, &mut scratch)?;
    if let Some(base) = on_base {
        merged.iter_mut().zip(base).for_each(|(value, base)| *value += base);
    }
    Ok(merged)
}
