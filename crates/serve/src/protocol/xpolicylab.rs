//! XPolicyLab's envelope, which evaluations of RoboTwin 2.0 and RoboDojo speak.
//!
//! Known from XPolicyLab's server and clients (github.com/XPolicyLab/XPolicyLab, `client_server/ws`, of 2026, and forks of it)
//! and from the package `inspect-robots-xpolicylab` 0.1.0 on PyPI, which repeats them:
//!
//! - One binary websocket message is `{message_type, message_id, evaluation_id, action_case_id, trial_id, repeat_index, step,
//!   sent_at, payload}`. The types of requests and of their answers are those of [`MESSAGES`]; an answer repeats
//!   [`REPEATED`], and `close` has none. Answers may come in any order; `heartbeat` is answered while inference runs.
//! - Errors are messages `error` of the payload `{code, message, details}`; the codes are those of [`Envelope::code`].
//! - `infer` has `{observation}` and is answered with `{actions, latency_ms}`. `actions` is a list of one map a control step,
//!   whose keys are those of the observation's state. Newer clients send `call` with `{func_name, obs}` instead, and get
//!   `{ok, result, latency_ms}`: `update_obs` keeps an observation, `get_action` infers on it. The others get `{ok}`.
//! - Arrays are `msgpack_numpy`'s. Observations are of the Observation Data Format v1.0; its images are RGB. Both, and how
//!   actions fall into parts, are rows of [`KEY_SETS`](crate::KEY_SETS).
//!
//! Assumed, because nothing that was found says so:
//!
//! - `sent_at` is text in the format of RFC 3339 (the package writes Python's `isoformat`); nobody is known to read it.
//! - RoboTwin's own observations (`observation/head_camera/rgb`, `joint_action/vector`) may come in the envelope, too. They
//!   have no parts, so that `actions` is then an array of steps × numbers.
//! - Clients pass over the metadata that this server sends to whoever connects: the known ones log one invalid frame.
//! - `server_instance_id`, by which newer clients notice a restarted server, is left out, as older servers leave it out.

use std::time::{Duration, SystemTime};

use super::{Ask, Dialect, Request, ask, metadata, milliseconds, take};
use crate::array::Array;
use crate::error::RequestError;
use crate::observation::{KeySet, Parts};
use crate::options::Limits;
use crate::policy::Metadata;
use crate::value::Value;

/// Every type of a request, that of its answer, and the code of an error in the policy.
const MESSAGES: [(&str, &str, &str); 8] = [
    ("hello", "hello_ack", "internal"),
    ("prepare_case", "prepare_case_ack", "reset_failed"),
    ("reset", "reset_result", "reset_failed"),
    ("call", "call_result", "call_failed"),
    ("infer", "infer_result", "infer_failed"),
    ("trial_end", "trial_end_ack", "internal"),
    ("heartbeat", "heartbeat_ack", "internal"),
    ("close", "", "internal"),
];

/// What an answer repeats of its request.
const REPEATED: [&str; 6] =
    ["message_id", "evaluation_id", "action_case_id", "trial_id", "repeat_index", "step"];

/// What is known of a request when it is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Envelope {
    /// Of [`MESSAGES`]; one of its own for an unknown type.
    message: (&'static str, &'static str, &'static str),
    repeated: Vec<(String, Value)>,
    /// The parts that actions are answered in.
    parts: Parts,
}

/// Whether it is one.
pub(super) fn speaks(message: &Value) -> bool {
    matches!(message.get("message_type"), Some(Value::Text(_)))
}

pub(super) fn read(mut message: Value, policy: &Metadata, limits: &Limits) -> Request {
    let asked = message.get("message_type").and_then(Value::as_text).unwrap_or_default().to_owned();
    let known = MESSAGES.into_iter().find(|(kind, ..)| *kind == asked);
    let repeated = |key: &str| {
        // Whatever else could be sent there is nobody's number.
        let value = message.get(key).filter(|value| matches!(value, Value::Text(_) | Value::Int(_)));
        (key.to_owned(), value.cloned().unwrap_or(Value::Nil))
    };
    let repeated: Vec<_> = REPEATED.into_iter().map(repeated).collect();
    let mut envelope = Envelope {
        message: known.unwrap_or(("unknown", "error", "internal")),
        repeated,
        parts: Parts::new(),
    };
    let ask = match take(&mut message, "payload") {
        _ if known.is_none() => {
            let types = MESSAGES.map(|(kind, ..)| kind).join(", ");
            Err(RequestError::unknown("message_type", &asked, &types))
        }
        _ if envelope.repeated[0].1 == Value::Nil => {
            Err(RequestError::Envelope("missing `message_id`, which the answer repeats".into()))
        }
        None | Some(Value::Nil) => envelope.ask(Value::Map(Vec::new()), policy, limits),
        Some(payload @ Value::Map(_)) => envelope.ask(payload, policy, limits),
        Some(other) => {
            Err(RequestError::Envelope(format!("`payload` has to be a map, not {}", other.describe())))
        }
    };
    Request { dialect: Dialect::XPolicyLab(envelope), ask }
}

