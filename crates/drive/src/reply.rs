//! What a policy answers.

use skillweld_robot::{Chunk, ChunkError, Routing};
use skillweld_serve::{Array, Value};

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
    Ok(Chunk { actions, routing: message.get("routing").and_then(routing) })
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
                "routing",
                map(vec![("task", "pick".into()), ("reason", "routed".into()), ("margin", 0.5.into())]),
            ),
        ]);
        let chunk = read(&answer).unwrap();
        assert_eq!(chunk.actions, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let routing = Routing { task: "pick".into(), reason: "routed".into(), margin: Some(0.5) };
        assert_eq!(chunk.routing, Some(routing));
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
