//! α, the way, and the statistics: the same for one interpolation and for a step of a chain.

use clap::ValueEnum;
use skillweld_retain::{Alphas, Interpolation, Keep, Method};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How far to go from the base (0) to the finetuned policy (1).
    #[arg(
        long,
        value_name = "A",
        value_parser = alpha,
        allow_negative_numbers = true,
        required_unless_present = "preset",
        conflicts_with = "preset"
    )]
    alpha: Option<f64>,
    /// α of vision encoder and projector [default: --alpha].
    #[arg(long, value_name = "V", value_parser = alpha, allow_negative_numbers = true)]
    alpha_vision: Option<f64>,
    /// α of the language backbone [default: --alpha].
    #[arg(long, value_name = "L", value_parser = alpha, allow_negative_numbers = true)]
    alpha_language: Option<f64>,
    /// α of the action expert, its files beside the weights too [default: --alpha].
    #[arg(long, value_name = "C", value_parser = alpha, allow_negative_numbers = true)]
    alpha_action: Option<f64>,
    /// A set of α; single ones can be given besides.
    #[arg(long, value_enum, value_name = "NAME")]
    preset: Option<Preset>,
    /// The way from one policy to the other.
    #[arg(long, value_enum, value_name = "METHOD", default_value_t)]
    method: Way,
    /// Share of the changes that dare and dare-slerp keep, above 0 and up to 1.
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    density: Option<f64>,
    /// Seed of what dare and dare-slerp drop.
    #[arg(long, value_name = "N", default_value_t)]
    seed: u64,
    /// What weights are rounded to, such as float32 or bfloat16 [default: as the base has them].
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    /// Whose normalisation statistics to keep where the two policies have different ones.
    #[arg(long, value_enum, value_name = "WHOSE")]
    statistics: Option<Whose>,
}

/// `--preset`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// 0.8 for the language backbone, 1 for all else: in the paper as good as interpolating everything
    LanguageOnly,
}

/// `--method`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Way {
    /// (1 − α) Θ_base + α Θ_finetuned
    #[default]
    Linear,
    /// Along the great circle, tensor by tensor; straight where |cos| > 0.9995
    Slerp,
    /// Drops changes at random, divides the others by the density, then straight
    Dare,
    /// Drops changes likewise, then along the great circle
    DareSlerp,
}

/// `--statistics`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whose {
    /// The pretrained policy's
    Base,
    /// The finetuned policy's
    Finetuned,
}

impl Options {
    pub(crate) fn interpolation(&self) -> anyhow::Result<Interpolation> {
        let preset = match (self.preset, self.alpha) {
            (Some(Preset::LanguageOnly), _) => Alphas::LANGUAGE_ONLY,
            (None, Some(alpha)) => Alphas::all(alpha),
            (None, None) => anyhow::bail!("`--alpha` is missing"),
        };
        let interpolation = Interpolation {
            alpha: Alphas {
                vision: self.alpha_vision.unwrap_or(preset.vision),
                language: self.alpha_language.unwrap_or(preset.language),
                action: self.alpha_action.unwrap_or(preset.action),
                other: preset.other,
            },
            method: match self.method {
                Way::Linear => Method::Linear,
                Way::Slerp => Method::Slerp,
                Way::Dare => Method::Dare,
                Way::DareSlerp => Method::DareSlerp,
            },
            density: self.density,
            seed: self.seed,
            dtype: self.dtype.clone(),
            statistics: self.statistics.map(|whose| match whose {
                Whose::Base => Keep::Base,
                Whose::Finetuned => Keep::Finetuned,
            }),
        };
        interpolation.check()?;
        Ok(interpolation)
    }
}

fn alpha(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|alpha| (0.0..=1.0).contains(alpha));
    value.ok_or_else(|| "α goes from 0 (the base) to 1 (the finetuned policy)".to_owned())
}