impl Envelope {
    fn ask(&mut self, mut payload: Value, policy: &Metadata, limits: &Limits) -> Result<Ask, RequestError> {
        match self.message.0 {
            "hello" => Ok(Ask::Server { data: Some(metadata(policy)) }),
            "prepare_case" | "reset" => Ok(Ask::Policy { reset: true, observation: None }),
            "infer" => match take(&mut payload, "observation") {
                Some(observation) => self.infer(observation, policy, limits),
                None => Err(RequestError::Envelope("`payload` has no `observation`".into())),
            },
            "call" => self.call(payload, policy, limits),
            "close" => Ok(Ask::Close),
            _ => Ok(Ask::Server { data: None }),
        }
    }

    fn call(&mut self, mut payload: Value, policy: &Metadata, limits: &Limits) -> Result<Ask, RequestError> {
        let function = take(&mut payload, "func_name");
        let function = function.as_ref().and_then(Value::as_text).unwrap_or_default();
        let observation = take(&mut payload, "obs").filter(|observation| *observation != Value::Nil);
        match (function, observation) {
            ("reset", _) => Ok(Ask::Policy { reset: true, observation: None }),
            ("get_action", None) => Ok(Ask::Kept),
            ("get_action" | "infer", Some(observation)) => self.infer(observation, policy, limits),
            ("update_obs", Some(observation)) => match self.infer(observation, policy, limits)? {
                Ask::Policy { reset, observation: Some(observation) } => Ok(Ask::Keep { reset, observation }),
                other => Ok(other),
            },
            ("update_obs" | "infer", None) => {
                Err(RequestError::Envelope(format!("`payload` has no `obs` for {function}")))
            }
            (other, _) => {
                let known = "update_obs, get_action, infer, reset, each for one environment";
                Err(RequestError::unknown("func_name", other, known))
            }
        }
    }

    fn infer(&mut self, observation: Value, policy: &Metadata, limits: &Limits) -> Result<Ask, RequestError> {
        // What is wrong with the observation comes before what is wrong with the policy for it.
        let parts = KeySet::of(&observation).and_then(|set| set.parts(&observation, policy.action_dim));
        let ask = ask(observation, policy, limits)?;
        if let Ask::Policy { observation: Some(_), .. } = ask {
            self.parts = parts?;
        }
        Ok(ask)
    }

    /// Whether it is answered, or ends the connection, while inference runs.
    pub(super) fn overtakes(&self) -> bool {
        ["heartbeat", "close"].contains(&self.message.0)
    }

    /// The parts of the kept observation's actions, for the request that asks for them.
    pub(super) fn parts(&mut self) -> &mut Parts {
        &mut self.parts
    }

    /// The entries of the answer with actions: a list of maps, or the matrix where the key set has no parts.
    pub(super) fn actions(&self, actions: Array, inference: Duration) -> Vec<(String, Value)> {
        let whole: usize = self.parts.iter().map(|(_, width)| width).sum();
        let actions = match *actions.shape() {
            [steps, dim] if dim == whole => {
                let steps = (0..steps).map(|row| self.step(&actions, row)).collect::<Option<_>>();
                steps.map_or(actions.into(), Value::List)
            }
            _ => actions.into(),
        };
        let name = if self.message.0 == "call" { "result" } else { "actions" };
        vec![(name.into(), actions), ("latency_ms".into(), milliseconds(inference).into())]
    }

    /// One action in its parts.
    fn step(&self, actions: &Array, row: usize) -> Option<Value> {
        let mut entries = Vec::with_capacity(self.parts.len());
        let mut start = 0;
        for &(name, width) in &self.parts {
            entries.push((name.to_owned(), Value::Array(actions.part(row, start..start + width)?)));
            start += width;
        }
        Some(Value::Map(entries))
    }

    pub(super) fn tell(&self, data: Option<Value>) -> Value {
        let mut payload = vec![("ok".to_owned(), true.into())];
        if let Some(Value::Map(entries)) = data {
            payload.extend(entries);
        }
        self.frame(self.message.1, payload)
    }

    pub(super) fn refusal(&self, error: &RequestError) -> Value {
        let payload = vec![
            ("code".to_owned(), self.code(error).into()),
            ("message".to_owned(), error.to_string().into()),
            ("details".to_owned(), Value::Map(Vec::new())),
        ];
        self.frame("error", payload)
    }

    fn code(&self, error: &RequestError) -> &'static str {
        match error {
            RequestError::UnknownKind(_) => "unknown_message_type",
            RequestError::Policy(_) | RequestError::Reply(_) => self.message.2,
            RequestError::Busy { .. } | RequestError::Stopping => "internal",
            _ => "invalid_frame",
        }
    }

    fn frame(&self, kind: &str, payload: Vec<(String, Value)>) -> Value {
        let mut entries = vec![("message_type".to_owned(), kind.into())];
        entries.extend(self.repeated.iter().cloned());
        entries.push(("sent_at".into(), rfc_3339(SystemTime::now()).into()));
        entries.push(("payload".into(), Value::Map(payload)));
        Value::Map(entries)
    }
}

/// A time of this or a later century: `2026-11-28T13:06:00.250Z`.
fn rfc_3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, milliseconds) = (since.as_secs(), since.subsec_millis());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // The Gregorian calendar repeats every 400 years, of 146097 days. Counted from a first of March, leap days come last.
    let days = seconds / 86400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year + next;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        // `date -u -d @SECONDS --iso-8601=seconds`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (951_868_800, "2000-03-01T00:00:00.250Z"),
            (1_735_689_599, "2024-12-31T23:59:59.250Z"),
            (1_795_871_160, "2026-11-28T13:06:00.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(250);
            assert_eq!(rfc_3339(time), expected);
        }
    }
}
