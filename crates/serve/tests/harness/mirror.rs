//! A policy that shows what reaches policies.

use skillweld_serve::{
    Array, Dtype, InferError, Metadata, Observation, Options, Policy, Reason, Reply, Routing, Scores, Value,
};

use super::{Running, array, small};

/// Answers with what it saw.
pub struct Mirror(pub Metadata);

impl Policy for Mirror {
    /// Requests since the last reset.
    type Session = u32;

    fn metadata(&self) -> Metadata {
        self.0.clone()
    }

    fn session(&self) -> u32 {
        0
    }

    fn infer(&self, count: &mut u32, seen: Observation) -> Result<Reply, InferError> {
        *count += 1;
        let row = |values: &[f32]| Array::from_f32(&[1, values.len()], values).unwrap();
        // Per image: height, width, its first pixel.
        let images = seen.images.iter().flat_map(|image| {
            assert_eq!(image.rgb.len(), image.height * image.width * 3);
            let pixel = image.rgb[..3].iter().map(|&byte| f32::from(byte));
            [image.height as f32, image.width as f32].into_iter().chain(pixel).collect::<Vec<_>>()
        });
        let delay = seen.inference_delay.map_or(-1.0, |steps| steps as f32);
        let left = seen.prev_chunk_left_over.map_or(-1.0, |array| array.len() as f32);
        if seen.prompt == "abstain" {
            return Err(InferError::Abstained { message: "not sure".into(), scores: scores() });
        }
        let reason = if seen.task.is_some() { Reason::Requested } else { Reason::Routed };
        let asked = seen.task.is_none() && *count == 1;
        let task = seen.task.unwrap_or_else(|| self.0.tasks.first().cloned().unwrap_or_default());
        Ok(Reply {
            actions: row(&seen.state),
            extra: vec![
                ("images".into(), row(&images.collect::<Vec<_>>())),
                (
                    "facts".into(),
                    row(&[*count as f32, delay, left, seen.prompt.len() as f32, seen.extra.len() as f32]),
                ),
            ],
            routing: Some(Routing { task, reason, scores: Some(scores()), asked }),
            timing_ms: vec![("vision".into(), 1.5)],
        })
    }
}

fn scores() -> Scores {
    Scores { candidates: vec![("pick".into(), 0.75), ("push".into(), 0.25)], margin: 0.5 }
}

pub fn mirror(images: usize, state_dim: usize) -> Running {
    let metadata = Metadata { images, state_dim: Some(state_dim), prompt: true, ..small() };
    Running::start(Mirror(metadata), Options::default())
}

pub fn image(shape: &[usize], pixels: Vec<u8>) -> Value {
    array(Dtype::U8, shape, pixels)
}
