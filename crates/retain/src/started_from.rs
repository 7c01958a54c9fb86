//! Did a skill's finetuning start from the policy that the chain had by then? What training leaves behind tells it in part.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skillweld_merged::layout::{BLOCK, RETAIN_PROVENANCE};
use skillweld_merged::read_json;
use skillweld_store::{Adapter, Checkpoint};
use skillweld_tensor::TensorView;

use crate::{Contents, RetainError};

/// Another policy of the chain, from which it may have been finetuned instead.
#[derive(Debug)]
pub(crate) struct Known {
    /// Such as `the policy of skill stove`.
    pub(crate) what: String,
    pub(crate) path: PathBuf,
}

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
        others: &[Known],
    ) -> Result<Self, RetainError> {
        if let Some(found) = by_provenance(finetuned, start.1) {
            return Ok(found);
        }
        match Checkpoint::open(finetuned) {
            Ok(weights) => by_distance(&weights, start.0, others),
            Err(_) => by_adapter(finetuned, start.0, others),
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

fn by_adapter(finetuned: &Path, start: &Path, others: &[Known]) -> Result<StartedFrom, RetainError> {
    let nested = finetuned.join("lora_adapter");
    let adapter = Adapter::open(if nested.is_dir() { &nested } else { finetuned })?;
    let named = adapter.base_model().unwrap_or_default();
    let real = |path: &Path| path.canonicalize().ok();
    let place = real(Path::new(named)).filter(|_| !named.is_empty());
    let is = |path: &Path| place.is_some() && place == real(path);
    Ok(if is(start) {
        StartedFrom::new(Verdict::Confirmed, "its adapter names the policy before it as its base")
    } else if let Some(other) = others.iter().find(|other| is(&other.path)) {
        StartedFrom::new(Verdict::Contradicted, format!("its adapter names {} as its base", other.what))
    } else if named.is_empty() {
        StartedFrom::new(Verdict::Unknown, "its adapter names no base")
    } else {
        StartedFrom::new(Verdict::Unknown, format!("its adapter names `{named}` as its base"))
    })
}

/// Finetuning moves weights by less than the steps before moved them: of all policies that the chain knows, the one that
/// the weights are nearest to is the one that they started from, or are.
fn by_distance(finetuned: &Checkpoint, start: &Path, others: &[Known]) -> Result<StartedFrom, RetainError> {
    let start = Checkpoint::open(start)?;
    // One that is gone, or is an adapter, cannot be compared.
    let others = others.iter().filter_map(|other| Some((&other.what, Checkpoint::open(&other.path).ok()?)));
    let others: Vec<(&String, Checkpoint)> = others.collect();
    let (mut to_start, mut own) = (0.0, 0.0);
    let mut to_others = vec![0.0; others.len()];
    for key in finetuned.keys() {
        let (Some(view), Some(from)) = (finetuned.get(key), start.get(key)) else { continue };
        let Some([distance, norm]) = squares(&view, &from) else { continue };
        to_start += distance;
        own += norm;
        for (sum, (_, other)) in to_others.iter_mut().zip(&others) {
            let distance = other.get(key).and_then(|other| squares(&view, &other));
            *sum += distance.map_or(norm, |[distance, _]| distance);
        }
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
    let nearest = to_others.iter().zip(&others).min_by(|(a, _), (b, _)| a.total_cmp(b));
    let Some((to_nearest, (what, _))) = nearest else {
        let text = format!("relative distance {} to the pretrained policy", relative(to_start));
        return Ok(StartedFrom::new(Verdict::Unknown, text));
    };
    let distances = format!(
        "relative distance {} to the policy before it, {} to {what}",
        relative(to_start),
        relative(*to_nearest)
    );
    let verdict = if to_start < *to_nearest { Verdict::Confirmed } else { Verdict::Contradicted };
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
