//! Everything between a received frame and the policy, under requests that are valid, nearly valid, and damaged.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::Dtype;
use crate::observation::KEY_SETS;

const SHORT: u32 = 10_000;
const LONG: u32 = 3_000_000;

/// The longest names all key sets.
const MAX_ERROR_BYTES: usize = 4000;

/// A policy of two images and eight numbers, which LIBERO's and DROID's clients send, or of three and fourteen, as ALOHA's.
fn policy(images: usize, state: usize) -> Metadata {
    let tasks = vec!["pick".into(), "push".into()];
    let metadata = Metadata {
        images,
        state_dim: Some(state),
        tasks,
        ..crate::Policy::metadata(&crate::ZeroCost::libero())
    };
    Metadata { action_horizon: 3, ..metadata }
}

fn limits() -> Limits {
    // Small, so that small requests go beyond them.
    Limits { image_side: 9, image_pixels: 60, prompt_bytes: 40, ..Limits::default() }
}

/// An array of numbers from 0 to 1, or of bytes.
fn array(dtype: Dtype, shape: Vec<usize>, seed: u8) -> Value {
    let count = shape.iter().product();
    let numbers = (0..count).map(|index| (index as u8).wrapping_mul(37).wrapping_add(seed));
    let unit = |byte: u8| f64::from(byte) / 255.0;
    let bytes: Vec<u8> = match dtype {
        Dtype::F16 => numbers.flat_map(|n| half::f16::from_f64(unit(n)).to_le_bytes()).collect(),
        Dtype::F32 => numbers.flat_map(|n| (unit(n) as f32).to_le_bytes()).collect(),
        Dtype::F64 => numbers.flat_map(|n| unit(n).to_le_bytes()).collect(),
        _ => numbers.flat_map(|n| std::iter::once(n).chain(vec![0; dtype.size() - 1])).collect(),
    };
    Array::new(dtype, shape, bytes.into()).unwrap().into()
}

fn image() -> impl Strategy<Value = Value> {
    let dtype = select(vec![Dtype::U8, Dtype::U8, Dtype::F16, Dtype::F32, Dtype::F64]);
    (dtype, 1..8_usize, 1..8_usize, any::<bool>(), any::<bool>(), any::<u8>()).prop_map(
        |(dtype, height, width, planar, batch, seed)| {
            let mut shape = if planar { vec![3, height, width] } else { vec![height, width, 3] };
            if batch {
                shape.insert(0, 1);
            }
            array(dtype, shape, seed)
        },
    )
}

fn numbers(count: usize) -> impl Strategy<Value = Value> {
    let dtypes = vec![Dtype::F64, Dtype::F32, Dtype::F16, Dtype::I64, Dtype::U8];
    prop_oneof![
        (select(dtypes), any::<u8>()).prop_map(move |(dtype, seed)| array(dtype, vec![count], seed)),
        vec((-9.0..9.0_f64).prop_map(Value::Float), count).prop_map(Value::List),
    ]
}

fn prompt() -> impl Strategy<Value = Value> {
    "[a-zß ]{0,15}x".prop_map(Value::from)
}

/// What a client may send beside its observation.
fn control() -> impl Strategy<Value = Vec<(String, Value)>> {
    let one = prop_oneof![
        Just(("task".to_owned(), Value::from("push"))),
        any::<bool>().prop_map(|reset| ("reset".to_owned(), reset.into())),
        (0..40_usize).prop_map(|steps| ("inference_delay".to_owned(), steps.into())),
        (0..4_usize)
            .prop_map(|rows| ("prev_chunk_left_over".to_owned(), array(Dtype::F32, vec![rows, 7], 1))),
        Just(("mood".to_owned(), Value::List(vec![Value::Nil, 1.5.into()]))),
    ];
    vec(one, 0..4)
}

