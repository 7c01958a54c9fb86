//! GR00T's inference service: `{endpoint, data, api_token}`, answered with what the endpoint gives, or with `{error}`.
//!
//! Known from NVIDIA's Isaac-GR00T (github.com/NVIDIA/Isaac-GR00T: `gr00t/eval/service.py` of N1.5,
//! `gr00t/policy/server_client.py` and `examples/DROID` of N1.6 and later):
//!
//! - N1.5 sends `get_action` the observation itself, with flat keys (`video.image`, `state.x`,
//!   `annotation.human.task_description`: a list of one text), and reads a map of arrays `action.x`, steps first.
//! - N1.6 sends `{observation: {video: {…}, state: {…}, language: {…: [[text]]}}, options}`, arrays with dimensions of batch and
//!   time before theirs, and reads a list of two: a map of arrays `x`, batch × steps × numbers, and a map of anything.
//! - Arrays are `{__ndarray_class__, as_npy}`, files of `numpy.save`; newer clients send `msgpack_numpy`'s and read both.
//! - `get_modality_config` gives `{delta_indices, modality_keys}` for each of video, state, action and language. N1.5 reads it
//!   from JSON in `as_json`, with the prefix in its keys; later ones from a map `as_dict`, without it.
//!
//! Which keys, and which parts of an action, is said by the rows of [`KEY_SETS`] that are named after GR00T; what
//! `get_modality_config` tells is the one whose actions are as long as the policy's. `kill` is refused. `reset` starts a new
//! episode, as does a new connection.
//!
//! Assumed: that a client which knows neither `as_json` nor `as_dict` reads the map itself, as known ones do.

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::{Ask, Dialect, Request, ask, take};
use crate::array::Array;
use crate::codec::{Form, decode_noting_form};
use crate::error::RequestError;
use crate::observation::{KEY_SETS, KeySet, Parts};
use crate::options::Limits;
use crate::policy::Metadata;
use crate::value::Value;

const ENDPOINTS: &str = "ping, get_action, get_modality_config, reset";

/// The language's key in `get_modality_config`; any is read.
const LANGUAGE: &str = "annotation.human.task_description";

/// What is known of a request when it is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Envelope {
    /// How the request's arrays were written.
    form: Form,
    /// Whether the observation came in `observation`: then arrays are answered with a first dimension of 1, in a list of two.
    wrapped: bool,
    /// Whether the observation's keys were flat: then so are the answer's.
    flat: bool,
    /// The parts that actions are answered in.
    parts: Parts,
}

/// The language before anything was read.
pub(crate) fn plain() -> Dialect {
    Dialect::Gr00t(Envelope::PLAIN)
}

/// Reads one message. `key` is what clients must send, if anything.
pub(crate) fn read(frame: &Bytes, limits: &Limits, policy: &Metadata, key: Option<&str>) -> Request {
    let mut envelope = Envelope::PLAIN;
    let ask = match decode_noting_form(frame, &limits.decode) {
        Ok((message, form)) => {
            envelope.form = form.unwrap_or(Form::Npy);
            envelope.ask(message, limits, policy, key)
        }
        Err(error) => Err(error.into()),
    };
    Request { dialect: Dialect::Gr00t(envelope), ask }
}

impl Envelope {
    const PLAIN: Self = Self { form: Form::Npy, wrapped: false, flat: false, parts: Parts::new() };

    pub(super) fn form(&self) -> Form {
        self.form
    }

    fn ask(
        &mut self,
        mut message: Value,
        limits: &Limits,
        policy: &Metadata,
        key: Option<&str>,
    ) -> Result<Ask, RequestError> {
        if !matches!(message, Value::Map(_)) {
            let found = message.describe();
            return Err(RequestError::Envelope(format!("a request is a map with `endpoint`, not {found}")));
        }
        let token = message.get("api_token").and_then(Value::as_text).unwrap_or_default();
        // Takes as long for a wrong key as for the right one.
        if key.is_some_and(|key| !bool::from(token.as_bytes().ct_eq(key.as_bytes()))) {
            return Err(RequestError::Envelope("Unauthorized: Invalid API token".into()));
        }
        let endpoint = match message.get("endpoint") {
            None => "get_action".to_owned(),
            Some(Value::Text(endpoint)) => endpoint.clone(),
            Some(other) => {
                let found = other.describe();
                return Err(RequestError::Envelope(format!("`endpoint` has to be text, not {found}")));
            }
        };
        match &*endpoint {
            "ping" => {
                let status = [("status", "ok"), ("message", "Server is running")];
                let entries = status.map(|(key, text)| (key.to_owned(), text.into())).to_vec();
                Ok(Ask::Server { data: Some(Value::Map(entries)) })
            }
            "get_modality_config" => Ok(Ask::Server { data: Some(modalities(policy)?) }),
            "reset" => Ok(Ask::Policy { reset: true, observation: None }),
            "get_action" => {
                let data = take(&mut message, "data").unwrap_or_else(|| Value::Map(Vec::new()));
                self.get_action(data, limits, policy)
            }
            "kill" => {
                Err(RequestError::Envelope("clients do not stop this server: `kill` is refused".into()))
            }
            other => Err(RequestError::unknown("endpoint", other, ENDPOINTS)),
        }
    }

