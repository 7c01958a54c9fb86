"""A Qwen2 decoder under transformers' names that keeps every hidden state."""

import torch
import torch.nn.functional as F
from torch import nn

from .attention import attention, join_heads, rotary_table, rotate_halves, split_heads
from .config import Language


class RMSNorm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class GroupedAttention(nn.Module):
    def __init__(self, config: Language):
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        head = config.width // config.heads
        self.q_proj = nn.Linear(config.width, config.heads * head)
        self.k_proj = nn.Linear(config.width, config.kv_heads * head)
        self.v_proj = nn.Linear(config.width, config.kv_heads * head)
        self.o_proj = nn.Linear(config.heads * head, config.width, bias=False)

    def forward(self, x, cos, sin, bias):
        repeat = self.heads // self.kv_heads
        q = rotate_halves(split_heads(self.q_proj(x), self.heads), cos, sin)
        k = rotate_halves(split_heads(self.k_proj(x), self.kv_heads), cos, sin)
        v = split_heads(self.v_proj(x), self.kv_heads)
        k, v = (t.repeat_interleave(repeat, dim=1) for t in (k, v))
        return self.o_proj(join_heads(attention(q, k, v, bias)))


class GatedMlp(nn.Module):
    def __init__(self, config: Language):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp, bias=False)
        self.down_proj = nn.Linear(config.mlp, config.width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Language):
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.epsilon)
        self.self_attn = GroupedAttention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.epsilon)
        self.mlp = GatedMlp(config)

    def forward(self, x, cos, sin, bias):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, bias)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config: Language):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.epsilon)
        self.head_width, self.theta = config.width // config.heads, config.rope_theta

    def forward(self, x, positions, bias):
        """The embeddings and every layer's output, the last after the norm: depth + 1 times batch × rows × width."""
        cos, sin = (t.unsqueeze(1) for t in rotary_table(positions, self.head_width, self.theta))
        states = []
        for layer in self.layers:
            states.append(x)
            x = layer(x, cos, sin, bias)
        return [*states, self.norm(x)]


class LanguageModel(nn.Module):
    """One level deeper, as in transformers, where the other child is the head that predicts words."""

    def __init__(self, config: Language):
        super().__init__()
        self.model = Decoder(config)
