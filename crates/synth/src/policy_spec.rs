use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use skillweld_tensor::Dtype;

use crate::expert::{Delta, Family};
use crate::param::{Param, Params, Role};
use crate::safetensors_file::{Source, write_file};
use crate::{Noise, metadata};

/// Flow-matching policies with published key names: what their checkpoints hold, not how they compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyFamily {
    /// π0 as openpi's PyTorch code saves it: no prefix, statistics in `assets/`.
    Pi0,
    /// π0.5 as LeRobot saves it: `model.` before every name, statistics in processors. The norms of its action expert are
    /// conditioned on time.
    Pi05,
    /// SmolVLA, by LeRobot.
    SmolVla,
    /// GR00T N1.5, statistics in `experiment_cfg/metadata.json`.
    Groot,
}

/// A pretrained policy and fine-tunes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySpec {
    /// Whose names.
    pub family: PolicyFamily,
    /// Of all weights.
    pub dtype: Dtype,
    /// Seed of every value.
    pub seed: u64,
}

/// Widths of language model and action expert, rows of the vocabulary, dimensions of actions.
const WIDTH: usize = 24;
const EXPERT: usize = 16;
const VOCABULARY: usize = 40;
const ACTION: usize = 32;

impl PolicySpec {
    /// In bf16.
    pub fn tiny(family: PolicyFamily) -> Self {
        Self { family, dtype: Dtype::BF16, seed: 0 }
    }

    /// Writes the pretrained policy, with the statistics of `data_set`.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_base(&self, dir: &Path, data_set: &str) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        self.weights().write_base(dir)?;
        self.write_side_files(dir, data_set)
    }

    /// Writes fine-tune `index`: every weight has moved a little.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_expert(&self, dir: &Path, index: usize, data_set: &str) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        self.weights().write_full(dir, index, &[])?;
        self.write_side_files(dir, data_set)
    }

    /// Every key of its checkpoints.
    pub fn keys(&self) -> Vec<String> {
        self.weights().params.into_iter().map(|Param { name, .. }| name).collect()
    }

    fn weights(&self) -> Family {
        let mut params = Params(Vec::new());
        match self.family {
            PolicyFamily::Pi0 => pi0("", false, &mut params),
            PolicyFamily::Pi05 => pi0("model.", true, &mut params),
            PolicyFamily::SmolVla => smolvla(&mut params),
            PolicyFamily::Groot => groot(&mut params),
        }
        let Self { dtype, seed, .. } = *self;
        Family { params: params.0, dtype, shards: 1, rank: 4, seed, full: Delta::Dense }
    }

    fn write_side_files(&self, dir: &Path, data_set: &str) -> io::Result<()> {
        match self.family {
            PolicyFamily::Pi0 => {
                let folder = dir.join("assets").join(data_set);
                fs::create_dir_all(&folder)?;
                let statistics = json!({"norm_stats": {
                    "state": self.statistics(data_set, "state"),
                    "actions": self.statistics(data_set, "actions"),
                }});
                metadata::write_json(&folder.join("norm_stats.json"), &statistics)
            }
            PolicyFamily::Pi05 | PolicyFamily::SmolVla => {
                let name = if self.family == PolicyFamily::Pi05 { "pi05" } else { "smolvla" };
                metadata::write_json(&dir.join("config.json"), &json!({"type": name, "chunk_size": 50}))?;
                self.write_processor(
                    dir,
                    "policy_preprocessor",
                    (5, "normalizer_processor"),
                    "observation.state",
                    data_set,
                )?;
                self.write_processor(
                    dir,
                    "policy_postprocessor",
                    (0, "unnormalizer_processor"),
                    "action",
                    data_set,
                )
            }
            PolicyFamily::Groot => {
                metadata::write_json(&dir.join("config.json"), &json!({"model_type": "gr00t_n1_5"}))?;
                let folder = dir.join("experiment_cfg");
                fs::create_dir_all(&folder)?;
                let statistics = json!({data_set: {"statistics": {
                    "state": {"arm": self.statistics(data_set, "state")},
                    "action": {"arm": self.statistics(data_set, "action")},
                }}});
                metadata::write_json(&folder.join("metadata.json"), &statistics)
            }
        }
    }

    /// A LeRobot pipeline: its steps as JSON, a step's tensors beside it.
    fn write_processor(
        &self,
        dir: &Path,
        name: &str,
        (number, step): (usize, &str),
        feature: &str,
        data_set: &str,
    ) -> io::Result<()> {
        let state_file = format!("{name}_step_{number}_{step}.safetensors");
        let pipeline = json!({"name": name, "steps": [{"registry_name": step, "state_file": state_file}]});
        metadata::write_json(&dir.join(format!("{name}.json")), &pipeline)?;
        let tensor = |what: &'static str| {
            let values = self.statistics(data_set, feature)[what].clone();
            let fill = move |start: usize, out: &mut [f32]| {
                let value = |i: usize| values[i].as_f64().unwrap_or_default() as f32;
                out.iter_mut().enumerate().for_each(|(i, out)| *out = value(start + i));
            };
            Source { name: format!("{feature}.{what}"), shape: vec![ACTION], fill: Box::new(fill) }
        };
        write_file(&dir.join(state_file), Dtype::F32, [tensor("mean"), tensor("std")].iter())
    }

    fn statistics(&self, data_set: &str, what: &str) -> Value {
        let values =
            |which: &str| Noise::new(self.seed, &format!("{data_set}/{what}/{which}")).take(ACTION, 0.2);
        let std: Vec<f32> = values("std").iter().map(|value| 0.5 + value.abs()).collect();
        json!({"mean": values("mean"), "std": std})
    }
}

