//! StarVLA's envelope: `{type, request_id, payload}`, answered with `{status, ok, type, request_id, data}`.
//!
//! Its clients leave `type` and `payload` out where they mean `infer`, and send observations in a list `examples`.

use super::{Ask, Dialect, Request, ask, metadata, take};
use crate::array::Array;
use crate::error::RequestError;
use crate::observation::{CONTROL_KEYS, ObservationError};
use crate::options::Limits;
use crate::policy::Metadata;
use crate::value::Value;

/// What an answer repeats of its request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Envelope {
    /// The answer's type.
    kind: &'static str,
    /// What the client gave.
    request_id: Value,
    /// Whether the observation came in a list `examples` of one: then arrays are answered with a first dimension of 1.
    batched: bool,
}

/// Whether it is one.
pub(super) fn speaks(message: &Value) -> bool {
    matches!(message.get("type"), Some(Value::Text(_)))
        || matches!(message.get("payload"), Some(Value::Map(_)))
        || matches!(message.get("examples"), Some(Value::List(_)))
}

pub(super) fn read(mut message: Value, policy: &Metadata, limits: &Limits) -> Request {
    let request_id = message.get("request_id").cloned().unwrap_or_else(|| "default".into());
    let asked = message.get("type").and_then(Value::as_text).unwrap_or("infer").to_owned();
    let payload = take(&mut message, "payload").filter(|payload| matches!(payload, Value::Map(_)));
    let mut payload = payload.unwrap_or(message);
    let mut batched = false;
    let (kind, ask) = match &*asked {
        "ping" => ("ping", Ok(Ask::Server { data: None })),
        "init" => ("init", Ok(Ask::Server { data: Some(metadata(policy)) })),
        "reset" => ("reset", Ok(Ask::Policy { reset: true, observation: None })),
        "infer" | "predict_action" => {
            let examples = take(&mut payload, "examples");
            batched = examples.is_some();
            ("inference_result", single(payload, examples).and_then(|payload| ask(payload, policy, limits)))
        }
        other => {
            let known = "ping, init, infer, predict_action, reset";
            ("unknown", Err(RequestError::unknown("type", other, known)))
        }
    };
    Request { dialect: Dialect::StarVla(Envelope { kind, request_id, batched }), ask }
}

/// The observation of a payload: the payload itself, or the only one of its examples with the payload's control keys.
fn single(payload: Value, examples: Option<Value>) -> Result<Value, RequestError> {
    let count = match examples {
        None => return Ok(payload),
        Some(Value::List(examples)) => match <[Value; 1]>::try_from(examples) {
            Ok([Value::Map(mut example)]) => {
                let Value::Map(entries) = payload else { return Ok(Value::Map(example)) };
                example.extend(entries.into_iter().filter(|(key, _)| CONTROL_KEYS.contains(&&**key)));
                return Ok(Value::Map(example));
            }
            Ok([other]) => return Err(ObservationError::NoMap { found: other.describe() }.into()),
            Err(examples) => format!("{} examples", examples.len()),
        },
        Some(other) => other.describe(),
    };
    Err(RequestError::Envelope(format!("`examples` has to be a list of one observation, not {count}")))
}

impl Envelope {
    /// The array, with a first dimension of 1 if the observation came in a batch.
    pub(super) fn batch(&self, array: Array) -> Array {
        if !self.batched {
            return array;
        }
        let shape = [&[1], array.shape()].concat();
        // Only an array of eight dimensions takes no ninth.
        array.reshaped(shape).unwrap_or(array)
    }

    pub(super) fn tell(&self, data: Option<Value>) -> Value {
        let mut entries = self.status(true);
        entries.extend(data.map(|data| ("data".into(), data)));
        Value::Map(entries)
    }

    pub(super) fn refusal(&self, error: &RequestError) -> Value {
        let mut entries = self.status(false);
        entries.push(("error".into(), Value::Map(vec![("message".into(), error.to_string().into())])));
        Value::Map(entries)
    }

    fn status(&self, ok: bool) -> Vec<(String, Value)> {
        vec![
            ("status".into(), if ok { "ok" } else { "error" }.into()),
            ("ok".into(), ok.into()),
            ("type".into(), self.kind.into()),
            ("request_id".into(), self.request_id.clone()),
        ]
    }
}
