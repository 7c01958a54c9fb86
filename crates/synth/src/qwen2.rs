use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use skillweld_tensor::Dtype;

use crate::expert::{self, Delta, Family};
use crate::metadata;
use crate::param::{Param, Params, Role};
use crate::{ExpertForm, Written};

/// Shape of a Qwen2 language model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageModel {
    /// Width d of the hidden states.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads, of width hidden / heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// With tied embeddings, `lm_head.weight` is the embedding and is stored under the embedding's name only.
    pub tied: bool,
}

impl LanguageModel {
    /// Appends every parameter, below `prefix`, in module order.
    pub(crate) fn params(&self, prefix: &str, params: &mut Params) {
        let d = self.hidden;
        let kv = d / self.heads * self.kv_heads;
        params.add(format!("{prefix}model.embed_tokens.weight"), &[self.vocab, d], Role::Embedding);
        for layer in 0..self.layers {
            let layer = format!("{prefix}model.layers.{layer}");
            for (name, width) in [("q", d), ("k", kv), ("v", kv)] {
                params.linear(&format!("{layer}.self_attn.{name}_proj"), width, d);
            }
            params.add(format!("{layer}.self_attn.o_proj.weight"), &[d, d], Role::Linear);
            for name in ["gate", "up"] {
                params.add(format!("{layer}.mlp.{name}_proj.weight"), &[self.intermediate, d], Role::Linear);
            }
            params.add(format!("{layer}.mlp.down_proj.weight"), &[d, self.intermediate], Role::Linear);
            for name in ["input", "post_attention"] {
                params.add(format!("{layer}.{name}_layernorm.weight"), &[d], Role::Gain);
            }
        }
        params.add(format!("{prefix}model.norm.weight"), &[d], Role::Gain);
        if !self.tied {
            // PEFT's "all-linear" leaves the output layer alone, so it is no `Linear` here.
            params.add(format!("{prefix}lm_head.weight"), &[self.vocab, d], Role::Embedding);
        }
    }

    /// The entries of `config.json` that describe this shape.
    pub(crate) fn config(&self) -> Value {
        json!({
            "model_type": "qwen2",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": 32768,
            "rope_theta": 1_000_000.0,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        })
    }
}

/// A plain Qwen2 checkpoint and fine-tunes of it.
///
/// Experts in [`ExpertForm::Full`] are full fine-tunes (every parameter moves by a small dense noise); adapters are LoRA
/// on every linear layer. The two forms of one index are different experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2Spec {
    /// Shape of the model.
    pub model: LanguageModel,
    /// Dtype of base and full experts.
    pub dtype: Dtype,
    /// Number of safetensors files.
    pub shards: usize,
    /// Rank of adapters; their alpha is twice that.
    pub rank: usize,
    /// Seed of every value.
    pub seed: u64,
}

impl Qwen2Spec {
    /// The shape of Qwen2.5-0.5B: 494 million parameters, 0.99 GB in bf16, one file.
    pub fn qwen2_5_0_5b() -> Self {
        let model = LanguageModel {
            hidden: 896,
            intermediate: 4864,
            layers: 24,
            heads: 14,
            kv_heads: 2,
            vocab: 151_936,
            tied: true,
        };
        Self { model, dtype: Dtype::BF16, shards: 1, rank: 64, seed: 0 }
    }

    /// Two small layers: 60 thousand parameters.
    pub fn tiny() -> Self {
        let model = LanguageModel {
            hidden: 32,
            intermediate: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            vocab: 1024,
            tied: true,
        };
        Self { model, dtype: Dtype::BF16, shards: 1, rank: 8, seed: 0 }
    }

    /// Number of parameters stored.
    pub fn parameters(&self) -> usize {
        self.family().params.iter().map(Param::numel).sum()
    }

    fn family(&self) -> Family {
        let mut params = Params(Vec::new());
        self.model.params("", &mut params);
        Family {
            params: params.0,
            dtype: self.dtype,
            shards: self.shards,
            rank: self.rank,
            seed: self.seed,
            full: Delta::Dense,
        }
    }

    /// Writes the base: weights, `config.json` and a byte-level tokenizer.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_base(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        self.family().write_base(dir)?;
        self.write_config(dir)
    }

    /// Writes expert `index`: a whole checkpoint like the base's, or a PEFT adapter.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_expert(&self, dir: &Path, index: usize, form: ExpertForm) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        match form {
            ExpertForm::Full => {
                self.family().write_full(dir, index, &[])?;
                self.write_config(dir)
            }
            ExpertForm::Adapter => self.family().write_adapter(dir, index, &[]),
        }
    }

    /// Writes `base` and `expert0`, `expert1`, … below `dir`, one for each form.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_all(&self, dir: &Path, forms: &[ExpertForm]) -> io::Result<Written> {
        expert::write_all(
            dir,
            forms.iter().enumerate().map(|(index, &form)| (format!("expert{index}"), form)),
            |base| self.write_base(base),
            |expert, index, form| self.write_expert(expert, index, form),
        )
    }

    fn write_config(&self, dir: &Path) -> io::Result<()> {
        let mut config = self.model.config();
        config["architectures"] = json!(["Qwen2ForCausalLM"]);
        config["torch_dtype"] = json!(metadata::torch_name(self.dtype));
        metadata::write_json(&dir.join("config.json"), &config)?;
        metadata::write_tokenizer(dir)
    }
}
