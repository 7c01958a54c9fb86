//! Vision towers: timm's vision transformers (arXiv 2010.11929) as DINOv2 with registers (arXiv 2309.16588) and SigLIP
//! (arXiv 2303.15343) use them.
//!
//! Features are the output of the second-to-last block, without the final norm, of patch tokens only. The last block,
//! the final norm and SigLIP's attention pool are in checkpoints and never read.

use crate::backend::{AttentionShape, Backend, Columns, Matrix, PatchGrid, Result, Rows, Then, WeightKind};
use crate::config::{Config, TowerConfig};
use crate::weights::{Device, LayerNorm, Linear, Plan, WeightId};

/// ε of timm's LayerNorms.
const EPSILON: f32 = 1e-6;

/// Channels of an image: red, green, blue.
pub(crate) const CHANNELS: usize = 3;

/// One vision tower.
#[derive(Debug)]
pub struct VisionTower {
    embed: Linear,
    position: WeightId,
    /// Learnt tokens before the patches, with their number: class token, registers.
    prefix: Vec<(WeightId, usize)>,
    blocks: Vec<Block>,
    width: usize,
    heads: usize,
    image_side: usize,
    patch_side: usize,
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    scale1: Option<WeightId>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Option<WeightId>,
}

impl VisionTower {
    /// The tower under `prefix` (`vision_backbone.featurizer`).
    ///
    /// # Errors
    /// [`crate::PolicyError::Checkpoint`] when a tensor is missing or does not fit, or the config says otherwise.
    pub fn plan(plan: &mut Plan<'_>, config: &Config, tower: &TowerConfig, prefix: &str) -> Result<Self> {
        let [width, channels, patch_side, patch_width] =
            plan.dims(&format!("{prefix}.patch_embed.proj.weight"))?;
        let depth = plan.count(&format!("{prefix}.blocks."), 0, ".norm1.weight");
        config.agrees("embed_dim", tower.width, width)?;
        config.agrees("patch_size", tower.patch_side, patch_side)?;
        config.agrees("depth", tower.depth, depth)?;
        if channels != CHANNELS || patch_side != patch_width || patch_side == 0 {
            return Err(plan.problem(format!("{prefix}: patches must be square and of {CHANNELS} channels")));
        }
        let (heads, image_side) = (tower.heads, tower.image_side);
        if !width.is_multiple_of(heads) {
            return Err(config.problem(format!("{prefix}: width {width} does not split into {heads} heads")));
        }
        if depth < 2 {
            return Err(plan.problem(format!("{prefix} has {depth} blocks: no second-to-last one")));
        }
        let patches = (image_side / patch_side).pow(2);
        let [_, positions, _] = plan.dims(&format!("{prefix}.pos_embed"))?;
        if positions != patches {
            return Err(plan.problem(format!(
                "{prefix}.pos_embed holds {positions} positions, but images of {image_side}² pixels have {patches} \
                 patches; only position embeddings of patches alone (timm's `no_embed_class`) are supported"
            )));
        }
        let embed =
            plan.linear(&format!("{prefix}.patch_embed.proj"), width, CHANNELS * patch_side * patch_side)?;
        let position = plan.add(WeightKind::Table, &format!("{prefix}.pos_embed"), patches, width)?;
        let mut tokens = Vec::new();
        for name in ["cls_token", "reg_token"] {
            let key = format!("{prefix}.{name}");
            if plan.has(&key) {
                let [_, count, _] = plan.dims(&key)?;
                tokens.push((plan.add(WeightKind::Table, &key, count, width)?, count));
            }
        }
        let block = |index| Block::plan(plan, &format!("{prefix}.blocks.{index}"), width);
        let blocks = (0..depth - 1).map(block).collect::<Result<_>>()?;
        Ok(Self { embed, position, prefix: tokens, blocks, width, heads, image_side, patch_side })
    }