/// A valid observation of one of the key sets, and the policy that wants it.
fn observations() -> impl Strategy<Value = (Value, Metadata)> {
    let named = |name: &str| KEY_SETS.iter().find(|set| set.name == name).unwrap();
    let set = |name: &str, images: usize, lengths: Vec<usize>, nested: bool| {
        let set = named(name);
        let policy = policy(images, lengths.iter().sum());
        let states: Vec<_> = lengths.into_iter().map(numbers).collect();
        (vec(image(), set.images.len()), states, prompt(), control()).prop_map(
            move |(images, states, prompt, control)| {
                let mut entries = control;
                let images = set.images.iter().map(|key| (*key).to_owned()).zip(images);
                if nested {
                    let bare =
                        |(key, image): (String, Value)| (key.rsplit('/').next().unwrap().to_owned(), image);
                    entries.push(("images".into(), Value::Map(images.map(bare).collect())));
                } else {
                    entries.extend(images);
                }
                entries.extend(set.state.iter().map(|key| (*key).to_owned()).zip(states));
                entries.push((set.prompt.to_owned(), prompt));
                (Value::Map(entries), policy.clone())
            },
        )
    };
    prop_oneof![
        set("LIBERO", 2, vec![8], false),
        set("DROID", 2, vec![7, 1], false),
        set("ALOHA", 3, vec![14], true),
        set("ALOHA", 3, vec![14], false),
        set("RoboTwin", 3, vec![14], false),
        // As many as an action has, so that it falls into parts.
        set("XPolicyLab, one arm", 2, vec![6, 1], false),
    ]
}

/// The same, most of them in an envelope of StarVLA's or XPolicyLab's.
fn requests() -> impl Strategy<Value = (Value, Metadata)> {
    let kind = select(vec!["infer", "predict_action"]);
    (observations(), kind, 0..7_u8).prop_map(|((observation, policy), kind, form)| {
        let pairs = |pairs: Vec<(&str, Value)>| {
            Value::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        let head = vec![("type", kind.into()), ("request_id", "r".into())];
        let examples = |observation| ("examples", Value::List(vec![observation]));
        let request = match form {
            0 => pairs([head, vec![("payload", observation)]].concat()),
            1 => pairs([head, vec![("payload", pairs(vec![examples(observation)]))]].concat()),
            2 => pairs(vec![examples(observation)]),
            3 => {
                let payload = pairs(vec![("observation", observation)]);
                pairs(vec![
                    ("message_type", "infer".into()),
                    ("message_id", "m".into()),
                    ("payload", payload),
                ])
            }
            4 | 5 => {
                let function = if form == 4 { "update_obs" } else { "get_action" };
                let payload = pairs(vec![("func_name", function.into()), ("obs", observation)]);
                pairs(vec![
                    ("message_type", "call".into()),
                    ("message_id", 7_usize.into()),
                    ("payload", payload),
                ])
            }
            _ => observation,
        };
        (request, policy)
    })
}

/// Values that are out of place nearly everywhere.
fn oddities() -> impl Strategy<Value = Value> {
    let size = select(vec![0, 1, 2, 3, 9, 10, 100]);
    prop_oneof![
        Just(Value::Nil),
        any::<i64>().prop_map(|number| Value::Int(number.into())),
        select(vec![f64::NAN, f64::INFINITY, -1.0, 1e300]).prop_map(Value::Float),
        ".{0,60}".prop_map(Value::from),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
        vec(select(vec![Value::Nil, Value::Int(3), Value::Map(Vec::new())]), 0..20).prop_map(Value::List),
        (vec(size, 0..4), select(vec![Dtype::Bool, Dtype::U8, Dtype::F16, Dtype::F32, Dtype::I64]))
            .prop_map(|(shape, dtype)| array(dtype, shape, 3)),
    ]
}

/// What is done to a valid request.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, Value),
    Remove(Index),
    Double(Index, Value),
    Rename(Index, String),
}

