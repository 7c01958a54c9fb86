//! What lies in a PEFT adapter: names, ranks and configuration as peft wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec, write_json};

use super::ExtractOptions;
use super::survey::{Fate, Surveyed, is_linear, module, smaller_side};
use crate::InterchangeError;

/// An adapter before it is written.
pub(crate) struct AdapterFiles<'a> {
    /// Weights with factors, by key; A and B are the tensors 2i and 2i + 1 of the layout.
    pub(crate) adapted: Vec<&'a Surveyed<'a>>,
    /// Tensors saved whole, after the factors in the layout.
    saved: Vec<&'a Surveyed<'a>>,
    layout: Vec<TensorSpec>,
    config: Value,
}

/// What peft puts before every name.
const PREFIX: &str = "base_model.model.";

/// Rank of the factors of a weight.
pub(crate) fn rank_of(tensor: &Surveyed<'_>, options: &ExtractOptions) -> usize {
    options.rank.min(smaller_side(tensor.tuned.shape()))
}

impl<'a> AdapterFiles<'a> {
    pub(crate) fn lay_out(
        surveyed: &'a [Surveyed<'a>],
        base: &Checkpoint,
        options: &ExtractOptions,
    ) -> Result<Self, InterchangeError> {
        let with = |fate: Fate| surveyed.iter().filter(move |tensor| tensor.fate == fate);
        let adapted: Vec<_> = with(Fate::Adapt).collect();
        let saved: Vec<_> = with(Fate::Save).collect();
        let mut layout = Vec::with_capacity(2 * adapted.len() + saved.len());
        for tensor in &adapted {
            let name = module(tensor.key).unwrap_or(tensor.key);
            let rank = rank_of(tensor, options);
            let &[m, n] = tensor.tuned.shape() else { continue };
            for (factor, shape) in [("A", [rank, n]), ("B", [m, rank])] {
                let name = format!("{PREFIX}{name}.lora_{factor}.weight");
                layout.push(TensorSpec { name, dtype: options.dtype, shape: shape.to_vec() });
            }
        }
        let modules: BTreeSet<&str> = adapted.iter().filter_map(|tensor| module(tensor.key)).collect();
        for tensor in &saved {
            layout.push(TensorSpec {
                name: saved_name(tensor.key, &modules),
                dtype: tensor.tuned.dtype(),
                shape: tensor.tuned.shape().to_vec(),
            });
        }
        let config = config(&adapted, &saved, base, options);
        Ok(Self { adapted, saved, layout, config })
    }

    /// Writes the configuration and prepares the file of tensors.
    pub(crate) fn create(&self, dir: &Path, base: &Path) -> Result<SafetensorsWriter, InterchangeError> {
        let mut config = self.config.clone();
        // As peft writes it: where the model lay.
        config["base_model_name_or_path"] =
            json!(base.canonicalize().unwrap_or_else(|_| base.to_owned()).display().to_string());
        write_json(&dir.join("adapter_config.json"), &config)?;
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(SafetensorsWriter::create(dir, "adapter_model", self.layout.clone(), &metadata, None)?)
    }

    pub(crate) fn write_saved(&self, writer: &SafetensorsWriter) -> Result<(), InterchangeError> {
        let first = 2 * self.adapted.len();
        for (index, tensor) in self.saved.iter().enumerate() {
            writer.write_at(first + index, 0, tensor.tuned.bytes())?;
        }
        Ok(())
    }
}

/// The name that peft gives a tensor saved whole: a module with factors is wrapped, and its bias lies within.
fn saved_name(key: &str, adapted: &BTreeSet<&str>) -> String {
    match key.strip_suffix(".bias").filter(|module| adapted.contains(module)) {
        Some(module) => format!("{PREFIX}{module}.base_layer.bias"),
        None => format!("{PREFIX}{key}"),
    }
}

fn config(
    adapted: &[&Surveyed<'_>],
    saved: &[&Surveyed<'_>],
    base: &Checkpoint,
    options: &ExtractOptions,
) -> Value {
    let is_bias_of_linear = |key: &str| {
        let weight = key.strip_suffix(".bias").map(|module| format!("{module}.weight"));
        weight.is_some_and(|weight| base.get(&weight).is_some_and(|view| is_linear(&weight, view.shape())))
    };
    let whole = saved.iter().filter(|tensor| !is_bias_of_linear(tensor.key));
    let modules_to_save: BTreeSet<&str> = whole.filter_map(|tensor| module(tensor.key)).collect();
    let biases = saved.iter().any(|tensor| is_bias_of_linear(tensor.key));
    // Weights smaller than the rank have their own, and an alpha that keeps the scale alpha / r at 1.
    let mut ranks = Map::new();
    let mut smaller: Vec<_> =
        adapted.iter().filter(|tensor| rank_of(tensor, options) < options.rank).collect();
    // Patterns are looked for at the end of names, and the first counts: longer ones come first.
    smaller.sort_by_key(|tensor| (std::cmp::Reverse(tensor.key.len()), tensor.key));
    for tensor in smaller {
        ranks.insert(module(tensor.key).unwrap_or(tensor.key).to_owned(), json!(rank_of(tensor, options)));
    }
    json!({
        "auto_mapping": null,
        "base_model_name_or_path": null,
        "bias": if biases { "all" } else { "none" },
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": options.rank,
        "lora_dropout": 0.0,
        "modules_to_save": if modules_to_save.is_empty() { Value::Null } else { json!(modules_to_save) },
        "peft_type": "LORA",
        "r": options.rank,
        "alpha_pattern": ranks,
        "rank_pattern": ranks,
        "target_modules": target_modules(adapted, base),
        "task_type": null,
        "use_dora": false,
        "use_rslora": false,
    })
}

/// Last names of the adapted modules (`q_proj`), where they mean no other module; otherwise whole names.
fn target_modules(adapted: &[&Surveyed<'_>], base: &Checkpoint) -> Vec<String> {
    fn last(module: &str) -> &str {
        module.rsplit('.').next().unwrap_or(module)
    }
    let modules: BTreeSet<&str> = adapted.iter().filter_map(|tensor| module(tensor.key)).collect();
    let names: BTreeSet<&str> = modules.iter().map(|module| last(module)).collect();
    let meant = base.keys().filter_map(|key| key.strip_suffix(".weight")).filter(|m| names.contains(last(m)));
    let names = if meant.count() == modules.len() { names } else { modules };
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_beside_factors_lies_in_the_wrapped_layer() {
        let adapted = BTreeSet::from(["a.q"]);
        assert_eq!(saved_name("a.q.bias", &adapted), "base_model.model.a.q.base_layer.bias");
        assert_eq!(saved_name("a.k.bias", &adapted), "base_model.model.a.k.bias");
        assert_eq!(saved_name("a.norm.weight", &adapted), "base_model.model.a.norm.weight");
    }
}
