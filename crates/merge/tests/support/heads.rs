//! Small experts with action heads: one weight, a head of two blocks, statistics if wanted.

use std::path::{Path, PathBuf};

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, MergeError, Models, Plan, PlanSummary};
use skillweld_plugin_host::Registry;
use skillweld_store::write_torch_zip;
use skillweld_tensor::{Dtype, TensorView, convert};

/// A tensor of a head.
#[derive(Debug, Clone)]
pub struct HeadTensor {
    pub key: String,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    pub values: Vec<f32>,
}

/// The values of every tensor of a head, reproducible: `seed` tells heads apart.
pub fn value(seed: usize, key: &str, i: usize) -> f32 {
    let name = key.bytes().fold(seed * 31, |sum, byte| (sum * 7 + usize::from(byte)) % 65_521);
    ((name * 17 + i * i * 29 + i * 13) % 257) as f32 / 128.0 - 1.0
}

/// A head of two blocks and width `d` with MergeVLA's names, in f32.
pub fn head(seed: usize, d: usize) -> Vec<HeadTensor> {
    let mut layout = vec![
        ("model.layer_norm1.weight".to_owned(), vec![d]),
        ("model.fc1.weight".to_owned(), vec![d, d]),
        ("model.layer_norm2.weight".to_owned(), vec![d]),
        ("model.fc2.weight".to_owned(), vec![7, d]),
    ];
    for block in 0..2 {
        for layer in ["v_adapter", "v_task", "ffn.1"] {
            layout.push((format!("model.mlp_resnet_blocks.{block}.{layer}.weight"), vec![d, d]));
        }
        layout.push((format!("model.mlp_resnet_blocks.{block}.gating_factor"), vec![1]));
    }
    let tensor = |(key, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(|i| value(seed, &key, i)).collect();
        HeadTensor { key, shape, dtype: Dtype::F32, values }
    };
    layout.into_iter().map(tensor).collect()
}

/// Writes `root/name`: a weight of 2 × 2, and the head.
pub fn expert(root: &Path, name: &str, weight: f32, head: &[HeadTensor]) -> PathBuf {
    let dir = super::checkpoint(root, name, &[("w", &[2, 2], &[weight, 1.0, -weight, 2.0])]);
    let encode = |tensor: &HeadTensor| {
        let mut bytes = vec![0; tensor.dtype.byte_len(tensor.values.len()).unwrap()];
        convert::encode(tensor.dtype, &tensor.values, &mut bytes).unwrap();
        bytes
    };
    let bytes: Vec<Vec<u8>> = head.iter().map(encode).collect();
    let pairs = head.iter().zip(&bytes);
    let tensors: Vec<_> = pairs
        .map(|(t, bytes)| (t.key.as_str(), TensorView::new(t.dtype, &t.shape, bytes).unwrap()))
        .collect();
    if !tensors.is_empty() {
        write_torch_zip(&dir.join("action_head--9_checkpoint.pt"), &tensors).unwrap();
    }
    dir
}

/// A base and the experts `e0`, `e1`, … with these heads; gives a recipe over them, to which more can be added.
pub fn experts(root: &Path, heads: &[Vec<HeadTensor>]) -> String {
    super::checkpoint(root, "base", &[("w", &[2, 2], &[0.0; 4])]);
    for (i, head) in heads.iter().enumerate() {
        expert(root, &format!("e{i}"), i as f32 + 1.0, head);
    }
    let models: Vec<String> = (0..heads.len()).map(|i| format!("{{model: e{i}}}")).collect();
    format!("merge_method: task_arithmetic\nbase_model: base\nmodels: [{}]\n", models.join(", "))
}

/// What `--dry-run` shows of a recipe.
pub fn dry_run(folder: &Path, recipe: &str) -> Result<PlanSummary, MergeError> {
    let file = folder.join("recipe.yaml");
    std::fs::write(&file, recipe).unwrap();
    let recipe = Recipe::read(&file)?;
    let models = Models::open(&recipe)?;
    let registry = Registry::discover(&[])?;
    Ok(Plan::new(&recipe, &models, &registry, &Control::SILENT)?.summary())
}
