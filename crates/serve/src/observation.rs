//! From what clients send to what a policy takes.

mod error;
mod image;
mod keys;

pub use error::ObservationError;
pub(crate) use keys::Parts;
pub use keys::{KEY_SETS, KeySet};

use crate::Array;
use crate::options::Limits;
use crate::policy::{Metadata, Observation};
use crate::value::Value;

/// Applies the table of key sets and the policy's wishes to a map of observations.
///
/// # Errors
/// [`ObservationError`] naming the key, and what belongs there.
pub(crate) fn observation(
    request: Value,
    policy: &Metadata,
    limits: &Limits,
) -> Result<Observation, ObservationError> {
    let set = KeySet::of(&request)?;
    let images = set.images(&request, policy.images, limits)?;
    let state = match policy.state_dim {
        Some(dim) => set.state(&request, dim)?,
        None => Vec::new(),
    };
    let prompt = prompt(&request, set.prompt, policy.prompt, limits.prompt_bytes)?;
    let observation = Observation {
        images,
        state,
        prompt,
        task: task(&request, &policy.tasks)?,
        inference_delay: inference_delay(&request)?,
        prev_chunk_left_over: left_over(&request, policy)?,
        extra: Vec::new(),
    };
    let Value::Map(entries) = request else { return Ok(observation) };
    let known = |key: &str| set.knows(key) || CONTROL_KEYS.contains(&key);
    Ok(Observation { extra: entries.into_iter().filter(|(key, _)| !known(key)).collect(), ..observation })
}

/// Keys of a request that are no observation.
pub(crate) const CONTROL_KEYS: [&str; 4] = ["task", "reset", "inference_delay", "prev_chunk_left_over"];

/// Whether the request starts a new episode.
pub(crate) fn reset(request: &Value) -> Result<bool, ObservationError> {
    match request.get("reset") {
        None | Some(Value::Nil) => Ok(false),
        Some(Value::Bool(reset)) => Ok(*reset),
        Some(other) => Err(ObservationError::kind("reset", "true or false", other)),
    }
}

fn prompt(request: &Value, key: &str, needed: bool, limit: usize) -> Result<String, ObservationError> {
    // Some clients send a list of one, or a list of those.
    let mut value = request.get(key);
    while let Some(Value::List(values)) = value
        && let [only] = &**values
    {
        value = Some(only);
    }
    let prompt = match value {
        Some(Value::Text(prompt)) => prompt,
        None | Some(Value::Nil) if !needed => return Ok(String::new()),
        None => {
            return Err(ObservationError::MissingKey {
                key: key.into(),
                expected: "the instruction, as text",
            });
        }
        Some(other) => return Err(ObservationError::kind(key, "the instruction, as text", other)),
    };
    if prompt.len() > limit {
        return Err(ObservationError::LongPrompt { key: key.into(), bytes: prompt.len(), limit });
    }
    if needed && prompt.trim().is_empty() {
        return Err(ObservationError::EmptyPrompt { key: key.into() });
    }
    Ok(prompt.clone())
}

fn task(request: &Value, tasks: &[String]) -> Result<Option<String>, ObservationError> {
    match request.get("task") {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Text(task)) if tasks.contains(task) => Ok(Some(task.clone())),
        Some(Value::Text(task)) => Err(ObservationError::UnknownTask {
            task: task.chars().take(80).collect(),
            known: tasks.to_vec(),
        }),
        Some(other) => Err(ObservationError::kind("task", "the name of a task", other)),
    }
}

fn inference_delay(request: &Value) -> Result<Option<usize>, ObservationError> {
    let expected = "how many control steps pass, an integer from 0";
    match request.get("inference_delay") {
        None | Some(Value::Nil) => Ok(None),
        Some(value @ Value::Int(steps)) => match usize::try_from(*steps) {
            Ok(steps) => Ok(Some(steps)),
            Err(_) => Err(ObservationError::kind("inference_delay", expected, value)),
        },
        Some(other) => Err(ObservationError::kind("inference_delay", expected, other)),
    }
}

fn left_over(request: &Value, policy: &Metadata) -> Result<Option<Array>, ObservationError> {
    const KEY: &str = "prev_chunk_left_over";
    let (most, dim) = (policy.action_horizon, policy.action_dim);
    match request.get(KEY) {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Array(array)) if matches!(*array.shape(), [rows, columns] if rows <= most && columns == dim) =>
        {
            finite(KEY, &array.to_f32())?;
            Ok(Some(array.clone()))
        }
        Some(other) => Err(ObservationError::Kind {
            key: KEY.into(),
            expected: format!("an array of at most {most} rows × {dim} numbers"),
            found: other.describe(),
        }),
    }
}

/// Refuses NaN and infinity.
fn finite(key: &str, numbers: &[f32]) -> Result<(), ObservationError> {
    match numbers.iter().position(|number| !number.is_finite()) {
        None => Ok(()),
        Some(index) => Err(ObservationError::NotFinite { key: key.into(), index }),
    }
}
