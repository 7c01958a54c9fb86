use super::RGB;
use crate::PolicyError;

/// How one vision tower wants its pixels: (v / 255 − mean) / std, by channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Of R, G, B, on the scale 0 to 1.
    pub mean: [f32; RGB],
    /// Of R, G, B, on the scale 0 to 1.
    pub std: [f32; RGB],
}

impl Normalization {
    /// Statistics of ImageNet: DINOv2 and most towers trained on labels.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// From −1 to 1: SigLIP.
    pub const HALF: Self = Self { mean: [0.5; RGB], std: [0.5; RGB] };
    /// Statistics of OpenAI's CLIP data.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };

    /// What timm has for a tower, by the family in its name (an entry of `timm_model_ids` in `config.json`).
    ///
    /// # Errors
    /// [`PolicyError::Observation`] for a tower of no family that Prismatic models use.
    pub fn of_timm_model(id: &str) -> Result<Self, PolicyError> {
        // `siglip` holds `clip`: the longer name comes first.
        let families = [("siglip", Self::HALF), ("dino", Self::IMAGENET), ("clip", Self::CLIP)];
        let known = families.into_iter().find(|(family, _)| id.contains(family));
        known.map(|(_, normalization)| normalization).ok_or_else(|| {
            PolicyError::Observation(format!(
                "the normalisation of vision tower `{id}` is not known; known are DINO, SigLIP and CLIP towers"
            ))
        })
    }

    /// From H × W × 3 to 3 × H × W. A byte has 256 values, so every quotient is computed once.
    pub(super) fn apply(&self, pixels: &[u8], planes: &mut [f32]) {
        let plane = pixels.len() / RGB;
        for (channel, plane) in planes.chunks_exact_mut(plane.max(1)).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            for (out, pixel) in plane.iter_mut().zip(pixels.chunks_exact(RGB)) {
                *out = table[usize::from(pixel[channel])];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn towers_of_the_published_models_are_known() {
        let of = |id| Normalization::of_timm_model(id).unwrap();
        assert_eq!(of("vit_large_patch14_reg4_dinov2.lvd142m"), Normalization::IMAGENET);
        assert_eq!(of("vit_so400m_patch14_siglip_224"), Normalization::HALF);
        assert_eq!(of("vit_large_patch14_clip_336.openai"), Normalization::CLIP);
        let error = Normalization::of_timm_model("resnet50").unwrap_err();
        assert!(error.to_string().contains("`resnet50`"), "{error}");
    }

    #[test]
    fn channels_become_planes() {
        let mut planes = [0.0; 6];
        Normalization::HALF.apply(&[0, 51, 102, 255, 204, 153], &mut planes);
        let expected = [-1.0, 1.0, -0.6, 0.6, -0.2, 0.2];
        for (value, expected) in planes.into_iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{planes:?}");
        }
    }
}
