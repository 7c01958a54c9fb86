//! An observation in a server's keys.

use bytes::Bytes;
use skillweld_robot::{ChunkError, ChunkRequest, Expectation, Frame};
use skillweld_serve::{Array, Dtype, KeySet, Value};

use crate::local::rows;

type Entries = Vec<(String, Value)>;

/// Images, state and prompt.
pub(super) fn observation(
    request: &ChunkRequest,
    keys: &KeySet,
    expectation: &Expectation,
) -> Result<Entries, ChunkError> {
    let mut entries = Entries::new();
    for (key, frame) in keys.images.iter().zip(request.observation.frames.iter().take(expectation.images)) {
        insert(&mut entries, key, image(frame, keys)?.into());
    }
    if expectation.state_dim.is_some() {
        let state: Vec<f32> = request.observation.positions.iter().map(|&position| position as f32).collect();
        // Where there are two parts, the second is the gripper.
        let cut = if keys.state.len() > 1 { state.len().saturating_sub(1) } else { state.len() };
        let parts = [&state[..cut], &state[cut..]];
        for (key, part) in keys.state.iter().zip(parts) {
            insert(&mut entries, key, array(Array::from_f32(&[part.len()], part))?.into());
        }
    }
    if expectation.needs_instruction {
        let instruction = request.prompt.instruction.clone().unwrap_or_default();
        entries.push((keys.prompt.to_owned(), instruction.into()));
    }
    Ok(entries)
}

/// What Skillweld's own server takes besides. `running` is the task to go on with, where none is asked for by its name.
pub(super) fn control(
    request: &ChunkRequest,
    begins: bool,
    running: Option<&String>,
) -> Result<Entries, ChunkError> {
    let mut entries = vec![
        ("reset".to_owned(), begins.into()),
        ("inference_delay".to_owned(), request.inference_delay.into()),
    ];
    if let Some(task) = request.prompt.task.as_ref().or(running) {
        entries.push(("task".to_owned(), task.clone().into()));
    }
    if !request.left_over.is_empty() {
        entries.push(("prev_chunk_left_over".to_owned(), array(rows(&request.left_over))?.into()));
    }
    Ok(entries)
}

/// `images/cam_high` lies in a map `images`; all other keys are what they are, slash or not: so openpi's clients send them.
fn insert(entries: &mut Entries, key: &str, value: Value) {
    let Some((map, inner)) = key.split_once('/').filter(|(map, _)| *map == "images") else {
        return entries.push((key.to_owned(), value));
    };
    match entries.iter_mut().find(|(name, _)| name == map) {
        Some((_, Value::Map(inside))) => inside.push((inner.to_owned(), value)),
        _ => entries.push((map.to_owned(), Value::Map(vec![(inner.to_owned(), value)]))),
    }
}

/// height × width × 3; of ALOHA, whose clients send channels first, 3 × height × width.
fn image(frame: &Frame, keys: &KeySet) -> Result<Array, ChunkError> {
    if keys.name != "ALOHA" {
        let shape = vec![frame.height, frame.width, 3];
        return array(Array::new(Dtype::U8, shape, Bytes::copy_from_slice(&frame.rgb)));
    }
    let planes = (0..3).flat_map(|channel| frame.rgb.iter().skip(channel).step_by(3).copied());
    array(Array::new(Dtype::U8, vec![3, frame.height, frame.width], planes.collect::<Vec<u8>>().into()))
}

fn array(array: Result<Array, skillweld_serve::ArrayError>) -> Result<Array, ChunkError> {
    array.map_err(|error| ChunkError::Failed(format!("the observation cannot be sent: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use skillweld_robot::{ActionSpace, Observation, Prompt};
    use skillweld_serve::KEY_SETS;

    use super::*;

    fn request() -> ChunkRequest {
        let frame = |first: u8| Frame {
            rgb: (first..first + 12).collect::<Vec<u8>>().into(),
            height: 2,
            width: 2,
            captured: Instant::now(),
        };
        ChunkRequest {
            observation: Observation {
                captured: Instant::now(),
                positions: vec![1.0, 2.0, 3.0],
                frames: vec![frame(0), frame(100)],
                problems: Vec::new(),
            },
            prompt: Prompt { instruction: Some("pick".to_owned()), task: Some("object".to_owned()) },
            inference_delay: 4,
            left_over: vec![vec![5.0, 6.0]],
        }
    }

    fn expectation() -> Expectation {
        Expectation {
            action_dim: 2,
            space: ActionSpace::Positions,
            names: None,
            units: None,
            state_dim: Some(3),
            images: 2,
            horizon: 8,
            needs_instruction: true,
        }
    }

    fn sent(name: &str) -> Value {
        let keys = KEY_SETS.iter().find(|set| set.name == name).unwrap();
        Value::Map(observation(&request(), keys, &expectation()).unwrap())
    }

    fn numbers(value: Option<&Value>) -> (Vec<usize>, Vec<f64>) {
        let Some(Value::Array(array)) = value else { panic!("{value:?}") };
        (array.shape().to_vec(), array.to_f64())
    }

    #[test]
    fn each_family_gets_its_keys() {
        let plain = sent("plain");
        assert_eq!(numbers(plain.get("image_1")).0, [2, 2, 3]);
        assert_eq!(numbers(plain.get("state")), (vec![3], vec![1.0, 2.0, 3.0]));
        assert_eq!(plain.get("prompt").and_then(Value::as_text), Some("pick"));

        let droid = sent("DROID");
        assert_eq!(numbers(droid.get("observation/joint_position")), (vec![2], vec![1.0, 2.0]));
        assert_eq!(numbers(droid.get("observation/gripper_position")), (vec![1], vec![3.0]));

        let aloha = sent("ALOHA");
        let (shape, values) = numbers(aloha.get("images").unwrap().get("cam_high"));
        assert_eq!(shape, [3, 2, 2]);
        assert_eq!(values, [0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0]);
        assert!(aloha.get("images").unwrap().get("cam_left_wrist").is_some());
    }

    #[test]
    fn what_steers_is_told_besides() {
        let pushing = "push".to_owned();
        let control = Value::Map(control(&request(), true, Some(&pushing)).unwrap());
        assert_eq!(control.get("reset"), Some(&Value::Bool(true)));
        assert_eq!(control.get("inference_delay"), Some(&Value::Int(4)));
        assert_eq!(control.get("task").and_then(Value::as_text), Some("object"));
        assert_eq!(numbers(control.get("prev_chunk_left_over")), (vec![1, 2], vec![5.0, 6.0]));
    }
}
