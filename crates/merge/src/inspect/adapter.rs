use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use skillweld_merged::read_json;
use skillweld_store::{Adapter, Checkpoint};

use super::strings;
use crate::MergeError;

/// A PEFT LoRA adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterInfo {
    /// The base model, as the adapter's config names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// Rank → number of weights adapted at this rank.
    pub ranks: BTreeMap<usize, u64>,
    /// `lora_alpha`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The scale is alpha / √rank instead of alpha / rank.
    pub rslora: bool,
    /// Rank → what B·A is multiplied with, ascending: one number, or several where `alpha_pattern` gives modules an alpha
    /// of their own. Empty for an adapter that cannot be merged.
    pub scales: BTreeMap<usize, Vec<f32>>,
    /// `rank_pattern`, where it says something.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub rank_pattern: Value,
    /// `alpha_pattern`, where it says something.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub alpha_pattern: Value,
    /// Last part of the adapted modules' names → how many there are.
    pub targets: BTreeMap<String, u64>,
    /// `modules_to_save`: saved whole.
    pub modules_to_save: Vec<String>,
    /// Why Skillweld cannot merge it, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The tensors of the adapter in `dir`, and what its config says. An adapter that cannot be merged is described too.
pub(super) fn open(dir: &Path) -> Result<(Checkpoint, AdapterInfo), MergeError> {
    let config = read_json(&dir.join("adapter_config.json"))?;
    let weights = dir.join("adapter_model.safetensors");
    let weights = if weights.exists() { weights } else { dir.join("adapter_model.bin") };
    let tensors = Checkpoint::open(weights)?;
    let (mut ranks, mut targets) = (BTreeMap::new(), BTreeMap::new());
    for key in tensors.keys() {
        // One of each pair of factors: A is rank × n, also of embeddings.
        let module = key.split_once(".lora_A.").or_else(|| key.split_once(".lora_embedding_A"));
        let (Some((module, _)), Some(view)) = (module, tensors.get(key)) else { continue };
        *ranks.entry(view.shape().first().copied().unwrap_or(0)).or_default() += 1;
        let name = module.rsplit('.').next().unwrap_or(module);
        *targets.entry(name.to_owned()).or_default() += 1;
    }
    let pattern = |name: &str| {
        let said = config[name].as_object().is_some_and(|patterns| !patterns.is_empty());
        if said { config[name].clone() } else { Value::Null }
    };
    let (alpha, rslora) = (config["lora_alpha"].as_f64(), config["use_rslora"].as_bool().unwrap_or(false));
    let (scales, problem) = match Adapter::open(dir) {
        Ok(adapter) => (scales(&adapter), None),
        Err(error) => (BTreeMap::new(), Some(error.to_string())),
    };
    let info = AdapterInfo {
        base_model: config["base_model_name_or_path"].as_str().map(str::to_owned),
        ranks,
        alpha,
        rslora,
        scales,
        rank_pattern: pattern("rank_pattern"),
        alpha_pattern: pattern("alpha_pattern"),
        targets,
        modules_to_save: strings(&config["modules_to_save"]),
        problem,
    };
    Ok((tensors, info))
}

/// Every scale in use, by rank.
fn scales(adapter: &Adapter) -> BTreeMap<usize, Vec<f32>> {
    let mut scales: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    for key in adapter.keys() {
        if let (Some(rank), Some(scale)) = (adapter.rank(key), adapter.scale(key)) {
            scales.entry(rank).or_default().push(scale);
        }
    }
    for scales in scales.values_mut() {
        scales.sort_by(f32::total_cmp);
        scales.dedup();
    }
    scales
}
