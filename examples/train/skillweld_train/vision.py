"""Two vision transformers and the projector, under the names that timm and Prismatic give them."""

import torch
import torch.nn.functional as F
from torch import nn

from .attention import attention
from .config import Config, Tower


class LayerScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.scale_factor


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(attention(q, k, v).transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, tower: Tower):
        super().__init__()
        width = tower.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, tower.heads)
        self.ls1 = LayerScale(width) if tower.dino else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, tower.mlp)
        self.ls2 = LayerScale(width) if tower.dino else nn.Identity()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, width, patch_side):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_side, stride=patch_side)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


def waves(side, width):
    """1 × side² × width: sines and cosines of column and row, of wavelengths from one patch to the whole picture.

    Where a patch is has to be as loud as what is in it: begun at random as timm does, small, positions stay unused for
    thousands of steps.
    """
    octaves = torch.pi * side ** -torch.linspace(0, 1, width // 4)
    angles = torch.arange(side).unsqueeze(1) * octaves
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).unsqueeze(0)


class VisionTransformer(nn.Module):
    """Images × 3 × side × side, normalised → images × patches × width: the second-to-last block's output."""

    def __init__(self, tower: Tower, config: Config):
        super().__init__()
        width, side = tower.width, config.image_side // config.patch_side
        if tower.dino:
            self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
            self.reg_token = nn.Parameter(0.02 * torch.randn(1, 4, width))
        self.pos_embed = nn.Parameter(waves(side, width))
        self.patch_embed = PatchEmbed(width, config.patch_side)
        self.blocks = nn.ModuleList(Block(tower) for _ in range(tower.depth))
        # Published checkpoints hold it, features do not pass through it.
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dino = tower.dino

    def forward(self, images):
        x = self.patch_embed(images) + self.pos_embed
        patches = x.shape[1]
        if self.dino:
            first = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token)]
            x = torch.cat([*first, x], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return x[:, -patches:]


#: What each tower's training subtracted and divided by.
MEANS = ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
DEVIATIONS = ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5))


class VisionBackbone(nn.Module):
    """Batch × images × side × side × 3 in 0 … 255 → batch × (images · patches) × (width of both towers)."""

    def __init__(self, config: Config):
        super().__init__()
        self.featurizer = VisionTransformer(config.towers[0], config)
        self.fused_featurizer = VisionTransformer(config.towers[1], config)

    def forward(self, pixels):
        batch = len(pixels)
        images = pixels.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        features = []
        for tower, mean, deviation in zip((self.featurizer, self.fused_featurizer), MEANS, DEVIATIONS):
            mean, deviation = (images.new_tensor(x).view(3, 1, 1) for x in (mean, deviation))
            features.append(tower((images - mean) / deviation))
        return torch.cat(features, dim=2).reshape(batch, -1, sum(f.shape[2] for f in features))


class Projector(nn.Module):
    def __init__(self, vision, language):
        super().__init__()
        self.fc1 = nn.Linear(vision, 4 * vision)
        self.fc2 = nn.Linear(4 * vision, language)
        self.fc3 = nn.Linear(language, language)

    def forward(self, x):
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))
