//! What a policy answers.

use std::time::Duration;

use skillweld_robot::{Chunk, ChunkError, Routing};
use skillweld_serve::{Array, Value};

use crate::local::duration;

/// One action a row.
pub(crate) fn actions(array: &Array) -> Result<Vec<Vec<f64>>, ChunkError> {
    let &[_, dim] = array.shape() else {
        let problem = format!("the policy's actions have shape {:?}, not horizon × numbers", array.shape());
        return Err(ChunkError::Failed(problem));
    };
    let numbers = array.to_f64();
    Ok(numbers.chunks(dim.max(1)).map(<[f64]>::to_vec).collect())
}

/// A server's answer to an observation.
pub(crate) fn read(message: &Value) -> Result<Chunk, ChunkError> {
    let actions = match message.get("actions") {
        Some(Value::Array(array)) => actions(array)?,
        Some(other) => {
            return Err(ChunkError::Failed(format!(
                "the server's `actions` are {}, not an array",
                other.describe()
            )));
        }
        None => return Err(ChunkError::Failed("the server's answer has no `actions`".to_owned())),
    };
    Ok(Chunk { actions, routing: message.get("routing").and_then(routing), timing: timing(message) })
}

/// Which task ran, from servers that say so.
fn routing(value: &Value) -> Option<Routing> {
    let text = |key: &str| value.get(key).and_then(Value::as_text).map(str::to_owned);
    let margin = match value.get("margin") {
        Some(Value::Float(margin)) => Some(*margin),
        _ => None,
    };
    Some(Routing { task: text("task")?, reason: text("reason").unwrap_or_default(), margin })
}

/// Stages of `policy_timing` and `server_timing`, whose names end in `_ms`.
fn timing(message: &Value) -> Vec<(String, Duration)> {
    let maps = ["policy_timing", "server_timing"].into_iter().filter_map(|key| match message.get(key) {
        Some(Value::Map(entries)) => Some(entries),
        _ => None,
    });
    let stage = |(name, value): &(String, Value)| match value {
        Value::Float(ms) if name.ends_with("_ms") => Some((name.clone(), duration(*ms))),
        _ => None,
    };
    maps.flatten().filter_map(stage).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn map(entries: Vec<(&str, Value)>) -> Value {
        Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    #[test]
    fn answers_are_read() {
        let array = Array::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let answer = map(vec![
            ("actions", array.into()),
            (
                "server_timing",
                map(vec![("infer_ms", 250.0.into()), ("note", "x".into()), ("bad_ms", f64::NAN.into())]),
            ),
            (
                "routing",
                map(vec![("task", "pick".into()), ("reason", "routed".into()), ("margin", 0.5.into())]),
            ),
        ]);
        let chunk = read(&answer).unwrap();
        assert_eq!(chunk.actions, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let routing = Routing { task: "pick".into(), reason: "routed".into(), margin: Some(0.5) };
        assert_eq!(chunk.routing, Some(routing));
        let timing =
            [("infer_ms".to_owned(), Duration::from_millis(250)), ("bad_ms".to_owned(), Duration::ZERO)];
        assert_eq!(chunk.timing, timing);
    }

    #[test]
    fn answers_without_actions_are_refused() {
        let flat = Array::from_f32(&[3], &[1.0, 2.0, 3.0]).unwrap();
        for (answer, said) in [
            (map(vec![]), "no `actions`"),
            (map(vec![("actions", 1.0.into())]), "a number"),
            (map(vec![("actions", flat.into())]), "[3]"),
        ] {
            let error = read(&answer).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
