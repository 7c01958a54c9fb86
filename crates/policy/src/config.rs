//! `config.json` of a Prismatic checkpoint (OpenVLA's form): what tensor shapes do not say.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use skillweld_store::StoreError;

use crate::{ActionSpace, PolicyError};

/// What the forward needs of `config.json`. Widths, depths and counts come from the tensors themselves; where the config
/// names them as well, the two must agree.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    /// One a vision tower, in the order of their channels and features: `featurizer`, then `fused_featurizer`.
    pub towers: Vec<TowerConfig>,
    /// The language model.
    pub language: LanguageConfig,
    /// Actions of a chunk, where `num_actions_chunk` says it (see [`crate::expert`] for the published values).
    pub chunk_len: Option<usize>,
    /// Dataset statistics by dataset, as `dataset_statistics.json` has them too.
    pub norm_stats: Option<Value>,
    /// What the numbers of actions mean, where it says so.
    pub action_space: Option<ActionSpace>,
}

/// One vision tower: a timm vision transformer.
#[derive(Debug, Clone)]
pub struct TowerConfig {
    /// timm's name, such as `vit_large_patch14_reg4_dinov2.lvd142m`.
    pub model_id: String,
    /// Side of its images in pixels.
    pub image_side: usize,
    /// Attention heads: of `timm_model_args`, or of the published model of that name.
    pub heads: usize,
    /// Width, if the config names it.
    pub width: Option<usize>,
    /// Number of blocks, if the config names it.
    pub depth: Option<usize>,
    /// Side of a patch, if the config names it.
    pub patch_side: Option<usize>,
}

/// The language model, `text_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct LanguageConfig {
    /// The architecture: `qwen2`.
    pub model_type: String,
    /// Attention heads; without it, heads are 64 wide as in Qwen2.5-0.5B.
    #[serde(rename = "num_attention_heads")]
    pub heads: Option<usize>,
    /// Heads of keys and values, if named.
    #[serde(rename = "num_key_value_heads")]
    pub kv_heads: Option<usize>,
    /// Width, if named.
    #[serde(rename = "hidden_size")]
    pub width: Option<usize>,
    /// Number of layers, if named.
    #[serde(rename = "num_hidden_layers")]
    pub depth: Option<usize>,
    /// Longest sequence, if named.
    #[serde(rename = "max_position_embeddings")]
    pub max_positions: Option<usize>,
    /// θ of the rotary embedding; Qwen2.5's 10⁶ if not named.
    #[serde(default = "qwen_rope_theta")]
    pub rope_theta: f64,
    /// ε of RMSNorm.
    #[serde(default = "qwen_epsilon")]
    pub rms_norm_eps: f32,
    #[serde(default)]
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    rope_scaling: Option<RopeParameters>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    hidden_act: Option<String>,
}

/// How transformers 5 names the rotary embedding, and older versions its scaling.
#[derive(Debug, Clone, Deserialize)]
struct RopeParameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
}

fn qwen_rope_theta() -> f64 {
    1e6
}

fn qwen_epsilon() -> f32 {
    1e-6
}

#[derive(Deserialize)]
struct Raw {
    timm_model_ids: Vec<String>,
    image_sizes: Vec<usize>,
    #[serde(default)]
    timm_model_args: Vec<TimmArgs>,
    #[serde(default)]
    timm_override_act_layers: Vec<Option<String>>,
    text_config: LanguageConfig,
    num_actions_chunk: Option<usize>,
    norm_stats: Option<Value>,
    action_space: Option<ActionSpace>,
}

/// Arguments that override a named timm model's own.
#[derive(Default, Deserialize)]
struct TimmArgs {
    num_heads: Option<usize>,
    embed_dim: Option<usize>,
    depth: Option<usize>,
    patch_size: Option<usize>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`PolicyError::Store`] when it cannot be read or lacks a field, [`PolicyError::Checkpoint`] naming what it
    /// contradicts itself in or what is not supported.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read(path).map_err(StoreError::io("read", path))?;
        Self::parse(path, &text)
    }

    /// As [`Config::open`], from the file's text; `path` is for errors.
    ///
    /// # Errors
    /// As [`Config::open`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, PolicyError> {
        let raw: Raw = serde_json::from_slice(text)
            .map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
        let fail = |problem: String| PolicyError::Checkpoint { path: path.to_owned(), problem };
        let towers = towers(&raw).map_err(fail)?;
        let language = language(raw.text_config).map_err(fail)?;
        if raw.num_actions_chunk == Some(0) {
            return Err(fail("`num_actions_chunk` is 0: a chunk holds at least one action".to_owned()));
        }
        let (chunk_len, norm_stats, action_space) = (raw.num_actions_chunk, raw.norm_stats, raw.action_space);
        Ok(Self { path: path.to_owned(), towers, language, chunk_len, norm_stats, action_space })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks a number that the config may name against what tensors say.
    pub(crate) fn agrees(&self, name: &str, named: Option<usize>, found: usize) -> Result<(), PolicyError> {
        match named.filter(|&named| named != found) {
            None => Ok(()),
            Some(named) => Err(self.problem(format!("`{name}` is {named}, but the tensors are of {found}"))),
        }
    }

    pub(crate) fn problem(&self, problem: String) -> PolicyError {
        PolicyError::Checkpoint { path: self.path.clone(), problem }
    }
}

