//! What messages mean: openpi's plain observations, and the envelopes of others around them.

use std::time::Duration;

use bytes::Bytes;

use crate::array::Array;
use crate::codec::{Form, decode, encode_in};
use crate::decision::Routing;
use crate::error::RequestError;
use crate::observation::{CONTROL_KEYS, Parts, observation, reset};
use crate::options::Limits;
use crate::policy::{Metadata, Observation, Reply};
use crate::value::Value;

#[cfg(feature = "zmq")]
pub(crate) mod gr00t;
mod starvla;
mod xpolicylab;

/// A request, and in which language the answer has to be.
pub(crate) struct Request {
    pub(crate) dialect: Dialect,
    pub(crate) ask: Result<Ask, RequestError>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Dialect {
    /// An observation, answered with a map; errors are a text frame and the end of the connection.
    OpenPi,
    /// Errors are answers, too.
    StarVla(starvla::Envelope),
    /// Errors are answers, too.
    XPolicyLab(xpolicylab::Envelope),
    /// Errors are answers, too; not spoken on websockets.
    #[cfg(feature = "zmq")]
    Gr00t(gr00t::Envelope),
}

pub(crate) enum Ask {
    /// Start a new episode, infer, or both.
    Policy { reset: bool, observation: Option<Box<Observation>> },
    /// Keep this for [`Ask::Kept`].
    Keep { reset: bool, observation: Box<Observation> },
    /// Infer on what was kept.
    Kept,
    /// What the server itself knows.
    Server { data: Option<Value> },
    /// End the connection.
    Close,
}

/// Every value of [`Request::protocol`].
pub(crate) const PROTOCOLS: &[&str] = &[
    "openpi",
    "starvla",
    "xpolicylab",
    #[cfg(feature = "zmq")]
    "gr00t",
];

/// Every value of [`Request::kind`].
pub(crate) const KINDS: [&str; 4] = ["infer", "reset", "server", "refused"];

impl Request {
    /// For the metric `skillweld_requests_total`.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.dialect {
            Dialect::OpenPi => "openpi",
            Dialect::StarVla(_) => "starvla",
            Dialect::XPolicyLab(_) => "xpolicylab",
            #[cfg(feature = "zmq")]
            Dialect::Gr00t(_) => "gr00t",
        }
    }

    /// For the same: what is asked for; what can be read but not asked for is refused.
    pub(crate) fn kind(&self) -> &'static str {
        match self.ask {
            Ok(Ask::Policy { observation: Some(_), .. } | Ask::Kept) => "infer",
            Ok(Ask::Policy { observation: None, .. }) => "reset",
            Ok(Ask::Server { .. } | Ask::Keep { .. } | Ask::Close) => "server",
            Err(_) => "refused",
        }
    }

    /// Whether it does not wait for the answer to the request before it.
    pub(crate) fn overtakes(&self) -> bool {
        matches!((&self.dialect, &self.ask), (Dialect::XPolicyLab(envelope), Ok(_)) if envelope.overtakes())
    }
}

impl Dialect {
    /// The parts of an action, where the dialect has them: those of an observation that is kept are needed when it is used.
    pub(crate) fn parts(&mut self) -> Option<&mut Parts> {
        match self {
            Self::XPolicyLab(envelope) => Some(envelope.parts()),
            _ => None,
        }
    }