fn attention(prefix: &str, width: usize, params: &mut Params) {
    for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        params.add(format!("{prefix}.self_attn.{projection}.weight"), &[width, width], Role::Linear);
    }
    params.add(format!("{prefix}.mlp.up_proj.weight"), &[2 * width, width], Role::Linear);
    params.add(format!("{prefix}.mlp.down_proj.weight"), &[width, 2 * width], Role::Linear);
}

fn pi0(prefix: &str, conditioned: bool, params: &mut Params) {
    let vlm = format!("{prefix}paligemma_with_expert.paligemma.model");
    params.linear(
        &format!("{vlm}.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"),
        WIDTH,
        WIDTH,
    );
    params.linear(&format!("{vlm}.multi_modal_projector.linear"), WIDTH, WIDTH);
    attention(&format!("{vlm}.language_model.layers.0"), WIDTH, params);
    params.add(format!("{vlm}.language_model.norm.weight"), &[WIDTH], Role::Gain);
    // Tied: saved under the name of the output head alone.
    params.add(
        format!("{prefix}paligemma_with_expert.paligemma.lm_head.weight"),
        &[VOCABULARY, WIDTH],
        Role::Embedding,
    );
    let expert = format!("{prefix}paligemma_with_expert.gemma_expert");
    attention(&format!("{expert}.model.layers.0"), EXPERT, params);
    if conditioned {
        params.linear(&format!("{expert}.model.layers.0.input_layernorm.dense"), 3 * EXPERT, EXPERT);
    } else {
        params.add(format!("{expert}.model.layers.0.input_layernorm.weight"), &[EXPERT], Role::Gain);
    }
    params.add(format!("{expert}.lm_head.weight"), &[VOCABULARY, EXPERT], Role::Embedding);
    params.linear(&format!("{prefix}action_in_proj"), EXPERT, ACTION);
    params.linear(&format!("{prefix}action_out_proj"), ACTION, EXPERT);
    let time = if conditioned { "time_mlp" } else { "action_time_mlp" };
    params.linear(&format!("{prefix}{time}_in"), EXPERT, if conditioned { EXPERT } else { 2 * EXPERT });
    params.linear(&format!("{prefix}{time}_out"), EXPERT, EXPERT);
    if !conditioned {
        params.linear(&format!("{prefix}state_proj"), EXPERT, ACTION);
    }
}

fn smolvla(params: &mut Params) {
    let vlm = "model.vlm_with_expert.vlm";
    params.linear(&format!("{vlm}.model.vision_model.encoder.layers.0.self_attn.q_proj"), WIDTH, WIDTH);
    params.add(
        format!("{vlm}.model.connector.modality_projection.proj.weight"),
        &[WIDTH, 4 * WIDTH],
        Role::Linear,
    );
    attention(&format!("{vlm}.model.text_model.layers.0"), WIDTH, params);
    params.add(format!("{vlm}.model.text_model.embed_tokens.weight"), &[VOCABULARY, WIDTH], Role::Embedding);
    params.add(format!("{vlm}.lm_head.weight"), &[VOCABULARY, WIDTH], Role::Embedding);
    attention("model.vlm_with_expert.lm_expert.layers.0", EXPERT, params);
    for (name, m, n) in [
        ("state_proj", WIDTH, ACTION),
        ("action_in_proj", EXPERT, ACTION),
        ("action_out_proj", ACTION, EXPERT),
        ("action_time_mlp_in", EXPERT, 2 * EXPERT),
        ("action_time_mlp_out", EXPERT, EXPERT),
    ] {
        params.linear(&format!("model.{name}"), m, n);
    }
}

fn groot(params: &mut Params) {
    let vlm = "backbone.eagle_model";
    params.linear(&format!("{vlm}.vision_model.encoder.layers.0.self_attn.q_proj"), WIDTH, WIDTH);
    params.linear(&format!("{vlm}.mlp1.1"), WIDTH, WIDTH);
    attention(&format!("{vlm}.language_model.model.layers.0"), WIDTH, params);
    // Between the two halves, and of neither.
    params.linear("backbone.eagle_linear", EXPERT, WIDTH);
    params.linear("action_head.model.transformer_blocks.0.attn1.to_q", EXPERT, EXPERT);
    params.add("action_head.state_encoder.layer1.W".to_owned(), &[2, ACTION, EXPERT], Role::Kernel);
    params.add("action_head.future_tokens.weight".to_owned(), &[8, EXPERT], Role::Embedding);
}