fn towers(raw: &Raw) -> Result<Vec<TowerConfig>, String> {
    let count = raw.timm_model_ids.len();
    if !(1..=2).contains(&count) {
        return Err(format!("`timm_model_ids` names {count} models; Prismatic has one or two"));
    }
    if let Some(activation) = raw.timm_override_act_layers.iter().flatten().next() {
        return Err(format!(
            "`timm_override_act_layers`: {activation} is not supported, only timm's own GELU"
        ));
    }
    let tower = |(index, model_id): (usize, &String)| {
        let image_side = *raw.image_sizes.get(index).ok_or("`image_sizes` needs one size a vision model")?;
        let none = TimmArgs::default();
        let args = raw.timm_model_args.get(index).unwrap_or(&none);
        // What changes the computation without changing a shape.
        for name in ["act_layer", "norm_layer", "qk_norm", "pre_norm"] {
            if args.others.get(name).is_some_and(|value| !value.is_null() && value != &Value::Bool(false)) {
                return Err(format!("`timm_model_args`: {name} of {model_id} is not supported"));
            }
        }
        let heads = args.num_heads.or_else(|| published_heads(model_id)).filter(|&heads| heads > 0);
        let heads = heads.ok_or_else(|| {
            format!("{model_id} has an unknown number of heads; say `num_heads` in `timm_model_args`")
        })?;
        let (width, depth, patch_side) = (args.embed_dim, args.depth, args.patch_size);
        Ok(TowerConfig { model_id: model_id.clone(), image_side, heads, width, depth, patch_side })
    };
    raw.timm_model_ids.iter().enumerate().map(tower).collect()
}

/// Heads of timm's models by the size in their names.
fn published_heads(model_id: &str) -> Option<usize> {
    const HEADS: [(&str, usize); 4] =
        [("vit_small_", 6), ("vit_base_", 12), ("vit_large_", 16), ("vit_so400m_", 16)];
    HEADS.into_iter().find_map(|(prefix, heads)| model_id.starts_with(prefix).then_some(heads))
}

fn language(mut config: LanguageConfig) -> Result<LanguageConfig, String> {
    if config.model_type != "qwen2" {
        return Err(format!(
            "`text_config`: language model `{}` is not supported, only qwen2",
            config.model_type
        ));
    }
    for rope in [&config.rope_parameters, &config.rope_scaling].into_iter().flatten() {
        if let Some(kind) = rope.rope_type.as_ref().filter(|kind| *kind != "default") {
            return Err(format!("`text_config`: rotary embedding `{kind}` is not supported, only default"));
        }
        config.rope_theta = rope.rope_theta.unwrap_or(config.rope_theta);
    }
    if config.use_sliding_window {
        return Err("`text_config`: `use_sliding_window` is not supported".to_owned());
    }
    if let Some(act) = config.hidden_act.as_ref().filter(|act| *act != "silu") {
        return Err(format!("`text_config`: activation `{act}` is not supported, only silu"));
    }
    if [config.heads, config.kv_heads].contains(&Some(0)) {
        return Err("`text_config`: a model has at least one attention head".to_owned());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn published() -> Value {
        json!({
            "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
            "timm_override_act_layers": [null, null],
            "image_sizes": [224, 224],
            "text_config": { "model_type": "qwen2", "num_attention_heads": 14, "num_key_value_heads": 2 },
        })
    }

    fn parse(config: &Value) -> Result<Config, PolicyError> {
        Config::parse(Path::new("config.json"), config.to_string().as_bytes())
    }

    #[test]
    fn what_is_not_named_has_the_published_value() {
        let config = parse(&published()).unwrap();
        let heads: Vec<_> = config.towers.iter().map(|tower| tower.heads).collect();
        assert_eq!(heads, [16, 16]);
        assert_eq!((config.language.rope_theta, config.language.rms_norm_eps), (1e6, 1e-6));
        assert_eq!(config.chunk_len, None);
    }

    #[test]
    fn what_is_named_counts() {
        let mut config = published();
        config["timm_model_args"] = json!([{ "num_heads": 2, "depth": 3, "reg_tokens": 4 }, {}]);
        config["text_config"]["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 500.0 });
        let config = parse(&config).unwrap();
        assert_eq!(
            (config.towers[0].heads, config.towers[0].depth, config.towers[1].heads),
            (2, Some(3), 16)
        );
        assert_eq!(config.language.rope_theta, 500.0);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let cases = [
            ("/text_config/model_type", json!("llama"), "language model `llama`"),
            ("/text_config/hidden_act", json!("gelu"), "activation `gelu`"),
            ("/text_config/rope_scaling", json!({ "type": "yarn" }), "rotary embedding `yarn`"),
            ("/text_config/use_sliding_window", json!(true), "use_sliding_window"),
            ("/timm_model_ids", json!(["vit_giant_patch14", "vit_base_patch16"]), "say `num_heads`"),
            ("/timm_override_act_layers", json!(["quick_gelu", null]), "quick_gelu"),
            ("/image_sizes", json!([224]), "image_sizes"),
            ("/num_actions_chunk", json!(0), "at least one action"),
        ];
        for (place, value, expected) in cases {
            let mut config = published();
            let (parent, field) = place.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[field] = value;
            let error = parse(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{place}: {error}");
        }
        let error = parse(&json!({ "image_sizes": [] })).unwrap_err().to_string();
        assert!(error.contains("timm_model_ids"), "{error}");
    }
}