fn changes() -> impl Strategy<Value = Change> {
    let key = select(vec![
        "type",
        "message_type",
        "func_name",
        "nd",
        "payload",
        "examples",
        "task",
        "state",
        "images",
        "lang",
        "__ndarray__",
        "__ndarray_class__",
        "as_npy",
        "endpoint",
        "data",
        "dtype",
        "",
    ]);
    prop_oneof![
        3 => (any::<Index>(), oddities()).prop_map(|(at, value)| Change::Replace(at, value)),
        1 => any::<Index>().prop_map(Change::Remove),
        1 => (any::<Index>(), oddities()).prop_map(|(at, value)| Change::Double(at, value)),
        1 => (any::<Index>(), key).prop_map(|(at, key)| Change::Rename(at, key.into())),
    ]
}

/// Applies a change to some map within `value`, at whatever depth.
fn apply(value: &mut Value, change: &Change) {
    let (Change::Replace(at, _) | Change::Remove(at) | Change::Double(at, _) | Change::Rename(at, _)) =
        change;
    match value {
        Value::List(values) if !values.is_empty() => apply(at.get_mut(values), change),
        Value::Map(entries) if !entries.is_empty() => {
            let index = at.index(entries.len());
            // Half of the maps and lists are entered.
            if matches!(entries[index].1, Value::Map(_) | Value::List(_)) && at.index(2) == 0 {
                return apply(&mut entries[index].1, change);
            }
            match change.clone() {
                Change::Replace(_, new) => entries[index].1 = new,
                Change::Remove(_) => drop(entries.remove(index)),
                Change::Double(_, new) => entries.push((entries[index].0.clone(), new)),
                Change::Rename(_, key) => entries[index].0 = key,
            }
        }
        _ => {}
    }
}

/// Memory that a value holds beside its frame.
fn memory(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.capacity(),
        Value::Array(array) => size_of_val(array.shape()),
        Value::List(values) => {
            values.capacity() * size_of::<Value>() + values.iter().map(memory).sum::<usize>()
        }
        Value::Map(entries) => {
            let entry = |(key, value): &(String, Value)| key.capacity() + memory(value);
            entries.capacity() * size_of::<(String, Value)>() + entries.iter().map(entry).sum::<usize>()
        }
        _ => 0,
    }
}

/// Reads a frame; whatever comes of it must be what a policy may rely on, or an error that can be sent.
fn survives(frame: &Bytes, policy: &Metadata) -> Result<bool, TestCaseError> {
    let limits = limits();
    sound(read(frame, &limits, policy), frame, policy, &limits)
}

/// The same for a GR00T client's message.
#[cfg(feature = "zmq")]
fn survives_gr00t(frame: &Bytes, policy: &Metadata) -> Result<bool, TestCaseError> {
    let limits = limits();
    sound(gr00t::read(frame, &limits, policy, None), frame, policy, &limits)
}

/// The question of a GR00T client about an observation.
#[cfg(feature = "zmq")]
fn asked_by_gr00t(observation: &Value) -> Value {
    Value::Map(vec![("endpoint".to_owned(), "get_action".into()), ("data".to_owned(), observation.clone())])
}

