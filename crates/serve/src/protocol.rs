//! What messages mean: openpi's plain observations, and StarVLA's envelopes around them.

use std::time::Duration;

use bytes::Bytes;

use crate::array::Array;
use crate::codec::{decode, encode};
use crate::error::RequestError;
use crate::observation::{CONTROL_KEYS, ObservationError, observation, reset};
use crate::options::Limits;
use crate::policy::{Metadata, Observation, Reply};
use crate::value::Value;

/// A request, and in which language the answer has to be.
pub(crate) struct Request {
    pub(crate) dialect: Dialect,
    pub(crate) ask: Result<Ask, RequestError>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Dialect {
    /// An observation, answered with a map; errors are a text frame and the end of the connection.
    OpenPi,
    /// `{type, request_id, payload}`, answered with `{status, ok, type, request_id, data}`; errors are answers, too.
    StarVla {
        /// The answer's type.
        kind: &'static str,
        /// What the client gave.
        request_id: Value,
        /// Whether the observation came in a list `examples` of one: then arrays are answered with a first dimension of 1.
        batched: bool,
    },
}

pub(crate) enum Ask {
    /// Start a new episode, infer, or both.
    Policy { reset: bool, observation: Option<Box<Observation>> },
    /// What the server itself knows.
    Server { data: Option<Value> },
}

/// Every value of [`Request::protocol`].
pub(crate) const PROTOCOLS: [&str; 2] = ["openpi", "starvla"];

/// Every value of [`Request::kind`].
pub(crate) const KINDS: [&str; 4] = ["infer", "reset", "server", "refused"];

impl Request {
    /// For the metric `skillweld_requests_total`.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.dialect {
            Dialect::OpenPi => "openpi",
            Dialect::StarVla { .. } => "starvla",
        }
    }

    /// For the same: what is asked for; what can be read but not asked for is refused.
    pub(crate) fn kind(&self) -> &'static str {
        match self.ask {
            Ok(Ask::Policy { observation: Some(_), .. }) => "infer",
            Ok(Ask::Policy { observation: None, .. }) => "reset",
            Ok(Ask::Server { .. }) => "server",
            Err(_) => "refused",
        }
    }
}

/// What the policy made of a request.
pub(crate) struct Answer {
    /// None if it was only asked to start a new episode.
    pub(crate) reply: Option<Reply>,
    pub(crate) inference: Duration,
    pub(crate) queued: Duration,
}

/// Reads one frame.
pub(crate) fn read(frame: &Bytes, limits: &Limits, policy: &Metadata) -> Request {
    let value = match decode(frame, &limits.decode) {
        Ok(value) => value,
        Err(error) => return Request { dialect: Dialect::OpenPi, ask: Err(error.into()) },
    };
    let envelope = matches!(value.get("type"), Some(Value::Text(_)))
        || matches!(value.get("payload"), Some(Value::Map(_)))
        || matches!(value.get("examples"), Some(Value::List(_)));
    if envelope {
        starvla(value, policy, limits)
    } else {
        Request { dialect: Dialect::OpenPi, ask: ask(value, policy, limits) }
    }
}

fn ask(request: Value, policy: &Metadata, limits: &Limits) -> Result<Ask, RequestError> {
    let reset = reset(&request)?;
    let only_control =
        |entries: &[(String, Value)]| entries.iter().all(|(key, _)| CONTROL_KEYS.contains(&&**key));
    let observation = match &request {
        Value::Map(entries) if reset && only_control(entries) => None,
        _ => Some(Box::new(observation(request, policy, limits)?)),
    };
    Ok(Ask::Policy { reset, observation })
}

fn starvla(mut message: Value, policy: &Metadata, limits: &Limits) -> Request {
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
            let other: String = other.chars().take(80).collect();
            let message =
                format!("unknown type `{other}`; this server knows ping, init, infer, predict_action, reset");
            ("unknown", Err(RequestError::Envelope(message)))
        }
    };
    Request { dialect: Dialect::StarVla { kind, request_id, batched }, ask }
}