    /// Width of its features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image_side / self.patch_side).pow(2)
    }

    /// Side of an image in pixels.
    pub fn image_side(&self) -> usize {
        self.image_side
    }

    /// Features of every patch, images one after the other: (images · patches) × width.
    ///
    /// `pixels` has one channel a row; of each image's `channels_per_image` this tower reads three from `first_channel`.
    ///
    /// # Errors
    /// Whatever the backend refuses.
    pub fn forward<B: Backend>(
        &self,
        device: Device<'_, B>,
        pixels: &B::Matrix,
        channels_per_image: usize,
        first_channel: usize,
    ) -> Result<B::Matrix> {
        let images = pixels.rows() / channels_per_image;
        let grid = PatchGrid {
            images,
            channels_per_image,
            first_channel,
            channels: CHANNELS,
            image_side: self.image_side,
            patch_side: self.patch_side,
        };
        let mut x = self.embed(device, pixels, grid)?;
        let shape = AttentionShape {
            sequences: images,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.width / self.heads,
            causal: false,
        };
        for block in &self.blocks {
            x = block.forward(device, &x, shape)?;
        }
        let (length, patches) = (x.rows() / images, self.patches());
        let patches: Vec<_> = (0..images)
            .map(|image| Rows { matrix: &x, rows: (image + 1) * length - patches..(image + 1) * length })
            .collect();
        device.backend.concat_rows(&patches)
    }

    /// Patches with their positions, learnt tokens before those of each image.
    fn embed<B: Backend>(
        &self,
        device: Device<'_, B>,
        pixels: &B::Matrix,
        grid: PatchGrid,
    ) -> Result<B::Matrix> {
        let Device { backend, .. } = device;
        let patches = backend.patches(pixels, grid)?;
        let count = self.patches();
        let indices: Vec<u32> = (0..grid.images).flat_map(|_| 0..count as u32).collect();
        let positions = backend.gather(device.weight(self.position), &indices)?;
        let add = Then::AddTo { residual: &positions, scale: None };
        let patches = device.linear(&patches, self.embed, add)?;
        let tokens = |&(table, count): &(WeightId, usize)| {
            let all: Vec<u32> = (0..count as u32).collect();
            backend.gather(device.weight(table), &all)
        };
        let prefix = self.prefix.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for image in 0..grid.images {
            rows.extend(prefix.iter().map(|matrix| Rows { matrix, rows: 0..matrix.rows() }));
            rows.push(Rows { matrix: &patches, rows: image * count..(image + 1) * count });
        }
        backend.concat_rows(&rows)
    }
}

impl Block {
    fn plan(plan: &mut Plan<'_>, prefix: &str, width: usize) -> Result<Self> {
        let [hidden, _] = plan.dims(&format!("{prefix}.mlp.fc1.weight"))?;
        Ok(Self {
            norm1: plan.layer_norm(&format!("{prefix}.norm1"), width)?,
            qkv: plan.linear(&format!("{prefix}.attn.qkv"), 3 * width, width)?,
            proj: plan.linear(&format!("{prefix}.attn.proj"), width, width)?,
            scale1: layer_scale(plan, &format!("{prefix}.ls1"), width)?,
            norm2: plan.layer_norm(&format!("{prefix}.norm2"), width)?,
            fc1: plan.linear(&format!("{prefix}.mlp.fc1"), hidden, width)?,
            fc2: plan.linear(&format!("{prefix}.mlp.fc2"), width, hidden)?,
            scale2: layer_scale(plan, &format!("{prefix}.ls2"), width)?,
        })
    }

    /// x + ls₁ ⊙ attention(norm₁(x)), then x + ls₂ ⊙ mlp(norm₂(x)).
    fn forward<B: Backend>(
        &self,
        device: Device<'_, B>,
        x: &B::Matrix,
        shape: AttentionShape,
    ) -> Result<B::Matrix> {
        let width = x.columns();
        let normed = device.layer_norm(x, self.norm1, EPSILON)?;
        let qkv = device.linear(&normed, self.qkv, Then::Keep)?;
        let part = |index| Columns { matrix: &qkv, start: index * width };
        let attended = device.backend.attention(part(0), part(1), part(2), shape)?;
        let scale = self.scale1.map(|scale| device.weight(scale));
        let x = device.linear(&attended, self.proj, Then::AddTo { residual: x, scale })?;

        let normed = device.layer_norm(&x, self.norm2, EPSILON)?;
        let hidden = device.linear(&normed, self.fc1, Then::Gelu)?;
        let scale = self.scale2.map(|scale| device.weight(scale));
        device.linear(&hidden, self.fc2, Then::AddTo { residual: &x, scale })
    }
}

/// LayerScale under the name that Prismatic checkpoints have, or timm's own.
fn layer_scale(plan: &mut Plan<'_>, prefix: &str, width: usize) -> Result<Option<WeightId>> {
    let names = [format!("{prefix}.scale_factor"), format!("{prefix}.gamma")];
    let found = names.iter().find(|name| plan.has(name));
    found.map(|name| plan.vector(name, width)).transpose()
}
