//! What a policy is asked about: camera images, the robot's state, an instruction.

use ndarray::{Array3, ArrayView3};

use crate::PolicyError;
use crate::backend::Result;

/// One moment of a robot's life.
#[derive(Debug, Clone)]
pub enum Observation {
    /// As cameras and joints give it.
    Raw {
        /// One image a camera, u8, height × width × 3 (RGB), in the order that the experts were trained with.
        images: Vec<Array3<u8>>,
        /// The robot's state in its own units.
        state: Vec<f64>,
        /// What to do, in words.
        instruction: String,
    },
    /// As the model takes it, for comparing with other implementations.
    Prepared {
        /// (6 · images) × side × side: each image normalised for the first tower, then for the second.
        pixel_values: Array3<f32>,
        /// The prompt's tokens.
        input_ids: Vec<u32>,
        /// The state, normalised to −1 … 1.
        proprio: Vec<f32>,
    },
}

impl Observation {
    /// An observation from a robot.
    pub fn new(images: &[ArrayView3<'_, u8>], state: &[f64], instruction: impl Into<String>) -> Self {
        Self::Raw {
            images: images.iter().map(ArrayView3::to_owned).collect(),
            state: state.to_vec(),
            instruction: instruction.into(),
        }
    }

    /// Refuses NaN and infinity before anything is computed with them.
    pub(crate) fn check_finite(&self) -> Result<()> {
        let refuse = |name: &str, index: usize| {
            Err(PolicyError::Observation(format!("`{name}` is NaN or infinite at element {index}")))
        };
        match self {
            Self::Raw { state, .. } => match state.iter().position(|value| !value.is_finite()) {
                Some(index) => refuse("state", index),
                None => Ok(()),
            },
            Self::Prepared { pixel_values, proprio, .. } => {
                if let Some(index) = pixel_values.iter().position(|value| !value.is_finite()) {
                    return refuse("pixel_values", index);
                }
                match proprio.iter().position(|value| !value.is_finite()) {
                    Some(index) => refuse("proprio", index),
                    None => Ok(()),
                }
            }
        }
    }
}
