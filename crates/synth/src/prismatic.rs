use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;
use skillweld_tensor::Dtype;

use crate::expert::{self, Delta, Family};
use crate::param::{Param, Params, Role};
use crate::{Embodiment, ExpertForm, LanguageModel, Written, action_expert, metadata};

/// Task names of experts, in order; later experts are called `task4`, `task5`, …
const TASKS: [&str; 4] = ["spatial", "object", "goal", "long"];

/// Actions of a chunk for robots that nobody has published a policy for.
const CHUNK: usize = 10;

/// Side of an image, of a patch, and patches an image.
const IMAGE: usize = 224;
const PATCH: usize = 14;
const PATCHES: usize = (IMAGE / PATCH) * (IMAGE / PATCH);

/// Shape of a vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VitSpec {
    /// Width.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP.
    pub mlp: usize,
}

/// A Prismatic (OpenVLA-OFT, VLA-Adapter, MergeVLA) base and its experts.
///
/// An expert directory holds what training leaves behind: the backbone's LoRA adapter in `lora_adapter/` (or whole weights
/// beside `config.json`), the action expert and the proprio projector as `.pt` files, and `dataset_statistics.json`.
/// Both forms of one index are the same expert up to rounding: the whole weights are base + 2·B·A of the adapter's factors.
#[derive(Debug, Clone, PartialEq)]
pub struct PrismaticSpec {
    /// The language model.
    pub language: LanguageModel,
    /// The first vision tower (DINOv2's layout: class token, registers, LayerScale).
    pub featurizer: VitSpec,
    /// The second vision tower (SigLIP's layout: attention pooling, which features skip).
    pub fused_featurizer: VitSpec,
    /// Dtype of base and full experts; adapters and `.pt` files are f32.
    pub dtype: Dtype,
    /// Number of safetensors files of base and full experts.
    pub shards: usize,
    /// Rank of adapters; their alpha is twice that.
    pub rank: usize,
    /// The robot: sizes of actions and states, and their statistics.
    pub embodiment: Embodiment,
    /// Seed of every value.
    pub seed: u64,
}

impl PrismaticSpec {
    /// The smallest model with every part: hidden width 32, 24 layers, 0.6 million parameters.
    pub fn tiny() -> Self {
        Self {
            language: LanguageModel {
                hidden: 32,
                intermediate: 96,
                layers: 24,
                heads: 4,
                kv_heads: 2,
                vocab: 256,
                tied: false,
            },
            featurizer: VitSpec { width: 32, depth: 3, heads: 2, mlp: 128 },
            fused_featurizer: VitSpec { width: 48, depth: 4, heads: 3, mlp: 179 },
            dtype: Dtype::BF16,
            shards: 2,
            rank: 8,
            embodiment: Embodiment::Libero,
            seed: 0,
        }
    }

    /// The published models' size: Qwen2.5-0.5B, DINOv2-L and SigLIP-so400m, 1.3 billion parameters.
    pub fn published() -> Self {
        Self {
            language: LanguageModel {
                hidden: 896,
                intermediate: 4864,
                layers: 24,
                heads: 14,
                kv_heads: 2,
                vocab: 151_936,
                tied: false,
            },
            featurizer: VitSpec { width: 1024, depth: 24, heads: 16, mlp: 4096 },
            fused_featurizer: VitSpec { width: 1152, depth: 27, heads: 16, mlp: 4304 },
            rank: 32,
            ..Self::tiny()
        }
    }

    /// The name of expert `index`'s task.
    pub fn task(index: usize) -> String {
        TASKS.get(index).map_or_else(|| format!("task{index}"), |&name| name.to_owned())
    }

    fn family(&self) -> Family {
        let mut params = Params(Vec::new());
        vit_params("vision_backbone.featurizer", self.featurizer, true, &mut params);
        vit_params("vision_backbone.fused_featurizer", self.fused_featurizer, false, &mut params);
        let vision = self.featurizer.width + self.fused_featurizer.width;
        let hidden = self.language.hidden;
        params.linear("projector.fc1", 4 * vision, vision);
        params.linear("projector.fc2", hidden, 4 * vision);
        params.linear("projector.fc3", hidden, hidden);
        self.language.params("language_model.", &mut params);
        Family {
            params: params.0,
            dtype: self.dtype,
            shards: self.shards,
            rank: self.rank,
            seed: self.seed,
            full: Delta::LowRank,
        }
    }

    /// 64 learnt query tokens, which the base does not have.
    fn action_queries(&self) -> Param {
        Param::new("action_queries.weight", &[64, self.language.hidden], Role::Embedding)
    }

