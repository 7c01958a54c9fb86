//! Observations into what the model takes.

use std::borrow::Cow;
use std::path::Path;

use ndarray::Array3;

use super::Policy;
use crate::PolicyError;
use crate::backend::{Backend, Result};
use crate::config::Config;
use crate::image::{Normalization, Preprocessor};
use crate::observation::Observation;
use crate::text::{MAX_PROMPT_TOKENS, PromptEncoder, PromptTemplate};

/// Images and text into tensors.
pub(super) struct Preparation {
    images: Preprocessor,
    text: PromptEncoder,
}

/// An observation as the model takes it, but for the state, whose normalisation depends on the task.
pub(crate) struct Prepared<'a> {
    pub(crate) pixel_values: Cow<'a, Array3<f32>>,
    pub(crate) input_ids: Cow<'a, [u32]>,
}

impl Preparation {
    /// From the files in `dir`, and from `base` for an adapter that has no tokenizer of its own.
    pub(super) fn open(dir: &Path, base: Option<&Path>, config: &Config) -> Result<Self> {
        let normalizations = config.towers.iter().map(|tower| Normalization::of_timm_model(&tower.model_id));
        let images = Preprocessor::new(config.towers[0].image_side, normalizations.collect::<Result<_>>()?);
        let template = PromptTemplate::for_language_model(&config.language.model_type);
        let dir = base.filter(|base| !PromptEncoder::is_at(dir) && PromptEncoder::is_at(base)).unwrap_or(dir);
        let text = PromptEncoder::open(dir, template)?;
        Ok(Self { images, text })
    }
}

impl<B: Backend> Policy<B> {
    /// Pixels and tokens of an observation.
    pub(crate) fn prepare<'a>(&self, observation: &'a Observation) -> Result<Prepared<'a>> {
        self.check_images(observation)?;
        match observation {
            Observation::Prepared { pixel_values, input_ids, .. } => Ok(Prepared {
                pixel_values: Cow::Borrowed(pixel_values),
                input_ids: Cow::Borrowed(input_ids),
            }),
            Observation::Raw { images, instruction, .. } => {
                let preparation = self.preparation.as_ref().map_err(|reason| {
                    PolicyError::Observation(format!("only prepared observations can be taken: {reason}"))
                })?;
                let views: Vec<_> = images.iter().map(|image| image.view()).collect();
                Ok(Prepared {
                    pixel_values: Cow::Owned(preparation.images.pixel_values(&views)?),
                    input_ids: Cow::Owned(preparation.text.encode(instruction, MAX_PROMPT_TOKENS)?),
                })
            }
        }
    }

    /// As many images as the policy was opened for: another number would give actions, and wrong ones.
    fn check_images(&self, observation: &Observation) -> Result<()> {
        let expected = self.shape.images;
        let problem = match observation {
            Observation::Raw { images, .. } if images.len() < expected => {
                let (given, missing) = (images.len(), images.len());
                format!("`image_{missing}` is missing: there are {given} images, the policy takes {expected}")
            }
            Observation::Raw { images, .. } if images.len() > expected => {
                let given = images.len();
                format!(
                    "`image_{expected}` is one too many: there are {given} images, the policy takes {expected}"
                )
            }
            Observation::Prepared { pixel_values, .. }
                if pixel_values.dim().0 != expected * self.channels_per_image =>
            {
                let (channels, height, width) = pixel_values.dim();
                let expected_channels = expected * self.channels_per_image;
                format!(
                    "pixel_values: shape [{channels}, {height}, {width}], expected {expected_channels} channels: the policy \
                     takes {expected} images"
                )
            }
            _ => return Ok(()),
        };
        let remedy = "give as many as the experts were trained with, or open the policy for another number of images (`--images N`)";
        Err(PolicyError::Observation(format!("{problem}; {remedy}")))
    }

    /// The state of an observation as the experts of `task` were trained with.
    pub(crate) fn proprio(&self, observation: &Observation, task: usize) -> Result<Vec<f32>> {
        match observation {
            Observation::Prepared { proprio, .. } if proprio.len() != self.shape.proprio_dim => {
                let (found, expected) = (proprio.len(), self.shape.proprio_dim);
                Err(PolicyError::Observation(format!("proprio: {found} values, expected {expected}")))
            }
            Observation::Prepared { proprio, .. } => Ok(proprio.clone()),
            Observation::Raw { state, .. } => self.statistics[task].normalize_proprio(state),
        }
    }
}