/// Takes an entry out of a map.
fn take(map: &mut Value, key: &str) -> Option<Value> {
    let Value::Map(entries) = map else { return None };
    let index = entries.iter().rposition(|(name, _)| name == key)?;
    Some(entries.remove(index).1)
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

/// What clients are told of the policy.
pub(crate) fn metadata(policy: &Metadata) -> Value {
    let mut entries = vec![
        ("server", Value::from("skillweld")),
        ("server_version", env!("CARGO_PKG_VERSION").into()),
        ("policy", policy.name.clone().into()),
        ("images", policy.images.into()),
        ("state_dim", policy.state_dim.map_or(Value::Nil, Value::from)),
        ("action_horizon", policy.action_horizon.into()),
        ("action_dim", policy.action_dim.into()),
        ("tasks", policy.tasks.clone().into()),
        ("prompt", policy.prompt.into()),
    ];
    // Evaluation clients of StarVLA look for this name.
    entries.push(("action_chunk_size", policy.action_horizon.into()));
    let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    entries.extend(policy.extra.iter().cloned());
    Value::Map(entries)
}

/// The answer to a question that needs no policy.
pub(crate) fn tell(dialect: &Dialect, data: Option<Value>) -> Vec<u8> {
    match dialect {
        Dialect::OpenPi => encode(&data.unwrap_or(Value::Nil)),
        Dialect::StarVla { kind, request_id, .. } => {
            let mut entries = status(true, kind, request_id);
            entries.extend(data.map(|data| ("data".into(), data)));
            encode(&Value::Map(entries))
        }
    }
}

/// The answer with actions. `previous` is what the last request of this connection took, from its arrival until its answer was sent.
pub(crate) fn answer(dialect: &Dialect, answer: Answer, previous: Option<Duration>) -> Vec<u8> {
    let batched = matches!(dialect, Dialect::StarVla { batched: true, .. });
    let mut entries = Vec::new();
    let mut timing = vec![
        ("infer_ms".to_owned(), Value::from(milliseconds(answer.inference))),
        ("queue_ms".to_owned(), milliseconds(answer.queued).into()),
    ];
    timing.extend(previous.map(|previous| ("prev_total_ms".to_owned(), milliseconds(previous).into())));
    match answer.reply {
        Some(reply) => body(&mut entries, reply, batched, answer.inference),
        None => entries.push(("reset".to_owned(), true.into())),
    }
    entries.push(("server_timing".into(), Value::Map(timing)));
    match dialect {
        Dialect::OpenPi => encode(&Value::Map(entries)),
        Dialect::StarVla { .. } => tell(dialect, Some(Value::Map(entries))),
    }
}

fn body(entries: &mut Vec<(String, Value)>, reply: Reply, batched: bool, inference: Duration) {
    let arrays = [("actions".to_owned(), reply.actions)].into_iter().chain(reply.extra);
    entries.extend(arrays.map(|(name, array)| (name, batch(array, batched).into())));
    let mut timing = reply.timing_ms;
    if !timing.iter().any(|(stage, _)| stage == "infer_ms") {
        timing.push(("infer_ms".into(), milliseconds(inference)));
    }
    let numbers = |pairs: Vec<(String, f64)>| {
        Value::Map(pairs.into_iter().map(|(name, number)| (name, number.into())).collect())
    };
    entries.push(("policy_timing".into(), numbers(timing)));
    if let Some(routing) = reply.routing {
        let (scores, margin) = match routing.scores {
            Some(scores) => (scores.candidates, scores.margin.into()),
            None => (Vec::new(), Value::Nil),
        };
        let routing = vec![
            ("task".into(), routing.task.into()),
            ("reason".into(), routing.reason.as_str().into()),
            ("scores".into(), numbers(scores)),
            ("margin".into(), margin),
        ];
        entries.push(("routing".into(), Value::Map(routing)));
    }
}

/// The array, with a first dimension of 1 if asked for.
fn batch(array: Array, batched: bool) -> Array {
    if !batched {
        return array;
    }
    let shape = [&[1], array.shape()].concat();
    // Only an array of eight dimensions takes no ninth.
    array.reshaped(shape).unwrap_or(array)
}

/// An error as an answer, where the dialect has one.
pub(crate) fn refusal(dialect: &Dialect, error: &RequestError) -> Option<Vec<u8>> {
    let Dialect::StarVla { kind, request_id, .. } = dialect else { return None };
    let mut entries = status(false, kind, request_id);
    entries.push(("error".into(), Value::Map(vec![("message".into(), error.to_string().into())])));
    Some(encode(&Value::Map(entries)))
}

fn status(ok: bool, kind: &str, request_id: &Value) -> Vec<(String, Value)> {
    vec![
        ("status".into(), if ok { "ok" } else { "error" }.into()),
        ("ok".into(), ok.into()),
        ("type".into(), kind.into()),
        ("request_id".into(), request_id.clone()),
    ]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Refuses what clients could not use: other than one action a row, NaN, arrays that cannot be sliced by action.
pub(crate) fn check(reply: &Reply) -> Result<(), RequestError> {
    let refused = |what: String| Err(RequestError::Reply(what));
    let &[horizon, dim] = reply.actions.shape() else {
        return refused(format!("actions of shape {:?} instead of horizon × numbers", reply.actions.shape()));
    };
    if horizon == 0 || dim == 0 {
        return refused("no actions".into());
    }
    if let Some(index) = reply.actions.to_f64().iter().position(|number| !number.is_finite()) {
        return refused(format!("NaN or infinity in the actions, first at element {index}"));
    }
    for (name, array) in &reply.extra {
        if ["actions", "policy_timing", "server_timing", "routing"].contains(&&**name) {
            return refused(format!("an array of the reserved name `{name}`"));
        }
        if array.shape().first() != Some(&horizon) {
            let shape = array.shape();
            return refused(format!(
                "`{name}` of shape {shape:?}, whose first dimension is not the horizon {horizon}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod fuzz;
