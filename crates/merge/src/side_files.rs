//! Everything in a checkpoint that is not weights: configuration, tokenizer, statistics.

use std::path::Path;

use serde_json::{Map, Value};
use skillweld_merged::layout::{STATISTICS, is_provenance};
use skillweld_merged::read_json;
use skillweld_store::{ExpertFiles, copy_file, write_json};

use crate::MergeError;
use crate::plan::{Action, Part, Plan, PlannedTensor, is_vocabulary};

const CONFIG: &str = "config.json";

/// Copies the base model's (or the first model's) other files, the tokenizer from where the recipe says.
pub(crate) fn copy(plan: &Plan<'_>, out: &Path) -> Result<(), MergeError> {
    let model = &plan.models.all[plan.recipe.base.unwrap_or(0)];
    let tokenizer = plan.recipe.locate_tokenizer()?;
    copy_dir(model.weights.path(), out, is_side_file)?;
    copy_dir(&tokenizer, out, is_tokenizer)?;
    patch_config(plan, out)
}

/// Copies the files of one folder that `wanted` names.
fn copy_dir(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), MergeError> {
    if !from.is_dir() {
        // A model that is one file comes without configuration.
        return Ok(());
    }
    let files = ExpertFiles::discover(from)?;
    for name in files.companions().filter(|name| wanted(name)) {
        copy_file(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// Files that belong to a model besides its weights, and not to this one copy of it.
fn is_side_file(name: &str) -> bool {
    let own = is_provenance(name) || name == STATISTICS || name.starts_with("README");
    !own && !is_tokenizer(name)
}

fn is_tokenizer(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
    ];
    NAMES.contains(&name) || name.starts_with("chat_template.")
}

/// Says in `config.json` what the merge changed: dtype and number of layers.
fn patch_config(plan: &Plan<'_>, out: &Path) -> Result<(), MergeError> {
    let path = out.join(CONFIG);
    let layers: Option<usize> = plan.recipe.slices.iter().map(|slice| slice.layer_count()).sum();
    let dtype = plan.recipe.out_dtype.or(plan.recipe.dtype).filter(|_| !plan.masked);
    // A second name that is merged by itself is tied no longer.
    let is_left_out = |tensor: &&PlannedTensor<'_>| matches!(tensor.action, Action::LeaveOut(_));
    let untied = plan.tensors.iter().filter(|tensor| !is_left_out(tensor)).any(|tensor| {
        plan.models.all.iter().any(|model| {
            model.weights.get(&tensor.key).is_none() && model.weights.resolve(&tensor.key).is_some()
        })
    });
    // A second name that only some models store is left out, and the output has it as theirs do.
    let left_out = plan.tensors.iter().filter(is_left_out);
    let tied = left_out.into_iter().any(|tensor| tensor.part == Part::Model && is_vocabulary(&tensor.key));
    if !path.is_file() || (layers.is_none() && dtype.is_none() && !untied && !tied) {
        return Ok(());
    }
    let mut config = read_object(&path)?;
    if let Some(layers) = layers {
        let nested = config.get_mut("text_config").and_then(Value::as_object_mut);
        let holder = match nested {
            Some(text) if text.contains_key("num_hidden_layers") => text,
            _ => &mut config,
        };
        holder.insert("num_hidden_layers".to_owned(), layers.into());
        // One entry a layer, where the architecture lists them: stale after layers moved.
        holder.remove("layer_types");
    }
    if untied || tied {
        const TIED: &str = "tie_word_embeddings";
        if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
            text.insert(TIED.to_owned(), tied.into());
        }
        config.insert(TIED.to_owned(), tied.into());
    }
    if let Some(name) = dtype.and_then(torch_name) {
        for field in ["torch_dtype", "dtype"] {
            if config.contains_key(field) {
                config.insert(field.to_owned(), name.into());
            }
        }
    }
    Ok(write_json(&path, &Value::Object(config))?)
}

/// What configuration files call a dtype.
fn torch_name(dtype: skillweld_tensor::Dtype) -> Option<&'static str> {
    use skillweld_tensor::Dtype;
    Some(match dtype {
        Dtype::F64 => "float64",
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F8E4M3 => "float8_e4m3fn",
        Dtype::F8E5M2 => "float8_e5m2",
        _ => return None,
    })
}

/// Writes the statistics of every task.
pub(crate) fn write_statistics(out: &Path, statistics: &Map<String, Value>) -> Result<(), MergeError> {
    Ok(write_json(&out.join(STATISTICS), &Value::Object(statistics.clone()))?)
}

pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, MergeError> {
    match read_json(path)? {
        Value::Object(object) => Ok(object),
        _ => Err(MergeError::Unfit { path: path.to_owned(), problem: "must be a JSON object".to_owned() }),
    }
}