fn sound(request: Request, frame: &Bytes, policy: &Metadata, limits: &Limits) -> Result<bool, TestCaseError> {
    prop_assert!(PROTOCOLS.contains(&request.protocol()) && KINDS.contains(&request.kind()));
    let observation = match request.ask {
        Ok(Ask::Policy { observation, .. }) => observation,
        Ok(Ask::Keep { observation, .. }) => Some(observation),
        Ok(Ask::Kept | Ask::Close) => return Ok(true),
        Ok(Ask::Server { data }) => {
            prop_assert!(!tell(&request.dialect, data).is_empty());
            return Ok(true);
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(!message.is_empty() && message.len() < MAX_ERROR_BYTES, "{message}");
            drop(refusal(&request.dialect, &error));
            return Ok(false);
        }
    };
    let Some(seen) = observation else { return Ok(true) };
    // Whatever the language, the answer is a message.
    let actions = vec![0.5; policy.action_horizon * policy.action_dim];
    let actions = Array::from_f32(&[policy.action_horizon, policy.action_dim], &actions).unwrap();
    let reply = Reply { actions, extra: Vec::new(), routing: None, timing_ms: Vec::new() };
    let reply = Answer { reply: Some(reply), inference: Duration::ZERO, queued: Duration::ZERO };
    prop_assert!(decode(&answer(&request.dialect, reply, None).into(), &limits.decode).is_ok());
    prop_assert_eq!(seen.images.len(), policy.images);
    let range = frame.as_ptr_range();
    let mut held = 0;
    for image in &seen.images {
        let (height, width) = (image.height, image.width);
        prop_assert!(0 < height && height <= limits.image_side && 0 < width && width <= limits.image_side);
        prop_assert!(height * width <= limits.image_pixels);
        prop_assert_eq!(image.rgb.len(), height * width * 3);
        held += if range.contains(&image.rgb.as_ptr()) { 0 } else { image.rgb.len() };
    }
    // Pixels that had to be converted were sent in as many bytes at least.
    prop_assert!(held <= frame.len());
    prop_assert_eq!(Some(seen.state.len()), policy.state_dim);
    prop_assert!(seen.state.iter().all(|number| number.is_finite()));
    prop_assert!(!seen.prompt.trim().is_empty() && seen.prompt.len() <= limits.prompt_bytes);
    prop_assert!(seen.task.as_ref().is_none_or(|task| policy.tasks.contains(task)));
    if let Some(left) = &seen.prev_chunk_left_over {
        prop_assert!(left.shape()[0] <= policy.action_horizon && left.shape()[1] == policy.action_dim);
    }
    let extra: usize = seen.extra.iter().map(|(key, value)| key.len() + memory(value)).sum();
    prop_assert!(extra <= 256 * frame.len());
    Ok(true)
}

/// A valid request, valid; changed in its structure; and damaged in its bytes.
fn run(cases: u32) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let damage = vec((any::<Index>(), any::<u8>()), 0..4);
    let form = select(vec![
        Form::OpenPi,
        Form::MsgpackNumpy,
        #[cfg(feature = "zmq")]
        Form::Npy,
    ]);
    let input = (requests(), vec(changes(), 1..5), damage, any::<Index>(), form);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&input, |((mut request, policy), changes, damage, cut, form)| {
        let frame: Bytes = encode_in(form, &request).into();
        prop_assert!(survives(&frame, &policy)?, "a valid request was refused");
        #[cfg(feature = "zmq")]
        {
            let is_bare = ["type", "examples", "message_type"].iter().all(|key| request.get(key).is_none());
            let mut asked = asked_by_gr00t(&request);
            let accepted = survives_gr00t(&encode_in(form, &asked).into(), &policy)?;
            prop_assert!(accepted || !is_bare, "a valid request of GR00T's was refused");
            changes.iter().for_each(|change| apply(&mut asked, change));
            let mut bytes = encode_in(form, &asked);
            survives_gr00t(&bytes.clone().into(), &policy)?;
            for (index, byte) in &damage {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            survives_gr00t(&bytes.clone().into(), &policy)?;
            bytes.truncate(cut.index(bytes.len()));
            survives_gr00t(&bytes.into(), &policy)?;
        }
        changes.iter().for_each(|change| apply(&mut request, change));
        let mut bytes = encode_in(form, &request);
        survives(&bytes.clone().into(), &policy)?;
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        survives(&bytes.clone().into(), &policy)?;
        bytes.truncate(cut.index(bytes.len()));
        survives(&bytes.into(), &policy)?;
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_request_makes_it_panic_or_reaches_the_policy_unchecked() {
    run(SHORT);
}

#[test]
#[ignore = "takes some minutes"]
fn nor_does_any_of_three_million() {
    run(LONG);
}
