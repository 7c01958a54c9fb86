use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Keep, RetainError};

/// How far to go from the pretrained weights (0) to the finetuned ones (1), by modality.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alphas {
    /// Vision encoder and projector into the language model.
    pub vision: f64,
    /// Language backbone.
    pub language: f64,
    /// Action expert and what feeds it, its files beside the weights too.
    pub action: f64,
    /// Tensors of no known modality.
    pub other: f64,
}

impl Alphas {
    /// The same for all.
    pub const fn all(alpha: f64) -> Self {
        Self { vision: alpha, language: alpha, action: alpha, other: alpha }
    }

    /// The paper's finding that merging the language backbone alone does as well as merging all: α = 0.8 there, and the
    /// finetuned weights elsewhere.
    pub const LANGUAGE_ONLY: Self = Self { language: 0.8, ..Self::all(1.0) };

    /// Each with its name.
    pub fn named(self) -> [(&'static str, f64); 4] {
        [("vision", self.vision), ("language", self.language), ("action", self.action), ("other", self.other)]
    }
}

impl fmt::Display for Alphas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all(self.other) {
            return write!(f, "{}", self.other);
        }
        let named = self.named().map(|(name, alpha)| format!("{name} {alpha}"));
        f.write_str(&named.join(", "))
    }
}

/// The way from one policy to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// (1 − α) Θ_pre + α Θ_ft.
    #[default]
    Linear,
    /// Along the great circle, tensor by tensor; straight where |cos| > 0.9995.
    Slerp,
    /// Θ_pre + α τ' where τ' is τ = Θ_ft − Θ_pre with entries dropped at random, the others divided by the density.
    Dare,
    /// Slerp from Θ_pre to Θ_pre + τ'.
    DareSlerp,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Linear, Self::Slerp, Self::Dare, Self::DareSlerp];

    /// Its name on the command line and in ledgers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Slerp => "slerp",
            Self::Dare => "dare",
            Self::DareSlerp => "dare-slerp",
        }
    }

    /// Drops entries at random.
    pub const fn is_random(self) -> bool {
        matches!(self, Self::Dare | Self::DareSlerp)
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let known = Self::ALL.into_iter().find(|method| method.name() == text);
        known.ok_or_else(|| format!("no method is called `{text}`; there are {}", names()))
    }
}

/// One interpolation: everything but the two policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interpolation {
    /// How far to go.
    pub alpha: Alphas,
    /// Which way.
    pub method: Method,
    /// Chance of each entry of τ to be kept, for [`Method::Dare`] and [`Method::DareSlerp`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
    /// Seed of what is dropped.
    #[serde(default)]
    pub seed: u64,
    /// What weights are rounded to, as a recipe's `out_dtype`; `None`: as the pretrained policy has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Whose normalisation statistics are kept where the two differ; `None` refuses that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Keep>,
}

impl Interpolation {
    /// Straight, with these α.
    pub fn linear(alpha: Alphas) -> Self {
        Self { alpha, method: Method::Linear, density: None, seed: 0, dtype: None, statistics: None }
    }

    /// Refuses numbers that make no sense.
    ///
    /// # Errors
    /// [`RetainError::Alpha`] for one outside 0..=1, [`RetainError::Density`] for one outside 0..=1, missing, or of no use.
    pub fn check(&self) -> Result<(), RetainError> {
        for (name, value) in self.alpha.named() {
            // NaN lies nowhere.
            if !(0.0..=1.0).contains(&value) {
                return Err(RetainError::Alpha { name, value });
            }
        }
        let problem = match self.density {
            None if self.method.is_random() => "is missing: say which share of the changes to keep",
            Some(_) if !self.method.is_random() => "is of no use: only `dare` and `dare-slerp` drop anything",
            Some(density) if !(0.0..=1.0).contains(&density) || density == 0.0 => {
                "must lie above 0 and be at most 1"
            }
            _ => return Ok(()),
        };
        Err(RetainError::Density { method: self.method.name(), density: self.density, problem })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;

    #[test]
    fn numbers_out_of_range_are_named() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let alpha = Alphas { language: bad, ..Alphas::all(0.5) };
            let error = Interpolation::linear(alpha).check().unwrap_err().to_string();
            assert!(error.contains("language") && error.contains("0 to 1"), "{error}");
        }
        let dare = Interpolation { method: Method::Dare, ..Interpolation::linear(Alphas::all(0.5)) };
        assert!(dare.check().unwrap_err().to_string().contains("is missing"));
        for bad in [0.0, -1.0, 1.5, f64::NAN] {
            let dare = Interpolation { density: Some(bad), ..dare.clone() };
            assert!(dare.check().unwrap_err().to_string().contains("at most 1"));
        }
        assert!(Interpolation { density: Some(0.5), ..dare.clone() }.check().is_ok());
        let linear = Interpolation { density: Some(0.5), ..Interpolation::linear(Alphas::all(0.5)) };
        assert!(linear.check().unwrap_err().to_string().contains("of no use"));
    }

    #[test]
    fn names_go_there_and_back() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.name());
        }
        assert!("darre".parse::<Method>().unwrap_err().contains("dare-slerp"));
        assert_eq!(Alphas::all(0.8).to_string(), "0.8");
        assert_eq!(Alphas::LANGUAGE_ONLY.to_string(), "vision 1, language 0.8, action 1, other 1");
    }
}
