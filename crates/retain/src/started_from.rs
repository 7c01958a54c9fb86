//! Did a skill's finetuning start from the policy that the chain had by then? What training leaves behind tells it in part.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skillweld_merged::layout::{BLOCK, RETAIN_PROVENANCE};
use skillweld_merged::read_json;
use skillweld_store::{Adapter, Checkpoint};
use skillweld_tensor::TensorView;

use crate::{Contents, RetainError};

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did.
    Confirmed,
    /// It did not.
    Contradicted,
    /// Nothing that is there tells it.
    Unknown,
}

/// A verdict and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartedFrom {
    /// What can be said.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub evidence: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Confirmed => "confirmed",
            Self::Contradicted => "contradicted",
            Self::Unknown => "unknown",
        })
    }
}

impl StartedFrom {
    fn new(verdict: Verdict, evidence: impl Into<String>) -> Self {
        Self { verdict, evidence: evidence.into() }
    }

    /// Looks at the provenance that training may have copied along, at the base that an adapter names, and at which of the
    /// chain's policies the weights lie nearest to, by the first block of each tensor.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub(crate) fn find(
        finetuned: &Path,
        start: (&Path, &Contents),
        pretrained: Option<&Path>,
    ) -> Result<Self, RetainError> {
        if let Some(found) = by_provenance(finetuned, start.1) {
            return Ok(found);
        }
        match Checkpoint::open(finetuned) {
            Ok(weights) => by_distance(&weights, start.0, pretrained),
            Err(_) => by_adapter(finetuned, start.0, pretrained),
        }
    }
}

/// `skillweld_retain.json` beside the weights is that of what training started from, if it copies such files.
fn by_provenance(finetuned: &Path, expected: &Contents) -> Option<StartedFrom> {
    let document = read_json(&finetuned.join(RETAIN_PROVENANCE)).ok()?;
    let found = document["result_blake3"]["weights"].as_str()?;
    let is_same = expected.get("weights").is_some_and(|expected| expected == found);
    Some(match is_same {
        true => StartedFrom::new(
            Verdict::Confirmed,
            format!("its {RETAIN_PROVENANCE} is that of the policy before it"),
        ),
        false => StartedFrom::new(
            Verdict::Contradicted,
            format!("its {RETAIN_PROVENANCE} is that of another policy ({found:.12}…)"),
        ),
    })
}

fn by_adapter(finetuned: &Path, start: &Path, pretrained: Option<&Path>) -> Result<StartedFrom, RetainError> {
    let nested = finetuned.join("lora_adapter");
    let adapter = Adapter::open(if nested.is_dir() { &nested } else { finetuned })?;
    let named = adapter.base_model().unwrap_or_default();
    let real = |path: &Path| path.canonicalize().ok();
    let place = real(Path::new(named)).filter(|_| !named.is_empty());
    let is = |path: &Path| place.is_some() && place == real(path);
    Ok(if is(start) {
        StartedFrom::new(Verdict::Confirmed, "its adapter names the policy before it as its base")
    } else if pretrained.is_some_and(is) {
        StartedFrom::new(Verdict::Contradicted, "its adapter names the pretrained policy as its base")
    } else if named.is_empty() {
        StartedFrom::new(Verdict::Unknown, "its adapter names no base")
    } else {
        StartedFrom::new(Verdict::Unknown, format!("its adapter names `{named}` as its base"))
    })
}

/// Finetuning moves weights by less than the steps before moved them: whatever the weights are nearest to is where they
/// started.
fn by_distance(
    finetuned: &Checkpoint,
    start: &Path,
    pretrained: Option<&Path>,
) -> Result<StartedFrom, RetainError> {
    let start = Checkpoint::open(start)?;
    let pretrained = pretrained.map(Checkpoint::open).transpose()?;
    let (mut to_start, mut to_pretrained, mut own) = (0.0, 0.0, 0.0);
    for key in finetuned.keys() {
        let (Some(view), Some(from)) = (finetuned.get(key), start.get(key)) else { continue };
        let Some([distance, norm]) = squares(&view, &from) else { continue };
        to_start += distance;
        own += norm;
        let first = pretrained.as_ref().and_then(|pretrained| pretrained.get(key));
        to_pretrained += first.and_then(|first| squares(&view, &first)).map_or(0.0, |[distance, _]| distance);
    }
    if own == 0.0 {
        return Ok(StartedFrom::new(
            Verdict::Unknown,
            "it has no weights in common with the policy before it",
        ));
    }
    let relative = |square: f64| format!("{:.3}", (square / own).sqrt());
    // Independent weights of one size are √2 apart.
    if to_start >= own {
        let text = format!(
            "its weights are as far from the policy before it as unrelated ones ({})",
            relative(to_start)
        );
        return Ok(StartedFrom::new(Verdict::Contradicted, text));
    }
    if pretrained.is_none() {
        let text = format!("relative distance to the pretrained policy {}", relative(to_start));
        return Ok(StartedFrom::new(Verdict::Unknown, text));
    }
    let distances = format!(
        "relative distance {} to the policy before it, {} to the pretrained one",
        relative(to_start),
        relative(to_pretrained)
    );
    let verdict = if to_start < to_pretrained { Verdict::Confirmed } else { Verdict::Contradicted };
    Ok(StartedFrom::new(verdict, distances))
}

/// \[Σ (a − b)², Σ a²\] over the first block; `None` for tensors that cannot be compared.
fn squares(a: &TensorView<'_>, b: &TensorView<'_>) -> Option<[f64; 2]> {
    if a.shape() != b.shape() {
        return None;
    }
    let [mut x, mut y] = [0, 1].map(|_| vec![0.0f32; BLOCK.min(a.numel())]);
    a.decode_block(0, &mut x).ok()?;
    b.decode_block(0, &mut y).ok()?;
    let square = |x: f64| x * x;
    let distance = x.iter().zip(&y).map(|(x, y)| square(f64::from(*x) - f64::from(*y))).sum();
    Some([distance, x.iter().map(|x| square(f64::from(*x))).sum()])
}

/// Where the pretrained policy lies, if it is another than the one before the skill.
pub(crate) fn pretrained_apart(skills: usize, base: &Path) -> Option<PathBuf> {
    (skills > 0).then(|| base.to_owned())
}