    /// How arrays are written.
    fn form(&self) -> Form {
        match self {
            Self::OpenPi | Self::StarVla(_) => Form::OpenPi,
            Self::XPolicyLab(_) => Form::MsgpackNumpy,
            #[cfg(feature = "zmq")]
            Self::Gr00t(envelope) => envelope.form(),
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

/// Reads one frame of a websocket.
pub(crate) fn read(frame: &Bytes, limits: &Limits, policy: &Metadata) -> Request {
    match decode(frame, &limits.decode) {
        Err(error) => Request { dialect: Dialect::OpenPi, ask: Err(error.into()) },
        Ok(value) if xpolicylab::speaks(&value) => xpolicylab::read(value, policy, limits),
        Ok(value) if starvla::speaks(&value) => starvla::read(value, policy, limits),
        Ok(value) => Request { dialect: Dialect::OpenPi, ask: ask(value, policy, limits) },
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

/// Takes an entry out of a map.
fn take(map: &mut Value, key: &str) -> Option<Value> {
    let Value::Map(entries) = map else { return None };
    let index = entries.iter().rposition(|(name, _)| name == key)?;
    Some(entries.remove(index).1)
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
    let message = match dialect {
        Dialect::OpenPi => data.unwrap_or(Value::Nil),
        Dialect::StarVla(envelope) => envelope.tell(data),
        Dialect::XPolicyLab(envelope) => envelope.tell(data),
        #[cfg(feature = "zmq")]
        Dialect::Gr00t(_) => data.unwrap_or_else(|| Value::Map(Vec::new())),
    };
    encode_in(dialect.form(), &message)
}

/// The answer with actions. `previous` is what the last request of this connection took, from its arrival until its answer was sent.
pub(crate) fn answer(dialect: &Dialect, answer: Answer, previous: Option<Duration>) -> Vec<u8> {
    let Answer { reply, inference, queued } = answer;
    let mut timing = vec![
        ("infer_ms".to_owned(), Value::from(milliseconds(inference))),
        ("queue_ms".to_owned(), milliseconds(queued).into()),
    ];
    timing.extend(previous.map(|previous| ("prev_total_ms".to_owned(), milliseconds(previous).into())));
    let timing = ("server_timing".to_owned(), Value::Map(timing));
    let Some(reply) = reply else {
        return tell(dialect, Some(Value::Map(vec![("reset".to_owned(), true.into()), timing])));
    };
    let Reply { actions, extra, routing, timing_ms } = reply;
    let mut info = info(routing, timing_ms, inference);
    info.push(timing);
    let mut entries = match dialect {
        Dialect::OpenPi => vec![("actions".to_owned(), actions.into())],
        Dialect::StarVla(envelope) => vec![("actions".to_owned(), envelope.batch(actions).into())],
        Dialect::XPolicyLab(envelope) => envelope.actions(actions, inference),
        #[cfg(feature = "zmq")]
        Dialect::Gr00t(envelope) => return tell(dialect, Some(envelope.answer(&actions, info))),
    };
    let batch = |array: Array| match dialect {
        Dialect::StarVla(envelope) => envelope.batch(array),
        _ => array,
    };
    entries.extend(extra.into_iter().map(|(name, array)| (name, batch(array).into())));
    entries.extend(info);
    tell(dialect, Some(Value::Map(entries)))
}

/// What is told beside the actions: what took how long, and why which task ran.
fn info(
    routing: Option<Routing>,
    mut timing: Vec<(String, f64)>,
    inference: Duration,
) -> Vec<(String, Value)> {
    if !timing.iter().any(|(stage, _)| stage == "infer_ms") {
        timing.push(("infer_ms".into(), milliseconds(inference)));
    }
    let numbers = |pairs: Vec<(String, f64)>| {
        Value::Map(pairs.into_iter().map(|(name, number)| (name, number.into())).collect())
    };
    let mut entries = vec![("policy_timing".to_owned(), numbers(timing))];
    if let Some(routing) = routing {
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
    entries
}

/// An error as an answer, where the dialect has one.
pub(crate) fn refusal(dialect: &Dialect, error: &RequestError) -> Option<Vec<u8>> {
    let message = match dialect {
        Dialect::OpenPi => return None,
        Dialect::StarVla(envelope) => envelope.refusal(error),
        Dialect::XPolicyLab(envelope) => envelope.refusal(error),
        #[cfg(feature = "zmq")]
        Dialect::Gr00t(_) => Value::Map(vec![("error".into(), error.to_string().into())]),
    };
    Some(encode_in(dialect.form(), &message))
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