    fn get_action(
        &mut self,
        mut data: Value,
        limits: &Limits,
        policy: &Metadata,
    ) -> Result<Ask, RequestError> {
        let inner = take(&mut data, "observation");
        self.wrapped = inner.is_some();
        let (observation, flat) = slashed(inner.unwrap_or(data));
        self.flat = flat;
        let parts = KeySet::of(&observation).and_then(|set| set.parts(&observation, policy.action_dim));
        let ask = ask(observation, policy, limits)?;
        if let Ask::Policy { observation: Some(_), .. } = ask {
            self.parts = parts?;
        }
        Ok(ask)
    }

    /// The answer with actions; `info` has a place in a list of two only.
    pub(super) fn answer(&self, actions: &Array, info: Vec<(String, Value)>) -> Value {
        let prefix = if self.flat { "action." } else { "" };
        let mut start = 0;
        let part = |&(name, width): &(&'static str, usize)| {
            let columns = start..start + width;
            start = columns.end;
            Some((format!("{prefix}{name}"), Value::Array(self.batch(actions.columns(columns)?))))
        };
        let parts: Option<Vec<_>> = self.parts.iter().map(part).collect();
        // Without parts, or if the policy answers with others than it said: as one matrix.
        let whole = || vec![("actions".to_owned(), Value::Array(self.batch(actions.clone())))];
        let entries = parts.filter(|_| actions.shape().get(1) == Some(&start)).unwrap_or_else(whole);
        match self.wrapped {
            true => Value::List(vec![Value::Map(entries), Value::Map(info)]),
            false => Value::Map(entries),
        }
    }

    /// The array, with a first dimension of 1 where clients expect batches.
    fn batch(&self, array: Array) -> Array {
        match self.wrapped {
            true => array.reshaped([&[1], array.shape()].concat()).unwrap_or(array),
            false => array,
        }
    }
}

/// The observation with slashes in its keys and the instruction under `prompt`; and whether its keys were flat.
fn slashed(observation: Value) -> (Value, bool) {
    let entries = match observation {
        Value::Map(entries) => entries,
        other => return (other, false),
    };
    let mut flat = false;
    let mut slashed = |(key, value): (String, Value)| match (key.split_once('.'), &value) {
        (Some((modality @ ("video" | "state"), name)), _) => {
            flat = true;
            (format!("{modality}/{name}"), value)
        }
        (Some(("annotation", _)), _) => {
            flat = true;
            ("prompt".to_owned(), value)
        }
        (None, Value::Map(texts)) if key == "language" => match &**texts {
            [(_, text)] => ("prompt".to_owned(), text.clone()),
            _ => (key, value),
        },
        _ => (key, value),
    };
    let entries = entries.into_iter().map(&mut slashed).collect();
    (Value::Map(entries), flat)
}

/// The key set whose actions are as long as the policy's, as GR00T's clients want to be told of it.
fn modalities(policy: &Metadata) -> Result<Value, RequestError> {
    let long = |set: &&KeySet| {
        let width = set.actions.iter().map(|(_, width)| width.unwrap_or_default()).sum::<usize>();
        set.name.starts_with("GR00T") && width == policy.action_dim
    };
    let set = KEY_SETS.iter().find(long).ok_or_else(|| {
        let dim = policy.action_dim;
        RequestError::Envelope(format!("no GR00T embodiment that is known here has actions of {dim} numbers"))
    })?;
    let bare = |keys: &[&'static str], modality: &str| -> Vec<&'static str> {
        keys.iter().map(|key| key.strip_prefix(modality).unwrap_or(key)).collect()
    };
    let images = &set.images[..policy.images.min(set.images.len())];
    let actions = set.actions.iter().map(|(name, _)| *name).collect();
    let modalities = [
        ("video", 1, bare(images, "video/")),
        ("state", 1, bare(set.state, "state/")),
        ("action", policy.action_horizon, actions),
        ("language", 1, vec![LANGUAGE]),
    ];
    let entry =
        |(modality, steps, keys): (&str, _, _)| (modality.to_owned(), modality_config(modality, steps, keys));
    Ok(Value::Map(modalities.map(entry).to_vec()))
}

/// What each of GR00T's clients reads of a modality, in one map.
fn modality_config(modality: &str, steps: usize, keys: Vec<&str>) -> Value {
    let flat = |key: &&str| match modality {
        "language" => (*key).to_owned(),
        _ => format!("{modality}.{key}"),
    };
    let indices: Vec<usize> = (0..steps).collect();
    // Debug's quotes and escapes are JSON's for these keys, which are plain ASCII.
    let json = format!(
        "{{\"delta_indices\": {indices:?}, \"modality_keys\": {:?}}}",
        keys.iter().map(flat).collect::<Vec<_>>()
    );
    let plain = vec![
        ("delta_indices".to_owned(), Value::from(indices)),
        ("modality_keys".to_owned(), Value::from(keys)),
    ];
    let mut entries = vec![
        ("__ModalityConfig_class__".to_owned(), true.into()),
        ("as_json".to_owned(), json.into()),
        ("as_dict".to_owned(), Value::Map(plain.clone())),
    ];
    entries.extend(plain);
    Value::Map(entries)
}