    /// Writes the base: sharded weights, `config.json` with `norm_stats` of the pretraining data, a byte-level tokenizer.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_base(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        self.family().write_base(dir)?;
        self.write_config(dir, "pretraining_mix")
    }

    /// Writes expert `index`. Every third one's `.pt` files carry the `module.` prefix of distributed training.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_expert(&self, dir: &Path, index: usize, form: ExpertForm) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let data_set = format!("libero_{}_no_noops", Self::task(index));
        match form {
            ExpertForm::Full => {
                self.family().write_full(dir, index, &[self.action_queries()])?;
                self.write_config(dir, &data_set)?;
            }
            ExpertForm::Adapter => {
                let adapter = dir.join("lora_adapter");
                fs::create_dir_all(&adapter)?;
                self.family().write_adapter(&adapter, index, &[self.action_queries()])?;
            }
        }
        let statistics = self.embodiment.statistics(self.seed, &data_set);
        metadata::write_json(&dir.join("dataset_statistics.json"), &statistics)?;
        let size = (self.language.hidden, self.language.layers);
        action_expert::write(dir, size, self.embodiment, self.seed, index, index % 3 == 2)
    }

    /// Writes `base` and one directory a task below `dir`, one for each form.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_all(&self, dir: &Path, forms: &[ExpertForm]) -> io::Result<Written> {
        expert::write_all(
            dir,
            forms.iter().enumerate().map(|(index, &form)| (Self::task(index), form)),
            |base| self.write_base(base),
            |expert, index, form| self.write_expert(expert, index, form),
        )
    }

    fn write_config(&self, dir: &Path, data_set: &str) -> io::Result<()> {
        let (dino, siglip) = (self.featurizer, self.fused_featurizer);
        let mut text_config = self.language.config();
        text_config["torch_dtype"] = json!(metadata::torch_name(self.dtype));
        let mut config = json!({
            "model_type": "openvla",
            "architectures": ["OpenVLAForActionPrediction"],
            "arch_specifier": "no-align+fused-gelu-mlp",
            "use_fused_vision_backbone": true,
            "image_resize_strategy": "resize-naive",
            "image_sizes": [IMAGE, IMAGE],
            "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
            "timm_model_args": [
                {
                    "patch_size": PATCH, "embed_dim": dino.width, "depth": dino.depth, "num_heads": dino.heads,
                    "mlp_ratio": dino.mlp as f64 / dino.width as f64,
                    "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": true,
                },
                {
                    "patch_size": PATCH, "embed_dim": siglip.width, "depth": siglip.depth, "num_heads": siglip.heads,
                    "mlp_ratio": siglip.mlp as f64 / siglip.width as f64,
                    "class_token": false, "global_pool": "map",
                },
            ],
            "text_config": text_config,
            "norm_stats": self.embodiment.statistics(self.seed, data_set),
            "torch_dtype": metadata::torch_name(self.dtype),
        });
        if let Some(space) = self.embodiment.action_space() {
            config["action_space"] = space;
            config["num_actions_chunk"] = json!(CHUNK);
        }
        metadata::write_json(&dir.join("config.json"), &config)?;
        metadata::write_tokenizer(dir)
    }
}

/// timm's names. `dino` towers have a class token, registers and LayerScale; the others pool by attention.
fn vit_params(prefix: &str, vit: VitSpec, dino: bool, params: &mut Params) {
    let d = vit.width;
    if dino {
        params.add(format!("{prefix}.cls_token"), &[1, 1, d], Role::Embedding);
        params.add(format!("{prefix}.reg_token"), &[1, 4, d], Role::Embedding);
    }
    params.add(format!("{prefix}.pos_embed"), &[1, PATCHES, d], Role::Embedding);
    params.add(format!("{prefix}.patch_embed.proj.weight"), &[d, 3, PATCH, PATCH], Role::Kernel);
    params.add(format!("{prefix}.patch_embed.proj.bias"), &[d], Role::Bias);
    for block in 0..vit.depth {
        let block = format!("{prefix}.blocks.{block}");
        params.layer_norm(&format!("{block}.norm1"), d);
        params.linear(&format!("{block}.attn.qkv"), 3 * d, d);
        params.linear(&format!("{block}.attn.proj"), d, d);
        params.layer_norm(&format!("{block}.norm2"), d);
        params.linear(&format!("{block}.mlp.fc1"), vit.mlp, d);
        params.linear(&format!("{block}.mlp.fc2"), d, vit.mlp);
        if dino {
            for branch in ["ls1", "ls2"] {
                params.add(format!("{block}.{branch}.scale_factor"), &[d], Role::LayerScale);
            }
        }
    }
    params.layer_norm(&format!("{prefix}.norm"), d);
    if !dino {
        let pool = format!("{prefix}.attn_pool");
        params.add(format!("{pool}.latent"), &[1, 1, d], Role::Embedding);
        params.linear(&format!("{pool}.q"), d, d);
        params.linear(&format!("{pool}.kv"), 2 * d, d);
        params.linear(&format!("{pool}.proj"), d, d);
        params.layer_norm(&format!("{pool}.norm"), d);
        params.linear(&format!("{pool}.mlp.fc1"), vit.mlp, d);
        params.linear(&format!("{pool}.mlp.fc2"), d, vit.mlp);
    }
}
