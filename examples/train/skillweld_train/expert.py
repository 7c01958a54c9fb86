"""Action experts: MergeVLA's, with cross-attention alone, and VLA-Adapter's, which also attends to its own actions.

Both under the published names. See `crates/policy/src/expert.rs` for how Skillweld tells them apart.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .attention import join_heads, rotate_neighbours, split_heads
from .config import Config

ROPE_THETA = 1e4


def rounded_rotary_table(length, width):
    """As PyTorch computes it in a module converted to bf16, every step rounded: what a published expert is run with.

    Experts are saved in bf16, so they are trained with the table that they will meet.
    """
    frequencies = 1.0 / ROPE_THETA ** (torch.arange(0, width, 2).float() / width)
    angles = torch.outer(torch.arange(length).bfloat16(), frequencies.bfloat16())
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


class Block(nn.Module):
    """x ← x + W_o softmax([q kᵀ of each group, the task group's times its gate] / √width) v, then ReLU(Linear(LayerNorm(x)))."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.gating_factor = nn.Parameter(torch.zeros(1))
        self.o_proj = nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def turned(self, layer, x, table):
        cos, sin = table
        rows = x.shape[1]
        return rotate_neighbours(split_heads(layer(x), self.heads), cos[:rows], sin[:rows])

    def attend(self, x, groups):
        """`groups`: (queries, keys, values, gate or none)."""
        scale = groups[0][0].shape[-1] ** -0.5
        scores = [q * scale * (1 if gate is None else gate) @ k.transpose(-1, -2) for q, k, _, gate in groups]
        weights = torch.softmax(torch.cat(scores, dim=-1), dim=-1)
        x = x + self.o_proj(join_heads(weights @ torch.cat([v for _, _, v, _ in groups], dim=2)))
        return self.ffn(x)


class CrossAttentionBlock(Block):
    """MergeVLA's: one query for action tokens and one for task tokens, a sigmoid gate."""

    def __init__(self, width, heads):
        super().__init__(width, heads)
        for name in ("q_proj_adapter", "k_adapter", "v_adapter", "q_proj_task", "k_task", "v_task"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x, action, task, table):
        groups = []
        for tokens, query, key, value, gate in (
            (action, self.q_proj_adapter, self.k_adapter, self.v_adapter, None),
            (task, self.q_proj_task, self.k_task, self.v_task, torch.sigmoid(self.gating_factor)),
        ):
            q, k = self.turned(query, x, table), self.turned(key, tokens, table)
            groups.append((q, k, split_heads(value(tokens), self.heads), gate))
        return self.attend(x, groups)


class SelfAttentionBlock(Block):
    """VLA-Adapter's "pro" block: a third group of keys and values from the actions themselves, a tanh gate."""

    def __init__(self, width, heads):
        super().__init__(width, heads)
        for name in ("q_proj", "k_self", "v_self", "k_adapter", "v_adapter", "k_task", "v_task"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x, action, task, table):
        q = self.turned(self.q_proj, x, table)
        groups = []
        for tokens, key, value, gate in (
            (x, self.k_self, self.v_self, None),
            (action, self.k_adapter, self.v_adapter, None),
            (task, self.k_task, self.v_task, torch.tanh(self.gating_factor)),
        ):
            groups.append((q, self.turned(key, tokens, table), split_heads(value(tokens), self.heads), gate))
        return self.attend(x, groups)


BLOCKS = {"cross": CrossAttentionBlock, "self": SelfAttentionBlock}


class Trunk(nn.Module):
    def __init__(self, config: Config, kind: str):
        super().__init__()
        width = config.language.width
        self.layer_norm1 = nn.LayerNorm(config.action * width)
        self.fc1 = nn.Linear(config.action * width, width)
        blocks = (BLOCKS[kind](width, config.expert_heads) for _ in range(config.language.depth))
        self.mlp_resnet_blocks = nn.ModuleList(blocks)
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, config.action)


class ActionExpert(nn.Module):
    """Hidden states of every depth and the robot's state → batch × chunk × action, normalised."""

    def __init__(self, config: Config, kind: str = "cross"):
        super().__init__()
        self.model = Trunk(config, kind)
        self.chunk = config.chunk
        self.head_width = config.language.width // config.expert_heads

    def forward(self, hidden, proprio):
        trunk = self.model
        # LayerNorm of zeros is its bias; every action of the chunk begins alike, and the rotary embedding parts them.
        start = F.relu(trunk.fc1(trunk.layer_norm1.bias))
        x = start.expand(len(proprio), self.chunk, -1)
        longest = max(hidden[0][0].shape[1], hidden[0][1].shape[1] + 1, self.chunk)
        table = [t.to(x.device) for t in rounded_rotary_table(longest, self.head_width)]
        for block, (task, action) in zip(trunk.mlp_resnet_blocks, hidden[1:]):
            x = block(x, torch.cat([action, proprio.unsqueeze(1)], dim=1), task, table)
        return trunk.fc2(trunk.layer_norm2(x))


class ProprioProjector(nn.Module):
    """Batch × state, normalised → batch × width."""

    def __init__(self, config: Config):
        super().__init__()
        self.fc1 = nn.Linear(config.state, config.language.width)
        self.fc2 = nn.Linear(config.language.width, config.language.width)

    def forward(self, state):
        return self.fc2(F.gelu(self.fc1(state)))
