use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::AdapterProblem;

/// Fields that say how training went, not what the weights mean.
const HARMLESS: [&str; 30] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Ways to start training that leave the base weights as they are. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)
/// move a part of the base into the factors, so B·A belongs to another base than the published one.
const BASE_KEEPING_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What `adapter_config.json` says about the mathematics.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) fan_in_fan_out: bool,
    pub(crate) base_model: Option<String>,
    rank: f64,
    alpha: f64,
    rank_stabilised: bool,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
}

impl Config {
    pub(crate) fn parse(fields: &Map<String, Value>) -> Result<Self, AdapterProblem> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        match text("peft_type") {
            Some("LORA") => {}
            other => return Err(unsupported(format!("peft_type {}", other.unwrap_or("(not given)")))),
        }
        if let Some((name, value)) =
            fields.iter().find(|(name, v)| is_set(v) && !HARMLESS.contains(&name.as_str()))
        {
            return Err(unsupported(format!("{name}: {value}")));
        }
        if let Some(start) = text("init_lora_weights").filter(|start| !BASE_KEEPING_STARTS.contains(start)) {
            return Err(unsupported(format!("init_lora_weights: {start}")));
        }
        Ok(Self {
            fan_in_fan_out: flag("fan_in_fan_out"),
            base_model: text("base_model_name_or_path").map(str::to_owned),
            rank: positive("r", fields.get("r"))?,
            alpha: number("lora_alpha", fields.get("lora_alpha"))?,
            rank_stabilised: flag("use_rslora"),
            rank_pattern: patterns("rank_pattern", fields.get("rank_pattern"), positive)?,
            alpha_pattern: patterns("alpha_pattern", fields.get("alpha_pattern"), number)?,
        })
    }

    /// Rank r of a module, by its name without `base_model.model.`.
    pub(crate) fn rank(&self, module: &str) -> usize {
        first_match(&self.rank_pattern, module).unwrap_or(self.rank) as usize
    }

    /// What B·A is multiplied with: alpha / r, or alpha / √r for rsLoRA.
    pub(crate) fn scale(&self, module: &str) -> f32 {
        let alpha = first_match(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let rank = self.rank(module) as f64;
        (alpha / if self.rank_stabilised { rank.sqrt() } else { rank }) as f32
    }
}

fn unsupported(feature: String) -> AdapterProblem {
    AdapterProblem::Unsupported { feature }
}

/// True for a field that says something: neither null, false nor empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn number(field: &'static str, value: Option<&Value>) -> Result<f64, AdapterProblem> {
    let number = value.and_then(Value::as_f64).filter(|number| number.is_finite());
    number.ok_or(AdapterProblem::BadField { field, reason: "must be a number" })
}

fn positive(field: &'static str, value: Option<&Value>) -> Result<f64, AdapterProblem> {
    let rank = value.and_then(Value::as_u64).filter(|&rank| rank > 0);
    rank.map(|rank| rank as f64)
        .ok_or(AdapterProblem::BadField { field, reason: "must be a whole number above 0" })
}

/// Patterns are regular expressions for the end of a module's name, whole components of it; the first match counts.
fn patterns(
    field: &'static str,
    value: Option<&Value>,
    read: fn(&'static str, Option<&Value>) -> Result<f64, AdapterProblem>,
) -> Result<Vec<(Regex, f64)>, AdapterProblem> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let entry = |(pattern, value)| {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"));
        let regex = regex.map_err(|_| AdapterProblem::BadField {
            field,
            reason: "holds a regular expression that is not understood here",
        })?;
        Ok((regex, read(field, Some(value))?))
    };
    entries.map(entry).collect()
}

fn first_match(patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
    patterns.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(extra: &Value) -> Result<Config, AdapterProblem> {
        let mut fields = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8});
        fields.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Config::parse(fields.as_object().unwrap())
    }

    #[test]
    fn scale_is_alpha_over_rank_or_its_root() {
        assert_eq!(parse(&json!({})).unwrap().scale("a"), 2.0);
        assert_eq!(parse(&json!({"use_rslora": true})).unwrap().scale("a"), 4.0);
        assert_eq!(parse(&json!({"use_rslora": true, "rank_pattern": {"a": 16}})).unwrap().scale("x.a"), 2.0);
        assert_eq!(parse(&json!({"alpha_pattern": {"a": 0.5}})).unwrap().scale("x.a"), 0.125);
    }

    #[test]
    fn patterns_match_whole_components_at_the_end_first_one_first() {
        let config = parse(&json!({"rank_pattern": {
            "layers.1.q": 1, "k|v": 2, r"layers\.[0-3]\.o": 3, "^top": 5, "o": 6
        }}))
        .unwrap();
        for (module, rank) in [
            ("model.layers.1.q", 1),
            ("layers.1.q", 1),
            ("model.layers.11.q", 4),
            ("mylayers.1.q", 4),
            ("model.layers.1.q.inner", 4),
            ("a.v", 2),
            ("a.kv", 4),
            ("model.layers.3.o", 3),
            ("model.layers.4.o", 6),
            ("top", 5),
            ("not.top", 4),
        ] {
            assert_eq!(config.rank(module), rank, "{module}");
        }
        let lookahead = parse(&json!({"rank_pattern": {"(?!x)y": 2}})).unwrap_err();
        assert!(matches!(lookahead, AdapterProblem::BadField { field: "rank_pattern", .. }));
    }

    #[test]
    fn other_mathematics_is_refused_by_name() {
        for (extra, feature) in [
            (json!({"use_dora": true}), "use_dora: true"),
            (json!({"use_qalora": true}), "use_qalora: true"),
            (json!({"lora_bias": true}), "lora_bias: true"),
            (json!({"alora_invocation_tokens": [1, 2]}), "alora_invocation_tokens: [1,2]"),
            (json!({"layer_replication": [[0, 4]]}), "layer_replication: [[0,4]]"),
            (json!({"target_parameters": ["experts.w"]}), r#"target_parameters: ["experts.w"]"#),
            (json!({"trainable_token_indices": [7]}), "trainable_token_indices: [7]"),
            (json!({"field_of_the_future": "on"}), r#"field_of_the_future: "on""#),
            (json!({"init_lora_weights": "pissa_niter_16"}), "init_lora_weights: pissa_niter_16"),
            (json!({"peft_type": "LOKR"}), "peft_type LOKR"),
        ] {
            assert_eq!(
                parse(&extra).unwrap_err(),
                AdapterProblem::Unsupported { feature: feature.to_owned() }
            );
        }
        let harmless = json!({"use_dora": false, "field_of_the_future": null, "target_parameters": [],
            "init_lora_weights": "gaussian", "lora_dropout": 0.1, "fan_in_fan_out": null});
        assert!(parse(&harmless).is_ok());
    }

    #[test]
    fn rank_and_alpha_are_needed() {
        for extra in [
            json!({"r": 0}),
            json!({"r": null}),
            json!({"lora_alpha": "8"}),
            json!({"rank_pattern": {"a": -1}}),
        ] {
            assert!(matches!(parse(&extra), Err(AdapterProblem::BadField { .. })));
        }
    }
}
